"""The Go fan-out service as a backend: one POST, one NDJSON stream back."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from urllib.parse import quote

import httpx
from msgspec import UNSET

from orchestration.domain.routing import Provider
from orchestration.fanout.client import (
    ContractViolation,
    FanoutClient,
    FanoutRefused,
    FanoutUnavailable,
)
from orchestration.fanout.wire import (
    End,
    Event,
    Failed,
    FanoutRequest,
    Finished,
    WireError,
    decode_line,
    decode_refusal,
    encode,
)

# The service sends a heartbeat after 10 s of silence; three missing ones mean it is gone.
_SILENCE_S = 30
_CONNECT_S = 3


class GoClient(FanoutClient):
    """Talks to the service at ``base_url``. Used within one event loop."""

    def __init__(self, base_url: str, providers: Mapping[str, Provider]) -> None:
        super().__init__(providers)
        self._http = httpx.AsyncClient(
            base_url=base_url,
            timeout=httpx.Timeout(_SILENCE_S, connect=_CONNECT_S, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            # The service is ours and near: a proxy of the environment has no part in it.
            trust_env=False,
        )

    async def stream(self, request: FanoutRequest) -> AsyncGenerator[Event, None]:
        try:
            body = encode(request)
        except WireError as error:
            raise FanoutRefused(400, str(error), error.field) from None
        reader = StreamReader(call.id for call in request.calls)
        try:
            async with self._http.stream(
                "POST", "/fanout", content=body, headers={"Content-Type": "application/json"}
            ) as response:
                await _raise_for_refusal(response)
                async for line in _lines(response):
                    for event in reader.read(line):
                        yield event
        except httpx.HTTPError as error:
            if not reader.lines:
                raise _unreachable(error) from error
            raise FanoutUnavailable(
                f"the fan-out service broke off: {type(error).__name__}"
            ) from error
        reader.close()

    async def cancel(self, fanout_id: str, call_id: str | None, reason: str) -> None:
        path = f"/fanout/{quote(fanout_id, safe='')}"
        if call_id is not None:
            path += f"/calls/{quote(call_id, safe='')}"
        try:
            response = await self._http.delete(path, params={"reason": reason})
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        # 404: it has ended meanwhile, which is what was wanted.
        if response.status_code not in (204, 404):
            await _raise_for_refusal(response)

    async def ready(self) -> None:
        try:
            response = await self._http.get("/healthz")
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        if response.status_code != 200:
            raise FanoutUnavailable(
                f"the fan-out service is not ready: HTTP {response.status_code}"
            )

    async def aclose(self) -> None:
        await self._http.aclose()


def _unreachable(error: httpx.HTTPError) -> FanoutUnavailable:
    return FanoutUnavailable(f"the fan-out service cannot be reached: {type(error).__name__}")


class StreamReader:
    """Reads the lines of one answer and holds them to the contract, as far as types cannot.

    Lines are numbered without a gap; events are of calls that were asked; every call ends once and
    says nothing afterwards; ``end`` comes last, when all have ended, and counts them right.
    """

    def __init__(self, call_ids: Iterable[str]) -> None:
        self._open = set(call_ids)
        self._asked = len(self._open)
        self._finished = 0
        self._end: End | None = None
        self.lines = 0

    def read(self, line: bytes) -> list[Event]:
        """The events of the next line. Raises ContractViolation."""
        try:
            batch = decode_line(line)
        except WireError as error:
            raise ContractViolation(f"line {self.lines + 1}: {error}") from None
        self.lines += 1
        if self._end is not None:
            raise ContractViolation("a line after the end")
        if batch.n != self.lines:
            raise ContractViolation(f"line {batch.n} came where {self.lines} was due")
        for event in batch.ev:
            self._follow(event)
        if batch.end is not UNSET:
            self._check_end(batch.end)
        return batch.ev

    def close(self) -> None:
        """The stream is over. Raises FanoutUnavailable where it was cut before its end."""
        if self._end is None:
            raise FanoutUnavailable("the fan-out service broke off before the end")

    def _follow(self, event: Event) -> None:
        if event.call not in self._open:
            raise ContractViolation("an event of a call that was not asked or has ended")
        if isinstance(event, Finished | Failed):
            self._open.discard(event.call)
            self._finished += isinstance(event, Finished)

    def _check_end(self, end: End) -> None:
        self._end = end
        failed = self._asked - self._finished
        if self._open or (end.calls, end.finished, end.failed) != (
            self._asked,
            self._finished,
            failed,
        ):
            raise ContractViolation("the end does not count the calls right")


async def _lines(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Whole lines without their end. What is left without a line end was cut and is dropped."""
    rest: list[bytes] = []
    async for piece in response.aiter_raw():
        *whole, last = piece.split(b"\n")
        for line in whole:
            rest.append(line)
            yield b"".join(rest)
            rest.clear()
        if last:
            rest.append(last)


async def _raise_for_refusal(response: httpx.Response) -> None:
    """Do nothing for 200; else raise what the refusal means."""
    if response.status_code == 200:
        if response.headers.get("content-type", "").partition(";")[0] != "application/x-ndjson":
            raise ContractViolation("the answer is not application/x-ndjson")
        return
    try:
        refusal = decode_refusal(await response.aread())
    except WireError:
        # Something else listens there, or a proxy answers for a service that is gone.
        raise FanoutUnavailable(
            f"the fan-out service answered HTTP {response.status_code} without a reason"
        ) from None
    if response.status_code >= 500:
        wait = response.headers.get("retry-after", "")
        raise FanoutUnavailable(refusal.message, float(wait) if wait.isdigit() else None)
    raise FanoutRefused(response.status_code, refusal.message, refusal.field)
