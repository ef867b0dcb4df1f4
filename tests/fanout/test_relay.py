"""Fan-outs in this process: each call ends once, text is bounded, and stopping has a reason."""

import asyncio
from contextlib import aclosing

import pytest

from orchestration.domain.errors import ErrorKind
from orchestration.fanout.call_sink import (
    MAX_ANSWER_BYTES,
    MAX_PENDING_CHARS,
    Answer,
    CallFault,
    CallSink,
    valid_text,
)
from orchestration.fanout.relay import Relay, Work
from orchestration.fanout.wire import CallRequest, Chunk, Event, Failed, Finished, Started
from tests.contract.traces import call, fanout, trace_of

DONE = Answer("stop")


def attempted(work: Work) -> Work:
    """``work`` as the one attempt of its call."""

    async def attempt(call: CallRequest, sink: CallSink) -> Answer:
        sink.started(1, "first", call)
        return await work(call, sink)

    return attempt


async def all_events(work: Work, *calls: CallRequest, deadline_ms: int = 30_000) -> list[Event]:
    relay = Relay(fanout(*calls or (call("m"),), deadline_ms=deadline_ms), attempted(work))
    return [event async for event in relay.events()]


async def test_text_of_a_window_leaves_as_one_chunk_and_the_first_at_once() -> None:
    async def work(call: CallRequest, sink: CallSink) -> Answer:
        await sink.text("first ")
        await asyncio.sleep(0.002)
        for word in ("second ", "third ", "fourth"):
            await sink.text(word)
        return DONE

    events = await all_events(work)
    texts = [event.text for event in events if isinstance(event, Chunk)]
    assert texts == ["first ", "second third fourth"]
    assert [type(event) for event in events] == [Started, Chunk, Chunk, Finished]


async def test_a_slow_reader_holds_the_call_back_and_loses_nothing() -> None:
    piece = "x" * (MAX_PENDING_CHARS // 4)
    said = 0

    async def work(call: CallRequest, sink: CallSink) -> Answer:
        nonlocal said
        for _ in range(20):
            await sink.text(piece)
            said += 1
        return DONE

    relay = Relay(fanout(call("m")), attempted(work))
    read = 0
    async with aclosing(relay.events()) as events:
        async for event in events:
            await asyncio.sleep(0.005)
            read += len(getattr(event, "text", "")) // len(piece)
            # What the reader has not taken is what may wait, and the batch it is reading.
            assert said - read <= 8
    assert read == 20


async def test_an_answer_over_the_limit_fails() -> None:
    async def work(call: CallRequest, sink: CallSink) -> Answer:
        for _ in range(20):
            await sink.text("x" * (MAX_ANSWER_BYTES // 10))
        return DONE

    assert trace_of(await all_events(work)).kind == "response_too_large"


async def test_the_deadline_ends_what_is_open_and_leaves_what_has_ended() -> None:
    async def work(call: CallRequest, sink: CallSink) -> Answer:
        await sink.text("a part")
        if call.id == "slow":
            await asyncio.sleep(60)
        return DONE

    events = await all_events(
        work, call("m", call_id="slow"), call("m", call_id="fast"), deadline_ms=50
    )
    assert trace_of(events, "slow").kind == "deadline"
    assert trace_of(events, "slow").text == "a part"
    assert trace_of(events, "fast").finish_reason == "stop"


async def test_a_fault_of_our_own_is_internal_and_its_words_stay_inside(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(call: CallRequest, sink: CallSink) -> Answer:
        raise RuntimeError("sk-canary")

    events = await all_events(work)
    assert trace_of(events).kind == "internal"
    assert "sk-canary" not in repr(events) + caplog.text


async def test_a_call_is_stopped_for_the_first_reason_and_ends_once() -> None:
    async def work(call: CallRequest, sink: CallSink) -> Answer:
        await asyncio.sleep(60)
        return DONE

    relay = Relay(fanout(call("m")), attempted(work))
    ends = []
    async with aclosing(relay.events()) as events:
        async for event in events:
            relay.stop("A", ErrorKind.STOP_SUPERSEDED)
            relay.stop(None, ErrorKind.STOP_USER)
            ends += [event.kind] if isinstance(event, Failed) else []
    assert ends == ["stop.superseded"]


async def test_a_call_that_is_stopped_before_its_first_step_ends_too() -> None:
    async def work(call: CallRequest, sink: CallSink) -> Answer:
        raise AssertionError("nothing is to be done for it")

    relay = Relay(fanout(call("m")), attempted(work))
    async with asyncio.timeout(5), aclosing(relay.events()) as events:
        reading = asyncio.create_task(anext(events))
        # What is called now runs behind the reader's first step, and before that of its calls.
        asyncio.get_running_loop().call_soon(relay.stop, None, ErrorKind.STOP_USER)
        event = await reading
    assert isinstance(event, Failed)
    assert event.kind == "stop.user"


async def test_closing_the_stream_waits_until_every_call_has_let_go() -> None:
    let_go: list[str] = []

    async def work(call: CallRequest, sink: CallSink) -> Answer:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)  # as closing a socket may
            let_go.append(call.id)
        return DONE

    relay = Relay(fanout(call("m"), call("m", call_id="B")), attempted(work))
    async with aclosing(relay.events()) as events:
        await anext(events)
        await asyncio.sleep(0)
    assert sorted(let_go) == ["A", "B"]


@pytest.mark.parametrize("said", ["", "a part"])
async def test_a_failure_has_a_usage_only_where_text_came(said: str) -> None:
    async def work(call: CallRequest, sink: CallSink) -> Answer:
        await sink.text(said)
        raise CallFault(ErrorKind.RATE_LIMITED, status=429, retry_after_ms=2000)

    got = trace_of(await all_events(work))
    assert (got.kind, got.retryable, got.status, got.retry_after_ms) == (
        "rate_limited",
        True,
        429,
        2000,
    )
    assert (got.usage is not None) is bool(said)


def test_text_that_no_reader_takes_is_repaired() -> None:
    assert valid_text("a\x00b\ud800c\ude00d") == "a�b�c�d"
    assert valid_text("naïve 🌍") == "naïve 🌍"
