"""Answers out of the cache, and answers that equal calls in flight share.

The counterpart of the Go service's flights. A call that reads the cache follows a flight: the first
to ask for a key starts it, the others read along, so that several calls cost one. The flight ends
when its work does or when the last call has left it, so nobody's cancel fails another. To the call
that started it a flight is its attempts; to the others it is a replay. When that call ends first,
another takes the attempts over, with what they cost.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from msgspec.structs import replace as with_fields

from orchestration.domain.errors import ErrorKind
from orchestration.fanout.answer_cache import AnswerCache
from orchestration.fanout.attempts import Attempts
from orchestration.fanout.cache_value import CachedAnswer
from orchestration.fanout.call_sink import (
    MAX_PENDING_CHARS,
    NOT_COUNTED,
    Answer,
    CallFault,
    CallSink,
    Counted,
    Telling,
)
from orchestration.fanout.wire import CacheUse, CallRequest, Reason

log = logging.getLogger("rex.fanout")

# One thing that was told, to be told again: to whom, and whether the flight is theirs.
_Told = Callable[[CallSink, bool], Awaitable[None]]
_Key = tuple[str, str]


class _Flight(Telling):
    """One piece of work, what it has told so far, and the calls that follow it."""

    def __init__(self, call: CallRequest) -> None:
        super().__init__(call)
        self.task: asyncio.Task[None] | None = None
        self.end: Answer | CallFault | None = None
        self._target = call
        self._attempt = 0  # under way, or the last; 0: none is
        self._connected = False
        self._counted = NOT_COUNTED
        self._told: list[_Told] = []
        self._leader: CallSink | None = None
        self._leads_from = 0  # the place in what was told; what is before was another's
        self._followers: dict[CallSink, int] = {}  # how many characters each has passed on
        self._told_chars = 0
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._changed = asyncio.Event()

    def deadline(self) -> float:
        """The latest of those who still follow."""
        return max((sink.deadline_at for sink in self._followers), default=0.0)

    def finish(self, end: Answer | CallFault) -> None:
        self.end = end
        if isinstance(end, Answer):
            self._counted = end.counted
        self._change()

    def kept(self, end: Answer) -> CachedAnswer:
        """What the cache keeps of a flight that ended well."""
        return CachedAnswer(
            v=1,
            text="".join(self._texts),
            thoughts="".join(self._thoughts) or None,
            finish_reason=end.finish_reason,
            usage=self.usage(end.counted),
            provider=self._target.provider,
            model=self._target.model,
            stored_at_ms=int(time.time() * 1000),
        )

    # --- what the work tells -------------------------------------------------------------------

    def started(self, attempt: int, reason: Reason, target: CallRequest) -> None:
        super().started(attempt, reason, target)
        self._target, self._texts, self._thoughts = target, [], []
        self._attempt, self._connected, self._counted = attempt, False, NOT_COUNTED

        async def tell(sink: CallSink, leads: bool) -> None:
            if leads:
                sink.started(attempt, reason, target)
            elif sink.said or not sink.began:  # else nothing was shown of the attempt before
                sink.started(0, "cache", target)
            else:
                sink.redirected(target)
            sink.shared_attempt = attempt

        self._record(tell)

    def connected(self) -> None:
        self._connected = True

        async def tell(sink: CallSink, leads: bool) -> None:
            if leads:
                sink.connected()

        self._record(tell)

    def counted(self, counted: Counted) -> None:
        self._counted = counted

        async def tell(sink: CallSink, leads: bool) -> None:
            if leads:
                sink.counted(counted)

        self._record(tell)

    def attempt_failed(self, fault: CallFault, wait_s: float) -> None:
        async def tell(sink: CallSink, leads: bool) -> None:
            if leads:
                sink.attempt_failed(fault, wait_s)

        self._record(tell)
        self.characters, self.said, self._attempt = 0, False, 0

    def must_wait(self, text: str) -> bool:
        """The fastest of the followers sets the pace."""
        ahead = self._told_chars - max(self._followers.values(), default=0)
        return ahead > 0 and ahead + len(text) > MAX_PENDING_CHARS

    async def text(self, text: str) -> None:
        self._measure(text, is_answer=True)
        await self._say(text, self._texts, lambda sink, leads: sink.text(text))

    async def thought(self, text: str) -> None:
        self._measure(text, is_answer=False)

        async def give(sink: CallSink, leads: bool) -> None:
            if sink.call.thoughts is True:  # else the first one asked for them, and this one not
                await sink.thought(text)

        await self._say(text, self._thoughts, give)

    async def _say(self, text: str, into: list[str], give: _Told) -> None:
        while self.must_wait(text):
            await self._changed.wait()
        into.append(text)
        self._told_chars += len(text)

        async def tell(sink: CallSink, leads: bool) -> None:
            await give(sink, leads)
            self._followers[sink] += len(text)
            self._change()

        self._record(tell)

    def _record(self, told: _Told) -> None:
        self._told.append(told)
        self._change()

    def _change(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # --- who follows ---------------------------------------------------------------------------

    async def follow(self, sink: CallSink) -> Answer | CallFault:
        """Tell ``sink`` everything from the start, until the work has ended. The first to follow
        leads; when it leaves before that, another does."""
        self._leader = self._leader or sink
        self._followers[sink] = 0
        place = 0
        try:
            while True:
                leads = self.led_by(sink) and place >= self._leads_from
                if leads:
                    sink.take_over()
                if place < len(self._told):
                    told, place = self._told[place], place + 1
                    await told(sink, leads)
                elif self.end is not None:
                    return self.end
                else:
                    await self._changed.wait()
        except asyncio.CancelledError:
            if self.led_by(sink):
                self._hand_over(sink, place)
            raise
        finally:
            del self._followers[sink]

    def _hand_over(self, sink: CallSink, place: int) -> None:
        """The leader leaves, having been told so much: who pays for the attempt under way?"""
        heir = next((other for other in self._followers if other is not sink), None)
        if heir is not None:
            self._leader, self._leads_from = heir, max(place, self._leads_from)
            sink.hand_over()
        elif self._attempt:
            sink.catch_up(self._attempt, self.characters, self._counted, at_work=self._connected)

    def led_by(self, sink: CallSink) -> bool:
        """Whether the attempts are this call's."""
        return self._leader is sink

    @property
    def deserted(self) -> bool:
        return not self._followers


