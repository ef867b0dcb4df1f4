"""One call's HTTP exchange under watch: phase timers, sound events only, and a sure end.

LiteLLM and the SDK under it neither know our phases nor tell a cut stream from a finished one. Both
speak HTTP through an httpx transport, and that is where this stands: what they receive has passed
here, and what happened here decides how the call ended.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import Enum
from types import TracebackType
from typing import Any, Self, cast

import httpx
from msgspec import UNSET

from orchestration.domain.errors import ErrorKind
from orchestration.fanout.providers import Endpoint
from orchestration.fanout.relay import CallFault, CallSink
from orchestration.fanout.sse import EventTooLong, SseEvent, SseReader
from orchestration.fanout.upstream_errors import refusal_kind, retry_after_ms
from orchestration.fanout.upstream_wires import UpstreamWire
from orchestration.fanout.wire import DEFAULT_TIMEOUTS_MS, Timeouts

MAX_EVENT_BYTES = 32 << 20
MAX_ERROR_BODY_BYTES = 64 << 10
AFTER_FINISH_S = 2.0  # how long a finished answer waits for the usage and [DONE]
DRAIN_S = 0.05  # a body read to its end leaves its connection for the next call

# The SDKs add headers that tell about this machine, or take keys and organisation names out of its
# environment; a server that is not OpenAI's has no business with them.
_HEADERS_SENT = frozenset(
    {
        "host",
        "content-type",
        "content-length",
        "authorization",
        "x-api-key",
        "x-goog-api-key",
        "anthropic-version",
        "anthropic-beta",
    }
)


class _Phase(Enum):
    PREPARING = None  # no timer but the total
    CONNECTING = "connect"
    AWAITING_FIRST = "first_token"
    STREAMING = "stall"
    RESTING = ""  # for our reader: nor is the provider at fault


_KINDS = {
    _Phase.CONNECTING: ErrorKind.TIMEOUT_CONNECT,
    _Phase.AWAITING_FIRST: ErrorKind.TIMEOUT_FIRST_TOKEN,
    _Phase.STREAMING: ErrorKind.TIMEOUT_STALL,
}


class Watchdog:
    """Ends the block it guards when a phase, or all of them, take too long; then says which."""

    def __init__(self, asked: Timeouts) -> None:
        self._loop = asyncio.get_running_loop()
        self._limits_ms = {
            name: default if (own := getattr(asked, name)) is UNSET else own
            for name, default in DEFAULT_TIMEOUTS_MS.items()
        }
        self._phase = _Phase.PREPARING
        self._total_at = self._loop.time() + self._limits_ms["total"] / 1000
        self._timeout = asyncio.timeout_at(self._total_at)

    def connecting(self) -> None:
        self._enter(_Phase.CONNECTING)

    def connected(self) -> None:
        self._enter(_Phase.AWAITING_FIRST)

    def progress(self, *, generated: bool) -> None:
        """A data event came. One that holds nothing generated does not begin the answer."""
        if generated or self._phase is _Phase.STREAMING:
            self._enter(_Phase.STREAMING)

    def rest(self) -> None:
        self._enter(_Phase.RESTING)

    def _enter(self, phase: _Phase) -> None:
        self._phase = phase
        if self._timeout.expired():
            return
        at = self._total_at
        if phase.value:
            at = min(at, self._loop.time() + self._limits_ms[phase.value] / 1000)
        self._timeout.reschedule(at)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError:
            raise self._fault() from None

    def _fault(self) -> CallFault:
        if self._phase.value and self._loop.time() < self._total_at:
            limit = self._limits_ms[self._phase.value]
            fact = "without data" if self._phase is _Phase.STREAMING else ""
            return CallFault(_KINDS[self._phase], f"{limit} ms {fact}".rstrip())
        return CallFault(ErrorKind.TIMEOUT_TOTAL, f"{self._limits_ms['total']} ms")


class Exchange:
    """What happens upstream for one call. ``fault`` is set once something went wrong there."""

    def __init__(
        self, wire: UpstreamWire, sink: CallSink, timeouts: Timeouts, endpoint: Endpoint
    ) -> None:
        self.wire = wire
        self.watchdog = Watchdog(timeouts)
        self.fault: CallFault | None = None
        self._sink = sink
        self._endpoint = endpoint
        self._connected = False
        self._response: httpx.Response | None = None
        self._reading: AsyncGenerator[SseEvent, None] | None = None
        self._events: AsyncGenerator[bytes, None] | None = None

    async def send(
        self, transport: httpx.AsyncBaseTransport, request: httpx.Request
    ) -> httpx.Response:
        """Send ``request`` and hand on the response with a body under watch. Raises CallFault."""
        try:
            self.watchdog.connecting()
            response = await transport.handle_async_request(self._outgoing(request))
        except httpx.TransportError as error:
            raise self._failed(self._connection_fault(error)) from None
        self._response = response
        refusal = await self._refusal(response)
        if refusal is not None:
            raise self._failed(refusal)
        self._events = self._sound_events(response)
        return httpx.Response(
            200, headers={"content-type": "text/event-stream"}, stream=_Body(self._events)
        )

    async def say(self, text: str) -> None:
        """Pass text on; a slow reader of ours does not count as a stall of the provider."""
        if self._sink.must_wait(text):
            self.watchdog.rest()
            await self._sink.text(text)
            self.watchdog.progress(generated=True)
        else:
            await self._sink.text(text)

    async def read_on(self) -> None:
        """Read what LiteLLM left when it has said all of the answer: the usage comes last."""
        if self._events is not None:
            async for _ in self._events:
                pass

    async def close(self) -> None:
        """Close the upstream connection, or give it back when its body was read to the end."""
        if self._reading is not None:
            await self._reading.aclose()
        if self._response is not None:
            await _raw(self._response).aclose()

    def _outgoing(self, request: httpx.Request) -> httpx.Request:
        headers = [
            (name, value)
            for name, value in request.headers.multi_items()
            if name in _HEADERS_SENT and (self._endpoint.api_key or name != "authorization")
        ]
        headers += [("accept", "text/event-stream"), ("accept-encoding", "identity")]
        headers += [("user-agent", "rex-fanout")]
        if self._endpoint.provider.quirks.get("close_connections"):
            # It closes idle ones without a word, so a call on a kept one could fail.
            headers += [("connection", "close")]
        # No timeouts but ours: httpx knows none of the phases.
        return httpx.Request(
            request.method,
            request.url,
            headers=headers,
            stream=request.stream,
            extensions={"timeout": {}, "trace": self._trace},
        )

    async def _trace(self, name: str, info: dict[str, Any]) -> None:
        if name.endswith("send_request_headers.started"):
            self._connected = True
            self._sink.connected()
            self.watchdog.connected()

    def _connection_fault(self, error: httpx.TransportError) -> CallFault:
        if self._connected:
            return CallFault(ErrorKind.CONNECTION, "the connection broke before an answer")
        if isinstance(error, httpx.TimeoutException):
            return CallFault(ErrorKind.TIMEOUT_CONNECT)
        return CallFault(ErrorKind.CONNECTION)

    def _failed(self, fault: CallFault) -> CallFault:
        self.fault = fault
        return fault

    async def _refusal(self, response: httpx.Response) -> CallFault | None:
        """Why ``response`` is no event stream; None when it is one."""
        media = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        encoding = response.headers.get("content-encoding", "")
        is_stream = media in ("", "text/event-stream", "text/plain")
        if response.status_code == 200 and is_stream and encoding in ("", "identity"):
            return None
        body = bytearray()
        with suppress(httpx.TransportError):
            async for piece in _raw(response):
                body += piece
                if len(body) >= MAX_ERROR_BODY_BYTES:
                    break
        kind = refusal_kind(response.status_code, bytes(body[:MAX_ERROR_BODY_BYTES]))
        fact = "" if response.status_code >= 400 else "not an event stream"
        if 300 <= response.status_code < 400:
            fact = "redirects are not followed"
        wait = retry_after_ms(response.headers, datetime.now(UTC)) if not fact else None
        status = None if response.status_code == 200 else response.status_code
        return CallFault(kind, fact, status=status, retry_after_ms=wait)

    async def _sound_events(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        """The body as sound events for LiteLLM; ends only where the answer is whole."""
        self._reading = reading = self._read(response)
        try:
            async for event in reading:
                seen = self.wire.read(event)
                self.watchdog.progress(generated=seen.generated)
                if seen.forward:
                    yield seen.forward
                if self.wire.finished:
                    break
                if self.wire.closed:
                    raise CallFault(ErrorKind.INCOMPLETE, "no finish reason")
            if not self.wire.finished:
                raise CallFault(ErrorKind.INCOMPLETE, "the stream ended")
            if self.wire.filtered:
                raise CallFault(ErrorKind.CONTENT_FILTER)
        except CallFault as fault:
            raise self._failed(fault) from None
        except EventTooLong:
            size = f"an event over {MAX_EVENT_BYTES >> 20} MiB"
            raise self._failed(CallFault(ErrorKind.RESPONSE_TOO_LARGE, size)) from None
        except httpx.TransportError:
            broke = CallFault(ErrorKind.INCOMPLETE, "the connection broke")
            raise self._failed(broke) from None
        for late in await self._after_finish(reading):
            yield late
        yield self.wire.last()

    async def _after_finish(self, reading: AsyncGenerator[SseEvent, None]) -> list[bytes]:
        """Read on for the usage and the end of the body, for a while; the answer is whole already,
        so nothing that happens now can spoil it."""
        self.watchdog.rest()
        forwards: list[bytes] = []
        closed = False
        with suppress(TimeoutError, httpx.TransportError, EventTooLong):
            async with asyncio.timeout(AFTER_FINISH_S) as patience:
                async for event in reading:
                    if closed:
                        continue
                    seen = self.wire.read(event)
                    if seen.forward:
                        forwards.append(seen.forward)
                    closed = self.wire.closed
                    if closed:
                        patience.reschedule(asyncio.get_running_loop().time() + DRAIN_S)
        return forwards

    async def _read(self, response: httpx.Response) -> AsyncGenerator[SseEvent, None]:
        reader = SseReader(MAX_EVENT_BYTES)
        async for piece in _raw(response):
            for event in reader.feed(piece):
                yield event


def _raw(response: httpx.Response) -> httpx.AsyncByteStream:
    return cast(httpx.AsyncByteStream, response.stream)  # an async transport gave it


class _Body(httpx.AsyncByteStream):
    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        self._events = events

    def __aiter__(self) -> AsyncGenerator[bytes, None]:
        return self._events

    async def aclose(self) -> None:
        await self._events.aclose()


class WatchedTransport(httpx.AsyncBaseTransport):
    """The transport given to the SDKs: every request goes through the exchange of its call."""

    def __init__(self) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self._transport = httpx.AsyncHTTPTransport(limits=limits, http2=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await current_exchange.get().send(self._transport, request)

    async def aclose(self) -> None:
        await self._transport.aclose()


current_exchange: ContextVar[Exchange] = ContextVar("current_exchange")
"""The exchange of the call whose task this is: the SDKs pass nothing of ours on to a transport."""
