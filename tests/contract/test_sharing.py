"""Runs that share an answer: each by its own deadline and wishes, whoever came first."""

import asyncio
from itertools import count

import pytest
from msgspec.structs import replace

from orchestration.driving.requests import TIMEOUTS
from orchestration.fanout.client import ProviderClient
from orchestration.fanout.wire import (
    AttemptFailed,
    CacheUse,
    Chunk,
    Failed,
    Finished,
    Retry,
    Thought,
    Timeouts,
)
from tests.contract.conftest import Upstream
from tests.contract.test_attempts import asked, story
from tests.contract.test_stopping import only_here
from tests.contract.traces import call, events_of, fanout, trace_of

pytestmark = pytest.mark.golang

_digests = (f"{number:064x}" for number in count(1 << 64))


async def test_equal_calls_in_flight_share_one_upstream_call(
    client: ProviderClient, upstream: Upstream
) -> None:
    digest = next(_digests)
    one = asked("ok?delay_ms=40", cache=CacheUse(digest, "read_write"))
    requests = [replace(fanout(one), workspace="ws:1") for _ in range(3)]
    stories = await asyncio.gather(*(events_of(client, request) for request in requests))
    assert sorted(story(events)[0] for events in stories) == ["0 cache", "0 cache", "1 first"]
    texts = {"".join(e.text for e in events if isinstance(e, Chunk)) for events in stories}
    assert len(texts) == 1
    ages = [e.cached_age_ms for events in stories for e in events if isinstance(e, Finished)]
    assert sorted(ages, key=str) == [0, 0, None]
    assert len(upstream.log(one.model)) == 1


async def test_the_first_of_equal_calls_may_leave_without_harm_to_the_others(
    client: ProviderClient, upstream: Upstream
) -> None:
    one = asked("ok?delay_ms=40", cache=CacheUse(next(_digests), "read_write"))
    leader, follower = (replace(fanout(one), workspace="ws:1") for _ in range(2))
    leading = asyncio.create_task(events_of(client, leader))
    await asyncio.sleep(0.1)
    following = asyncio.create_task(events_of(client, follower))
    await asyncio.sleep(0.1)
    await client.cancel(leader.id, None, "stop.user")
    assert story(left := await leading)[-1] == "failed of stop.user"
    assert story(events := await following) == ["0 cache", "chunk", "finished"]
    assert len(upstream.log(one.model)) == 1
    # The answer is paid for once, by the one who has it.
    assert isinstance(left[-1], Failed)
    assert isinstance(events[-1], Finished)
    assert left[-1].usage is None
    assert (events[-1].attempt, events[-1].cached_age_ms) == (1, None)
    assert not events[-1].usage.estimated


async def test_an_attempt_that_fails_after_the_first_has_left_is_told_to_who_took_it_over(
    client: ProviderClient,
) -> None:
    one = asked(
        "fail-first?as=stall",
        timeouts_ms=Timeouts(stall=500),
        cache=CacheUse(next(_digests), "read_write"),
        retry=Retry(attempts=2, restart=True),
    )
    requests = [replace(fanout(one), workspace="ws:1") for _ in range(3)]
    tasks = []
    for request in requests:
        tasks.append(asyncio.create_task(events_of(client, request)))
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.03)
    await client.cancel(requests[0].id, None, "stop.user")
    left, heir, other = [await task for task in tasks]
    assert isinstance(left[-1], Failed)
    assert left[-1].usage is None
    assert story(heir) == [
        "0 cache", "chunk", "1 failed of timeout.stall", "2 restart", "chunk", "finished",
    ]  # fmt: skip
    assert story(other) == ["0 cache", "chunk", "0 cache", "chunk", "finished"]
    spent = [e.usage for e in heir if isinstance(e, AttemptFailed | Finished)]
    assert None not in spent
    assert isinstance(other[-1], Finished)
    assert other[-1].cached_age_ms == 0


async def test_when_all_equal_calls_have_left_the_provider_is_left_too(
    client: ProviderClient, upstream: Upstream
) -> None:
    one = asked("long", cache=CacheUse(next(_digests), "read_write"))
    requests = [replace(fanout(one), workspace="ws:1") for _ in range(2)]
    tasks = [asyncio.create_task(events_of(client, request)) for request in requests]
    await asyncio.sleep(0.2)
    for request in requests:
        await client.cancel(request.id, None, "stop.user")
    for task in tasks:
        assert story(await task)[-1] == "failed of stop.user"
    for _ in range(50):
        (row,) = upstream.log(one.model)
        if row["ended_at"]:
            break
        await asyncio.sleep(0.02)
    assert not row["finished"]


async def test_the_end_of_one_runs_time_does_not_end_an_answer_another_run_shares(
    client: ProviderClient, upstream: Upstream
) -> None:
    one = call(only_here("ok?first_ms=1500"), timeouts=TIMEOUTS)
    one = replace(one, cache=CacheUse(next(_digests), "read_write"))
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
