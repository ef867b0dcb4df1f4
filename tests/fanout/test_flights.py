"""Equal calls share one piece of work: who comes, who leaves, and what each of them is told."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest
from msgspec.structs import replace

from orchestration.domain.errors import ErrorKind
from orchestration.fanout.answer_cache import AnswerCache
from orchestration.fanout.attempts import Attempts
from orchestration.fanout.call_sink import (
    MAX_PENDING_CHARS,
    Answer,
    CallFault,
    Counted,
    Telling,
)
from orchestration.fanout.flights import Flights
from orchestration.fanout.relay import Relay
from orchestration.fanout.wire import (
    AttemptFailed,
    CacheUse,
    CallRequest,
    Chunk,
    Event,
    Failed,
    Fallback,
    FanoutRequest,
    Finished,
    Retry,
    Started,
)
from tests.contract.traces import call, fanout, trace_of

USE = CacheUse("7f" * 32, "read_write")
Attempt = Callable[[CallRequest, Telling], Awaitable[Answer]]


class Provider:
    """Says "one two three", each word when it is let; counts how often it was asked and left."""

    def __init__(self) -> None:
        self.words = asyncio.Semaphore(0)
        self.asked = self.left = 0
        self.faults: list[CallFault] = []

    async def attempt(self, call: CallRequest, telling: Telling) -> Answer:
        self.asked += 1
        try:
            for word in ("one ", "two ", "three"):
                await self.words.acquire()
                await telling.text(word)
                if self.faults:
                    raise self.faults.pop(0)
        except asyncio.CancelledError:
            self.left += 1
            raise
        return Answer("stop")

    def say(self, words: int) -> None:
        for _ in range(words):
            self.words.release()


def flights_of(attempt: Attempt, *, kept_bytes: int = 1 << 20) -> Flights:
    return Flights(AnswerCache(max_bytes=kept_bytes, ttl_s=60), Attempts(attempt))


def request(*, deadline_ms: int = 30_000, retry: Retry | None = None) -> FanoutRequest:
    one = replace(call("m"), cache=USE)
    if retry is not None:
        one = replace(one, retry=retry)
    return replace(fanout(one, deadline_ms=deadline_ms), workspace="ws")


def relay_of(flights: Flights, asked: FanoutRequest) -> Relay:
    return Relay(asked, lambda call, sink: flights.answer(call, USE, sink))


def begun(flights: Flights, asked: FanoutRequest) -> "asyncio.Task[list[Event]]":
    async def read() -> list[Event]:
        return [event async for event in relay_of(flights, asked).events()]

    return asyncio.create_task(read())


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Chunk))


def starts(events: list[Event]) -> list[tuple[int, str]]:
    return [(event.attempt, event.reason) for event in events if isinstance(event, Started)]


async def test_who_joins_later_gets_all_of_the_text_as_a_replay() -> None:
    provider = Provider()
    flights = flights_of(provider.attempt, kept_bytes=0)  # so that nothing but sharing can do it
    leader = begun(flights, request())
    provider.say(2)
    await settled()
    follower = begun(flights, request())
    await settled()
    provider.say(1)
    first, second = await leader, await follower
    assert (text(first), text(second)) == ("one two three", "one two three")
    assert (starts(first), starts(second)) == ([(1, "first")], [(0, "cache")])
    assert isinstance(first[-1], Finished)
    assert isinstance(second[-1], Finished)
    assert (first[-1].cached_age_ms, second[-1].cached_age_ms) == (None, 0)
    assert first[-1].usage == second[-1].usage
    assert provider.asked == 1


async def test_the_leader_s_deadline_is_not_the_followers() -> None:
    provider = Provider()
    flights = flights_of(provider.attempt)
    leader = begun(flights, request(deadline_ms=50))
    provider.say(1)
    await settled()
    follower = begun(flights, request())
    assert trace_of(await leader).kind == "deadline"
    provider.say(2)
    assert text(await follower) == "one two three"
    assert (provider.asked, provider.left) == (1, 0)


async def test_the_last_to_leave_ends_the_work_and_the_next_begins_anew() -> None:
    provider = Provider()
    flights = flights_of(provider.attempt)
    relays = [relay_of(flights, request()) for _ in range(2)]
    async with aclosing(relays[0].events()) as first:
        assert isinstance(await anext(first), Started)
        async with aclosing(relays[1].events()) as second:
            assert isinstance(await anext(second), Started)
        assert provider.left == 0, "one still follows"
    assert (provider.asked, provider.left) == (1, 1)
    again = begun(flights, request())
    provider.say(3)
    assert starts(await again) == [(1, "first")]


async def test_a_failure_goes_to_all_costs_only_the_leader_and_is_not_kept() -> None:
    provider = Provider()
    provider.faults = [CallFault(ErrorKind.INCOMPLETE, "the stream ended")]
    flights = flights_of(provider.attempt)
    tasks = [begun(flights, request()) for _ in range(2)]
    await settled()
    provider.say(1)
    ends = [(await task)[-1] for task in tasks]
    told = [(e.kind, e.attempt, e.usage is None) for e in ends if isinstance(e, Failed)]
    assert told == [("incomplete", 1, False), ("incomplete", 0, True)]
    provider.say(3)
    assert text(await begun(flights, request())) == "one two three"


async def test_who_shares_is_told_who_answers_when_a_fallback_nobody_noticed_does() -> None:
    let, provider = asyncio.Event(), Provider()

    async def attempt(call: CallRequest, telling: Telling) -> Answer:
        if call.model == "m":
            await let.wait()
            raise CallFault(ErrorKind.INVALID_REQUEST)
        return await provider.attempt(call, telling)

    flights = flights_of(attempt)
    asked = request()
    asked = replace(asked, calls=(replace(asked.calls[0], fallbacks=(Fallback("other", "n"),)),))
    leader, follower = (begun(flights, replace(asked, id=name)) for name in ("f-1", "f-2"))
    await settled()
    let.set()
    provider.say(3)
    first, second = await leader, await follower
    assert starts(second) == [(0, "cache")], "nothing it was told is void"
    for events in (first, second):
        assert isinstance(events[-1], Finished)
        assert (events[-1].provider, events[-1].model) == ("other", "n")


async def test_when_all_is_closed_those_who_follow_are_told() -> None:
    provider = Provider()
    flights = flights_of(provider.attempt)
    tasks = [begun(flights, request()) for _ in range(2)]
    await settled()
    await flights.aclose()
    async with asyncio.timeout(5):
        assert [trace_of(await task).kind for task in tasks] == ["internal", "internal"]
    assert provider.left == 1


async def test_a_restart_begins_the_text_of_everyone_anew() -> None:
    provider = Provider()
    provider.faults = [CallFault(ErrorKind.INCOMPLETE)]
    flights = flights_of(provider.attempt)
    retry = Retry(2, restart=True)
    leader, follower = (begun(flights, request(retry=retry)) for _ in range(2))
    await settled()
    provider.say(4)
    first, second = await leader, await follower
    assert starts(first) == [(1, "first"), (2, "restart")]
    assert starts(second) == [(0, "cache"), (0, "cache")]
    for events in (first, second):
        newest = max(n for n, event in enumerate(events) if isinstance(event, Started))
        assert text(events[newest:]) == "one two three"
    assert not any(isinstance(event, AttemptFailed) for event in second)
    known = await begun(flights, request())
    assert text(known) == "one two three", "only the last attempt was kept"
    assert provider.asked == 2


@pytest.mark.parametrize("readers", [1, 2])
async def test_slow_readers_slow_the_work_and_a_fast_one_does_not_wait_for_them(
    readers: int,
) -> None:
    piece, said = "x" * (MAX_PENDING_CHARS // 4), 0

    async def attempt(call: CallRequest, telling: Telling) -> Answer:
        nonlocal said
        for _ in range(40):
            await telling.text(piece)
            said += 1
        return Answer("stop")

    flights = flights_of(attempt)
    slow = relay_of(flights, request())
    async with aclosing(slow.events()) as events:
        await anext(events)
        if readers == 1:
            await asyncio.sleep(0.1)
            # What waits for the call, for the flight, and in the batch under way.
            assert said <= 16
        else:
            fast = await begun(flights, request())
            assert len(text(fast)) == 40 * len(piece)
        rest = [event async for event in events]
    assert len(text(rest)) == 40 * len(piece)


async def test_what_a_slow_reader_was_not_told_is_paid_for_when_it_is_stopped() -> None:
    async def attempt(call: CallRequest, telling: Telling) -> Answer:
        for _ in range(40):
            await telling.text("x" * (MAX_PENDING_CHARS // 4))
        return Answer("stop", counted=Counted(input_tokens=7, output_tokens=4321))

    flights = flights_of(attempt)
    asked = request()
    slow = relay_of(flights, asked)
    async with aclosing(slow.events()) as events:
        await anext(events)
        fast = (await begun(flights, request()))[-1]
        slow.stop(None, ErrorKind.STOP_USER)
        end = [event async for event in events][-1]
    assert isinstance(fast, Finished)
    assert fast.cached_age_ms == 0, "whose answer it is too, and who does not pay"
    assert isinstance(end, Failed)
    assert end.usage is not None
    assert (end.usage.output_tokens, end.usage.estimated) == (4321, False)
