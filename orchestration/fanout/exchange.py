"""One call's HTTP exchange under watch: phase timers, sound events only, and a sure end.

LiteLLM and the SDK under it neither know our phases nor tell a cut stream from a finished one. Both
speak HTTP through an httpx transport, and that is where this stands: what they receive has passed
here, and what happened here decides how the call ended.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, cast

import httpx

from orchestration.domain.errors import ErrorKind
from orchestration.fanout.call_sink import CallFault, Telling
from orchestration.fanout.providers import Endpoint
from orchestration.fanout.sse import EventTooLong, SseEvent, SseReader
from orchestration.fanout.upstream_errors import (
    error_object,
    event_kind,
    refusal_kind,
    retry_after_ms,
)
from orchestration.fanout.upstream_wires import UpstreamWire
from orchestration.fanout.watchdog import Watchdog
from orchestration.fanout.wire import Timeouts

MAX_EVENT_BYTES = 32 << 20
MAX_ERROR_BODY_BYTES = 64 << 10
ERROR_BODY_S = 2.0  # a refusal is one whatever its body says: that may only refine it
AFTER_FINISH_S = 2.0  # how long a finished answer waits for the usage and [DONE]
BEFORE_DEADLINE_S = 0.05  # and how much earlier than the deadline it is told
DRAIN_S = 0.05  # a body read to its end leaves its connection for the next call

_STREAMED = frozenset({"", "text/event-stream", "text/plain"})
_WHOLE = frozenset({"", "application/json", "text/plain"})

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


class Exchange:
    """What happens upstream for one call. ``fault`` is set once something went wrong there."""

    def __init__(
        self,
        wire: UpstreamWire,
        sink: Telling,
        timeouts: Timeouts,
        endpoint: Endpoint,
        *,
        whole: bool = False,
        thoughts: bool = False,
    ) -> None:
        self.wire = wire
        self.watchdog = Watchdog(timeouts)
        self.fault: CallFault | None = None
        self._sink = sink
        self._endpoint = endpoint
        self._whole, self._thoughts = whole, thoughts
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
        await self._pass_on(self._sink.text, text)

    async def _pass_on(self, to: Callable[[str], Awaitable[None]], text: str) -> None:
        if self._sink.must_wait(text):
            self.watchdog.rest()
            await to(text)
            self.watchdog.progress(generated=True)
        else:
            await to(text)

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
            if name in _HEADERS_SENT and (self._endpoint.api_keys or name != "authorization")
        ]
        accepted = "application/json" if self._whole else "text/event-stream"
        headers += [("accept", accepted), ("accept-encoding", "identity")]
        headers += [("user-agent", "rex-fanout")]
        if self._endpoint.provider.quirks.get("close_connections"):
            # It closes idle ones without a word, so a call on a kept one could fail.
            headers += [("connection", "close")]
        url, stream = request.url, request.stream
        if self._whole:
            address, body = self.wire.unstreamed(str(url), json.loads(request.content))
            url = httpx.URL(address)
            content = json.dumps(body).encode()
            headers = [(name, value) for name, value in headers if name != "content-length"]
            headers.append(("content-length", str(len(content))))
            stream = httpx.ByteStream(content)
        # No timeouts but ours: httpx knows none of the phases.
        return httpx.Request(
            request.method,
            url,
            headers=headers,
            stream=stream,
            extensions={"timeout": {}, "trace": self._trace},
        )

    async def _trace(self, name: str, info: dict[str, Any]) -> None:
        if name.endswith("send_request_headers.started"):
            self._connected = True
            self._sink.connected()
            if self._whole:
                self.watchdog.rest()  # an answer in one piece has no first token to wait for
            else:
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
        wanted = _WHOLE if self._whole else _STREAMED
        if response.status_code == 200 and media in wanted and encoding in ("", "identity"):
            return None
        body = bytearray()
        self.watchdog.rest()
        with suppress(TimeoutError, httpx.TransportError):
            async with asyncio.timeout(ERROR_BODY_S):
                async for piece in _raw(response):
                    body += piece
                    if len(body) >= MAX_ERROR_BODY_BYTES:
                        break
        kind = refusal_kind(response.status_code, bytes(body[:MAX_ERROR_BODY_BYTES]))
        wanted_form = "JSON" if self._whole else "an event stream"
        fact = "" if response.status_code >= 400 else f"not {wanted_form}"
        if 300 <= response.status_code < 400:
            fact = "redirects are not followed"
        wait = retry_after_ms(response.headers, datetime.now(UTC)) if not fact else None
        status = None if response.status_code == 200 else response.status_code
        lasting = response.status_code >= 400 and response.headers.get("x-should-retry") == "false"
        return CallFault(kind, fact, status=status, retry_after_ms=wait, lasting=lasting)

    async def _sound_events(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        """The body as sound events for LiteLLM; ends only where the answer is whole."""
        self._reading = reading = self._read(response)
        try:
            async for event in reading:
                seen = self.wire.read(event)
                self.watchdog.progress(generated=seen.generated)
                if seen.thought and self._thoughts:
                    await self._pass_on(self._sink.thought, seen.thought)
                if seen.forward:
                    yield seen.forward
                if self.wire.finished:
                    break
                if self.wire.closed:
                    raise CallFault(ErrorKind.INCOMPLETE, "no finish reason")
            if not self.wire.finished:
                raise CallFault(ErrorKind.INCOMPLETE, "the stream ended")
        except CallFault as fault:
            raise self._failed(fault) from None
        except EventTooLong:
            size = f"an event over {MAX_EVENT_BYTES >> 20} MiB"
            raise self._failed(CallFault(ErrorKind.RESPONSE_TOO_LARGE, size)) from None
        except httpx.TransportError:
            broke = CallFault(ErrorKind.INCOMPLETE, "the connection broke")
            raise self._failed(broke) from None
        forwards = await self._after_finish(reading)
        if self.wire.filtered:  # its usage is known by now
            raise self._failed(CallFault(ErrorKind.CONTENT_FILTER))
        for late in forwards:
            yield late
        yield self.wire.last()

    async def _after_finish(self, reading: AsyncGenerator[SseEvent, None]) -> list[bytes]:
        """Read on for the usage and the end of the body, for a while; the answer is whole already,
        so nothing that happens now can spoil it."""
        self.watchdog.finished()
        forwards: list[bytes] = []
        closed = False
        now = asyncio.get_running_loop().time()
        until = min(now + AFTER_FINISH_S, self._sink.deadline() - BEFORE_DEADLINE_S)
        with suppress(TimeoutError, httpx.TransportError, EventTooLong):
            async with asyncio.timeout_at(until) as patience:
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
        if self._whole:
            for event in await self._read_whole(response):
                yield event
            return
        reader = SseReader(MAX_EVENT_BYTES)
        async for piece in _raw(response):
            for event in reader.feed(piece):
                yield event

    async def _read_whole(self, response: httpx.Response) -> list[SseEvent]:
        """An answer in one piece, as events. Raises CallFault for a body that is none."""
        body = bytearray()
        async for piece in _raw(response):
            body += piece
            if len(body) > MAX_EVENT_BYTES:
                raise EventTooLong
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise CallFault(ErrorKind.BAD_UPSTREAM_RESPONSE, "a body that is no JSON object")
        if (error := error_object(answer)) is not None:
            raise CallFault(event_kind(error), "an error instead of an answer")
        return [SseEvent(b"", json.dumps(event).encode()) for event in self.wire.events_of(answer)]


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