class Flights:
    """Answers calls that use ``cache``. Used within one event loop."""

    def __init__(self, cache: AnswerCache, attempts: Attempts) -> None:
        self._cache, self._attempts = cache, attempts
        self._flights: dict[_Key, _Flight] = {}

    async def answer(self, call: CallRequest, use: CacheUse, sink: CallSink) -> Answer:
        """The answer to ``call``, told to ``sink``. Raises CallFault."""
        key = (sink.workspace, use.key)
        # Who only writes wants an answer of their own.
        flight = None if use.mode == "write" else self._flights.get(key)
        if flight is None:
            flight = _Flight(call)
            if use.mode != "write":
                # In the table before the cache is looked into: calls of one key look once.
                self._flights[key] = flight
            flight.task = asyncio.create_task(self._work(flight, key, call, use))
        try:
            end = await flight.follow(sink)
        finally:
            if flight.deserted:
                await self._stop(flight, key)
        if isinstance(end, CallFault):
            raise end
        if flight.led_by(sink) or end.cached_age_ms is not None:
            return end
        return replace(end, cached_age_ms=0)

    def forget(self, workspace: str) -> None:
        """Let nobody join what is on its way for a workspace. Who follows it still gets it."""
        for key in [key for key in self._flights if key[0] == workspace]:
            del self._flights[key]

    async def aclose(self) -> None:
        for key, flight in list(self._flights.items()):
            await self._stop(flight, key)

    async def _stop(self, flight: _Flight, key: _Key) -> None:
        """End it, for nobody follows any more. Out of the table first: nobody may join what is
        stopped."""
        if self._flights.get(key) is flight:
            del self._flights[key]
        if flight.task is not None and not flight.task.done():
            flight.task.cancel()
            with suppress(asyncio.CancelledError):
                await flight.task
            if flight.end is None:  # who follows all the same must not wait for their deadline
                flight.finish(CallFault(ErrorKind.INTERNAL))

    async def _work(self, flight: _Flight, key: _Key, call: CallRequest, use: CacheUse) -> None:
        try:
            flight.finish(await self._answer(flight, key, call, use))
        except CallFault as fault:
            flight.finish(fault)
        except Exception as error:
            # The error's own words may hold what a provider said: only its type is safe to log.
            log.error("call failed inside: %s", type(error).__name__)
            flight.finish(CallFault(ErrorKind.INTERNAL))
        finally:
            # An error goes to all that follow, and is not kept for those who come.
            if self._flights.get(key) is flight:
                del self._flights[key]

    async def _answer(self, flight: _Flight, key: _Key, call: CallRequest, use: CacheUse) -> Answer:
        since = self._cache.mark(key[0])
        known = None if use.mode == "write" else await self._cache.get(*key)
        if known is not None:
            return await _replayed(flight, *known)
        end = await self._attempts.answer(call, flight, flight.deadline)
        if use.mode != "read" and end.finish_reason == "stop":
            self._cache.put(*key, flight.kept(end), since)
        return replace(end, usage=flight.usage(end.counted))


async def _replayed(flight: _Flight, answer: CachedAnswer, age_ms: int) -> Answer:
    call = flight.call
    flight.started(0, "cache", with_fields(call, provider=answer.provider, model=answer.model))
    if call.thoughts is True and answer.thoughts:
        await flight.thought(answer.thoughts)
    await flight.text(answer.text)
    return Answer(answer.finish_reason, usage=answer.usage, cached_age_ms=age_ms)
