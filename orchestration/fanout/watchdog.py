"""The phase timers of one attempt: connecting, the first token, stalls, and the whole of it."""

import asyncio
from enum import Enum
from types import TracebackType
from typing import Self

from msgspec import UNSET

from orchestration.domain.errors import ErrorKind
from orchestration.fanout.call_sink import CallFault
from orchestration.fanout.wire import DEFAULT_TIMEOUTS_MS, Timeouts


class _Phase(Enum):
    PREPARING = None  # no timer but the total
    CONNECTING = "connect"
    AWAITING_FIRST = "first_token"
    STREAMING = "stall"
    FINISHED = "finished"  # no timer at all
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

    def finished(self) -> None:
        """The answer is whole: no timer may spoil it, not the total either."""
        self._enter(_Phase.FINISHED)

    def _enter(self, phase: _Phase) -> None:
        if self._phase is _Phase.FINISHED:
            return
        self._phase = phase
        if self._timeout.expired():
            return
        at = None if phase is _Phase.FINISHED else self._total_at
        if at is not None and phase.value:
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
