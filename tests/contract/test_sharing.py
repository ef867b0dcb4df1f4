"""Runs that share an answer: each with its own deadline, whoever came first."""

import asyncio

import pytest
from msgspec.structs import replace

from orchestration.driving.requests import TIMEOUTS
from orchestration.fanout.client import ProviderClient
from orchestration.fanout.wire import CacheUse
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
