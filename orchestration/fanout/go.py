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
    AttemptFailed,
    Chunk,
    End,
    Event,
    Failed,
    FanoutRequest,
    Finished,
    Queued,
    Started,
    Thought,
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
            response = await self._http.get("/readyz")
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


class _CallReader:
    """Where one call is, as far as its events must follow each other."""

    def __init__(self) -> None:
        self._made = 0  # the highest number of an attempt so far
        self._begun: set[int] = set()
        self._open: set[int] = set()  # attempts, or the replay 0, that have started and not failed

    def follow(self, event: Event) -> None:
        """Raises ContractViolation where ``event`` cannot come next."""
        match event:
            case Started():
                self._start(event)
            case Thought() | Chunk():
                _hold(bool(self._open), "text without an attempt")
            case AttemptFailed():
                _hold(self._is_open(event.attempt), "a failure of an attempt that is not open")
                self._open.discard(event.attempt)
                self._begun.add(event.attempt)
            case Finished():
                _hold(self._is_open(event.attempt), "an answer of an attempt that is not open")
                is_old = event.cached_age_ms is not None
                _hold(is_old is (event.attempt == 0), "an age of what is no replay, or none of one")
            case Queued() | Failed():  # may come at any time
                pass

    def _is_open(self, attempt: int) -> bool:
        """A replay of an answer on its way may go on as an attempt, which has no start here, when
        the call that made it has ended."""
        taken_over = 0 in self._begun and attempt > 0 and attempt not in self._begun
        return attempt in self._open or taken_over

    def _start(self, event: Started) -> None:
        is_replay = event.attempt == 0
        _hold(is_replay is (event.reason == "cache"), "a replay that is none")
        _hold((event.attempt == 1) is (event.reason == "first"), "a first attempt that is none")
        _hold(event.attempt > self._made or (is_replay and not self._made), "attempts out of order")
        self._made = event.attempt
        if event.reason != "hedge":  # that runs beside the attempt which was replayed
            self._open.discard(0)
        self._open.add(event.attempt)
        self._begun.add(event.attempt)


class StreamReader:
    """Reads the lines of one answer and holds them to the contract, as far as types cannot.

    Lines are numbered without a gap; events are of calls that were asked; those of a call follow
    each other as they must; every call ends once and says nothing afterwards; ``end`` comes last,
    when all have ended, and counts them right.
    """

    def __init__(self, call_ids: Iterable[str]) -> None:
        self._open = {call_id: _CallReader() for call_id in call_ids}
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
        _hold(self._end is None, "a line after the end")
        _hold(batch.n == self.lines, f"line {batch.n} came where {self.lines} was due")
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
        call = self._open.get(event.call)
        if call is None:
            raise ContractViolation("an event of a call that was not asked or has ended")
        call.follow(event)
        if isinstance(event, Finished | Failed):
            del self._open[event.call]
            self._finished += isinstance(event, Finished)

    def _check_end(self, end: End) -> None:
        self._end = end
        due = (self._asked, self._finished, self._asked - self._finished)
        counted = (end.calls, end.finished, end.failed)
        _hold(not self._open and counted == due, "the end does not count the calls right")


def _hold(true: bool, violation: str) -> None:
    if not true:
        raise ContractViolation(violation)


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
