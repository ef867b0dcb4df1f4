"""Runs that share an answer: each by its own deadline and wishes, whoever came first."""

import asyncio

import pytest
from msgspec.structs import replace

from orchestration.driving.requests import TIMEOUTS
from orchestration.fanout.client import ProviderClient
from orchestration.fanout.wire import CacheUse, Thought
from tests.contract.conftest import Upstream
from tests.contract.test_stopping import only_here
from tests.contract.traces import call, events_of, fanout, trace_of

pytestmark = pytest.mark.golang


async def test_the_end_of_one_runs_time_does_not_end_an_answer_another_run_shares(
    client: ProviderClient, upstream: Upstream
) -> None:
    one = call(only_here("ok?first_ms=1500"), timeouts=TIMEOUTS)
    one = replace(one, cache=CacheUse("5e" * 32, "read_write"))
    short, long = (
        replace(fanout(one, deadline_ms=deadline_ms), workspace="ws:1")
        for deadline_ms in (700, 20_000)
    )
    first = asyncio.create_task(events_of(client, short))
    await asyncio.sleep(0.1)  # so that it comes first
    second = await events_of(client, long)
    assert trace_of(await first).kind == "deadline"
    assert trace_of(second).events == ("started", "chunk", "finished")
    assert len(upstream.log(one.model)) == 1


async def test_reasoning_is_shared_only_with_who_asked_for_it(client: ProviderClient) -> None:
    one = call(only_here("reasoning?delay_ms=60"))
    one = replace(one, cache=CacheUse("5f" * 32, "read_write"), thoughts=True)
    asked = [
        replace(fanout(replace(one, thoughts=thoughts)), workspace="ws:1")
        for thoughts in (True, False, True)
    ]
    first = asyncio.create_task(events_of(client, asked[0]))
    await asyncio.sleep(0.1)  # so that it comes first
    others = await asyncio.gather(*(events_of(client, request) for request in asked[1:]))
    told = [
        "".join(e.text for e in events if isinstance(e, Thought))
        for events in (await first, *others)
    ]
    assert told[0] != ""
    assert told[1:] == ["", told[0]]
    ends = [trace_of(events) for events in others]
    assert [end.finish_reason for end in ends] == ["stop", "stop"]
    assert ends[0].text == ends[1].text != ""
