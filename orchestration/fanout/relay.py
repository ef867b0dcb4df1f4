"""Fan-outs that run in this process: a task per call, one stream of their events.

The in-process counterpart of the Go service's engine, for every backend that is not the service:
it coalesces text, ends each call exactly once, and stops calls for a reason. What a call does is
the backend's: a coroutine that fills a ``CallSink``.
"""

import asyncio
import logging
from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass

from msgspec import UNSET

from orchestration.domain.errors import ErrorKind
from orchestration.domain.routing import Provider
from orchestration.fanout.call_sink import Answer, CallFault, CallSink
from orchestration.fanout.client import FanoutClient, FanoutRefused
from orchestration.fanout.wire import (
    CallRequest,
    Chunk,
    Event,
    Failed,
    FanoutRequest,
    Finished,
    Thought,
    WireError,
    check_request,
)

log = logging.getLogger("rex.fanout")

DEFAULT_COALESCE_MS = 20

Work = Callable[[CallRequest, CallSink], Awaitable[Answer]]


class Relay:
    """One fan-out in flight. ``work`` does one call: it tells its attempts and text to the sink,
    and returns its Answer or raises CallFault."""

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
        workspace = "" if request.workspace is UNSET else request.workspace
        self._deadline_at = self._received + request.deadline_ms / 1000
        self._sinks = {
            call.id: CallSink(self, call, workspace=workspace, deadline_at=self._deadline_at)
            for call in request.calls
        }
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._begun: set[str] = set()
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
        for name in self._sinks:
            if call_id in (None, name):
                self._stops.setdefault(name, kind)
                # A task that is cancelled before its first step runs none, and so would not tell.
                if name in self._begun:
                    self._tasks[name].cancel()

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
        self._begun.add(call.id)
        if call.id in self._stops:
            sink.fail(CallFault(self._stops[call.id]))
            return
        deadline = asyncio.timeout_at(self._deadline_at)
        try:
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
    """Pieces of one call, all of the answer or all of its reasoning, on their way to be one."""

    first: Chunk | Thought
    pieces: list[str]

    def event(self) -> Chunk | Thought:
        return type(self.first)(self.first.call, self.first.at_ms, "".join(self.pieces))


def _joined(events: list[Event]) -> list[Event]:
    """The events with neighbouring text of each call joined; the order within a call is kept."""
    joined: list[Event | _Text] = []
    last: dict[str, _Text] = {}
    for event in events:
        before = last.get(event.call)
        if not isinstance(event, Chunk | Thought):
            last.pop(event.call, None)
            joined.append(event)
        elif before is not None and type(before.first) is type(event):
            before.pieces.append(event.text)
        else:
            last[event.call] = _Text(event, [event.text])
            joined.append(last[event.call])
    return [entry.event() if isinstance(entry, _Text) else entry for entry in joined]


class RelayClient(FanoutClient):
    """A backend whose calls run in this process; a subclass says what one call does."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        super().__init__(providers)
        self._in_flight: dict[str, Relay] = {}

    @abstractmethod
    async def answer(self, call: CallRequest, sink: CallSink) -> Answer:
        """Do one call: tell ``sink`` its attempts and text, and return how the answer ended, or
        raise CallFault."""

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
