"""Stopping reaches the provider: whoever stops, in whatever phase, its socket closes."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from itertools import count

import pytest

from orchestration.fanout.call_sink import MAX_PENDING_CHARS
from orchestration.fanout.client import FanoutRefused, ProviderClient
from orchestration.fanout.wire import Failed, Finished, Started
from tests.contract.conftest import Upstream
from tests.contract.traces import call, events_of, fanout, trace_of

pytestmark = pytest.mark.golang

# What the upstream is doing when the stop comes.
PHASES = ["no-headers", "slow-first-token", "long?delay_ms=50", "stall"]
_numbers = count(1)


def only_here(script: str) -> str:
    """The script under a name no other test uses, so that its rows of the log are ours."""
    return f"{script}{'&' if '?' in script else '?'}n={next(_numbers)}"


async def until(condition: Callable[[], bool], what: str) -> None:
    for _ in range(200):
        if await asyncio.to_thread(condition):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"never came: {what}")


async def aborted(upstream: Upstream, model: str) -> None:
    """Returns when the upstream's answers have ended; they did so before their own end."""
    await until(lambda: all(r["ended_at"] for r in upstream.log(model)), f"abort of {model}")
    assert not any(row["finished"] for row in upstream.log(model))


async def asked(upstream: Upstream, model: str) -> None:
    await until(lambda: bool(upstream.log(model)), f"request for {model}")


@pytest.mark.parametrize("script", PHASES)
async def test_closing_the_stream_closes_every_upstream_socket(
    script: str, client: ProviderClient, upstream: Upstream
) -> None:
    model = only_here(script)
    async with aclosing(client.stream(fanout(call(model), call(model, call_id="B")))) as events:
        assert isinstance(await anext(events), Started)
        await until(lambda: len(upstream.log(model)) == 2, "both requests")
    await aborted(upstream, model)


@pytest.mark.parametrize("script", PHASES)
@pytest.mark.parametrize("reason", ["stop.user", "stop.superseded"])
async def test_cancelling_one_call_leaves_the_other_alone(
    script: str, reason: str, client: ProviderClient, upstream: Upstream
) -> None:
    model = only_here(script)
    request = fanout(call(model), call("prose-1?delay_ms=5", call_id="B"))
    running = asyncio.create_task(events_of(client, request))
    await asked(upstream, model)
    await client.cancel(request.id, "A", reason)
    events = await running
    await aborted(upstream, model)
    assert trace_of(events, "A").kind == reason
    assert trace_of(events, "B").finish_reason == "stop"


async def test_cancelling_a_fanout_ends_each_call_once(
    client: ProviderClient, upstream: Upstream
) -> None:
    model = only_here("long?delay_ms=50")
    request = fanout(call(model), call(model, call_id="B"), call("ok", call_id="C"))

    async def cancel_when_c_is_done() -> list[str]:
        ends = []
        async with aclosing(client.stream(request)) as events:
            async for event in events:
                if isinstance(event, Finished | Failed):
                    ends.append(event.call)
                if isinstance(event, Finished):
                    await client.cancel(request.id, None, "stop.user")
        return ends

    assert sorted(await cancel_when_c_is_done()) == ["A", "B", "C"]
    await aborted(upstream, model)


async def test_cancelling_what_has_ended_or_never_was_changes_nothing(
    client: ProviderClient,
) -> None:
    request = fanout(call("ok"))
    events = await events_of(client, request)
    await client.cancel(request.id, None, "stop.user")
    await client.cancel("never-was", "A", "stop.user")
    assert trace_of(events).finish_reason == "stop"


async def test_the_deadline_closes_the_upstream_socket(
    client: ProviderClient, upstream: Upstream
) -> None:
    model = only_here("stall")
    events = await events_of(client, fanout(call(model), deadline_ms=300))
    assert trace_of(events).kind == "deadline"
    await aborted(upstream, model)


async def test_a_slow_reader_loses_nothing(go: ProviderClient) -> None:
    """Of the in-process backend tests/fanout/test_relay.py shows it, without LiteLLM's cost."""
    model = "prose-400?delay_ms=0"
    whole = trace_of(await events_of(go, fanout(call(model)))).text
    assert len(whole) > MAX_PENDING_CHARS

    async def read_slowly() -> str:
        text = []
        async with aclosing(go.stream(fanout(call(model)))) as events:
            async for event in events:
                await asyncio.sleep(0.05)
                text.append(getattr(event, "text", ""))
        return "".join(text)

    assert await read_slowly() == whole


@pytest.mark.parametrize(
    ("refused", "field"),
    [
        (lambda: fanout(call("ok", provider="nobody")), "calls[0].provider"),
        (lambda: fanout(call("ok"), call("ok")), "calls[1].id"),
        (lambda: fanout(call("two words")), "calls[0].model"),
        (lambda: fanout(call("ok", prompt="\ud800")), None),
    ],
    ids=["unknown provider", "same id twice", "no model name", "half a surrogate pair"],
)
async def test_a_request_that_is_wrong_is_refused_and_starts_nothing(
    refused: Callable[[], object], field: str | None, client: ProviderClient
) -> None:
    with pytest.raises(FanoutRefused) as caught:
        await events_of(client, refused())  # type: ignore[arg-type]
    assert caught.value.field == field


async def test_an_id_in_flight_is_refused(client: ProviderClient, upstream: Upstream) -> None:
    model = only_here("stall")
    request = fanout(call(model))
    first: Awaitable[object] = asyncio.create_task(events_of(client, request))
    await asked(upstream, model)
    with pytest.raises(FanoutRefused) as caught:
        await events_of(client, request)
    assert caught.value.status == 409
    await client.cancel(request.id, None, "stop.user")
    await first
