"""Fan-outs that run in this process: a task per call, one stream of their events.

The in-process counterpart of the Go service's engine, for every backend that is not the service:
it coalesces text, bounds what waits for a slow reader, ends each call exactly once, and stops calls
for a reason. What a call does is the backend's: a coroutine that fills a ``CallSink``. Longer than
most files, because a call, its sink and their stream share one state and are read together.
"""

import asyncio
import logging
from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass

import msgspec
from msgspec import UNSET

from orchestration.domain.errors import ErrorKind, row_of
from orchestration.domain.routing import Provider
from orchestration.fanout.client import FanoutClient, FanoutRefused
from orchestration.fanout.wire import (
    CallRequest,
    Chunk,
    Event,
    Failed,
    FanoutRequest,
    Finished,
    FinishReason,
    Started,
    Timing,
    Usage,
    WireError,
    check_request,
)

log = logging.getLogger("rex.fanout")

DEFAULT_COALESCE_MS = 20
MAX_PENDING_CHARS = 64 << 10
MAX_ANSWER_BYTES = 8 << 20  # as escaped in JSON
CHARS_A_TOKEN = 4


class CallFault(Exception):
    """Why a call fails. ``fact`` is of our own making: no upstream text, no key. ``status`` is the
    HTTP status of a refusal, None when the provider answered 200 or not at all."""

    def __init__(
        self,
        kind: ErrorKind,
        fact: str = "",
        *,
        status: int | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(str(kind))
        self.kind, self.fact, self.status = kind, fact, status
        self.retry_after_ms = retry_after_ms


@dataclass(frozen=True, slots=True)
class Counted:
    """What a provider counted; None where it did not, or counted nonsense."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0


NOT_COUNTED = Counted()


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer, but for its text, which went to the sink."""

    finish_reason: FinishReason
    counted: Counted = NOT_COUNTED


class CallSink:
    """What one call says. Methods are called from the call's own task."""

    def __init__(self, relay: "Relay", call: CallRequest) -> None:
        self._relay = relay
        self._call = call
        self._moments: dict[str, int | None] = dict.fromkeys(
            ("queued", "admitted", "connect", "first_token", "last_token")
        )
        self._characters = 0
        self._bytes = 0
        self._room = asyncio.Event()
        self._pending = 0

    @property
    def characters(self) -> int:
        """Code points of the answer so far."""
        return self._characters

    def started(self) -> None:
        now = self._relay.now_ms()
        # Nothing waits for its turn here: what is asked for is sent.
        self._moments["queued"] = self._moments["admitted"] = now
        call = self._call
        self._relay.put(Started(call.id, now, 1, "first", call.provider, call.model), urgent=True)

    def connected(self) -> None:
        self._moments["connect"] = self._relay.now_ms()

    async def text(self, text: str) -> None:
        """The next piece, as ``valid_text`` leaves it; waits while the reader is behind.

        Raises CallFault when the answer gets too large.
        """
        if not text:
            return
        now = self._relay.now_ms()
        first = self._moments["first_token"] is None
        if first:
            self._moments["first_token"] = now
        self._moments["last_token"] = now
        self._characters += len(text)
        self._bytes += len(msgspec.json.encode(text)) - 2
        if self._bytes > MAX_ANSWER_BYTES:
            raise CallFault(ErrorKind.RESPONSE_TOO_LARGE, f"over {MAX_ANSWER_BYTES} bytes")
        while self.must_wait(text):
            self._room.clear()
            await self._room.wait()
        self._pending += len(text)
        self._relay.put(Chunk(self._call.id, now, text), urgent=first)

    def must_wait(self, text: str) -> bool:
        """Whether ``text`` would wait now: the reader is slow then, not the provider."""
        return self._pending > 0 and self._pending + len(text) > MAX_PENDING_CHARS

    def taken(self) -> None:
        """The reader has taken what was pending."""
        self._pending = 0
        self._room.set()

    def finish(self, answer: Answer) -> None:
        self._end(
            Finished(
                self._call.id,
                self._relay.now_ms(),
                1,
                self._call.provider,
                self._call.model,
                answer.finish_reason,
                self._usage(answer.counted),
                Timing(**self._moments),
                cached_age_ms=None,
            )
        )

    def fail(self, fault: CallFault) -> None:
        row = row_of(fault.kind)
        facts = [f"HTTP {fault.status}"] if fault.status else []
        facts += [fault.fact] if fault.fact else []
        self._end(
            Failed(
                self._call.id,
                self._relay.now_ms(),
                1,
                fault.kind,
                f"{row.sentence} ({', '.join(facts)})" if facts else row.sentence,
                row.retryable,
                fault.status,
                fault.retry_after_ms,
                self._usage(NOT_COUNTED) if self._characters else None,
                Timing(**self._moments),
            )
        )

    def _end(self, event: Finished | Failed) -> None:
        self._relay.put(event, urgent=True)

    def _usage(self, counted: Counted) -> Usage:
        asked = sum(len(message.text) for message in self._call.messages)
        given, written = counted.input_tokens, counted.output_tokens
        return Usage(
            input_tokens=estimated_tokens(asked) if given is None else given,
            output_tokens=estimated_tokens(self._characters) if written is None else written,
            cached_tokens=counted.cached_tokens,
            reasoning_tokens=counted.reasoning_tokens,
            estimated=given is None or written is None,
        )


def estimated_tokens(characters: int) -> int:
    """A token for four characters, rounded up."""
    return -(-characters // CHARS_A_TOKEN)


def valid_text(text: str) -> str:
    """``text`` with U+FFFD for U+0000 and lone surrogates, which what reads us would refuse."""
    if "\x00" in text:
        text = text.replace("\x00", "�")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


Work = Callable[[CallRequest, CallSink], Awaitable[Answer]]


class Relay:
    """One fan-out in flight. ``work`` does one call: it returns its Answer or raises CallFault."""

    def __init__(self, request: FanoutRequest, work: Work) -> None:
        self._loop = asyncio.get_running_loop()
        self._received = self._loop.time()
        self._request = request
        self._work = work
        coalesce = request.coalesce_ms
        self._window_s = (DEFAULT_COALESCE_MS if coalesce is UNSET else coalesce) / 1000
        self._flushed = self._received - self._window_s
        self._pending: list[Event] = []
        self._ready = asyncio.Event()
        self._urgent = asyncio.Event()
        self._sinks = {call.id: CallSink(self, call) for call in request.calls}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stops: dict[str, ErrorKind] = {}

    def now_ms(self) -> int:
        return int((self._loop.time() - self._received) * 1000)

    def put(self, event: Event, *, urgent: bool) -> None:
        self._pending.append(event)
        self._ready.set()
        if urgent:
            self._urgent.set()

    def stop(self, call_id: str | None, kind: ErrorKind) -> None:
        """Stop one call or all; each fails with ``kind``, unless it has ended."""
        for name, task in self._tasks.items():
            if call_id in (None, name) and not task.done():
                self._stops.setdefault(name, kind)
                task.cancel()

    async def events(self) -> AsyncGenerator[Event, None]:
        """Yield until every call has ended. Closing it stops every call, and waits for that."""
        for call in self._request.calls:
            self._tasks[call.id] = asyncio.create_task(self._run(call))
        left = len(self._tasks)
        try:
            while left:
                for event in await self._batch():
                    left -= isinstance(event, Finished | Failed)
                    yield event
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _batch(self) -> list[Event]:
        """What is pending: at once after a quiet window or for something urgent, else at the end
        of the window."""
        await self._ready.wait()
        rest_s = self._flushed + self._window_s - self._loop.time()
        if rest_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await self._urgent.wait()
        self._flushed = self._loop.time()
        events, self._pending = self._pending, []
        self._ready.clear()
        self._urgent.clear()
        for sink in self._sinks.values():
            sink.taken()
        return _joined(events)

    async def _run(self, call: CallRequest) -> None:
        sink = self._sinks[call.id]
        deadline = asyncio.timeout_at(self._received + self._request.deadline_ms / 1000)
        try:
            sink.started()
            async with deadline:
                answer = await self._work(call, sink)
        except CallFault as fault:
            sink.fail(fault)
        except TimeoutError:
            kind = ErrorKind.DEADLINE if deadline.expired() else ErrorKind.INTERNAL
            sink.fail(CallFault(kind, f"{self._request.deadline_ms} ms"))
        except asyncio.CancelledError:
            reason = self._stops.get(call.id)
            if reason is None:
                raise  # the reader left: nobody is there to be told
            sink.fail(CallFault(reason))
        except Exception as error:
            # The error's own words may hold what a provider said: only its type is safe to log.
            log.error("call failed inside: %s", type(error).__name__)
            sink.fail(CallFault(ErrorKind.INTERNAL))
        else:
            sink.finish(answer)


@dataclass(slots=True)
class _Text:
    """Chunks of one call on their way to be one."""

    first: Chunk
    pieces: list[str]

    def chunk(self) -> Chunk:
        return Chunk(self.first.call, self.first.at_ms, "".join(self.pieces))


def _joined(events: list[Event]) -> list[Event]:
    """The events with the chunks of each call joined; the order within a call is kept."""
    joined: list[Event | _Text] = []
    last: dict[str, _Text] = {}
    for event in events:
        if not isinstance(event, Chunk):
            last.pop(event.call, None)
            joined.append(event)
        elif event.call in last:
            last[event.call].pieces.append(event.text)
        else:
            last[event.call] = _Text(event, [event.text])
            joined.append(last[event.call])
    return [entry.chunk() if isinstance(entry, _Text) else entry for entry in joined]


class RelayClient(FanoutClient):
    """A backend whose calls run in this process; a subclass says what one call does."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        super().__init__(providers)
        self._in_flight: dict[str, Relay] = {}

    @abstractmethod
    async def answer(self, call: CallRequest, sink: CallSink) -> Answer:
        """Do one call: fill ``sink`` and return how the answer ended, or raise CallFault."""

    def check(self, request: FanoutRequest) -> None:
        """Refuse what the service would refuse. Raises FanoutRefused."""
        try:
            check_request(request)
        except WireError as error:
            raise FanoutRefused(400, str(error), error.field) from None

    async def stream(self, request: FanoutRequest) -> AsyncGenerator[Event, None]:
        self.check(request)
        if request.id in self._in_flight:
            raise FanoutRefused(409, "a fan-out with this id is in flight", "id")
        relay = self._in_flight[request.id] = Relay(request, self.answer)
        try:
            async with aclosing(relay.events()) as events:
                async for event in events:
                    yield event
        finally:
            del self._in_flight[request.id]

    async def cancel(self, fanout_id: str, call_id: str | None, reason: str) -> None:
        relay = self._in_flight.get(fanout_id)
        if relay is not None:
            relay.stop(call_id, stop_kind(reason))


def stop_kind(reason: str) -> ErrorKind:
    """``reason`` of a cancel as a kind. Raises ValueError for one that is none."""
    if reason not in (ErrorKind.STOP_USER, ErrorKind.STOP_SUPERSEDED):
        raise ValueError(f"not a reason to stop: {reason[:40]}")
    return ErrorKind(reason)
