"""What follows a failed attempt in this process, by the rules of the contract.

The counterpart of ``go/fanout-service/retry``: another attempt at the same target, the next
fallback, or the end. Limits and circuit breakers are the service's alone, and so are hedges: a call
that asks for one is not hedged.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from msgspec import UNSET
from msgspec.structs import replace

from orchestration.domain.errors import ErrorKind
from orchestration.fanout.call_sink import Answer, CallFault, Telling
from orchestration.fanout.wire import CallRequest, Reason, Retry

BASE_S: Final = 0.25
CAP_S: Final = 8.0
BUDGET_RATIO: Final = 0.1
BUDGET_FLOOR: Final = 5
BUDGET_WINDOW_S: Final = 10.0

FINAL: Final = frozenset(
    {
        ErrorKind.STOP_USER,
        ErrorKind.STOP_SUPERSEDED,
        ErrorKind.DEADLINE,
        ErrorKind.TIMEOUT_TOTAL,
        ErrorKind.SLOW_READER,
        ErrorKind.INTERNAL,
    }
)
"""Nothing follows these: the call was stopped, its time is over, or the fault is ours."""


class Budget:
    """Bounds the retries at one provider by its first attempts of the last seconds, so that they
    are not what keeps a provider down. ``now`` is in seconds."""

    def __init__(self) -> None:
        self._firsts: deque[float] = deque()
        self._retries: deque[float] = deque()

    def first(self, now: float) -> None:
        self._forget(now)
        self._firsts.append(now)

    def spend(self, now: float) -> bool:
        """Count a retry, if there is room for it."""
        self._forget(now)
        if len(self._retries) + 1 > len(self._firsts) * BUDGET_RATIO + BUDGET_FLOOR:
            return False
        self._retries.append(now)
        return True

    def _forget(self, now: float) -> None:
        for moments in (self._firsts, self._retries):
            while moments and moments[0] <= now - BUDGET_WINDOW_S:
                moments.popleft()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a call has come when an attempt of it fails. ``tried`` counts the attempts at this
    target, the failed one among them; ``fallbacks`` the targets left after it; ``said``: text was
    given out. Times are in seconds of one clock."""

    retry: Retry
    tried: int
    fallbacks: int
    said: bool
    now: float
    deadline: float


@dataclass(frozen=True, slots=True)
class Next:
    """What follows: ``reason`` of the next attempt, and the wait before it."""

    reason: Reason
    wait_s: float = 0.0


def wait_s(tried: int, retry_after_ms: int | None, chance: float) -> float:
    """The wait after ``tried`` attempts: "full jitter", ``chance`` (0 to 1) of a bound that doubles
    (M. Brooker, "Exponential Backoff And Jitter"), on top of what the provider asked for: else all
    that it sent away come back at once."""
    bound = min(CAP_S, BASE_S * float(2 ** (tried - 1)))
    return (retry_after_ms or 0) / 1000 + chance * bound


def following(
    at: Progress, fault: CallFault, chance: float, spend: Callable[[], bool]
) -> Next | None:
    """What follows ``fault``; None for nothing. ``spend`` asks for a piece of the provider's
    budget, and is called only when all else allows a retry."""
    restart = at.retry.restart is True
    if fault.kind in FINAL or (at.said and not restart):
        return None
    if fault.next_key and not at.said:
        return Next("retry")
    attempts = 1 if at.retry.attempts is UNSET else at.retry.attempts
    wait = wait_s(at.tried, fault.retry_after_ms, chance)
    again = at.tried < attempts and fault.retryable
    if again and at.now + wait < at.deadline and spend():
        return Next("restart" if at.said else "retry", wait)
    return Next("fallback") if at.fallbacks and at.now < at.deadline else None


Attempt = Callable[[CallRequest, Telling], Awaitable[Answer]]
"""Makes one attempt at the call's provider and model: returns its Answer or raises CallFault."""


class Attempts:
    """Answers calls by attempts; holds the budgets of their providers."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._budgets: dict[str, Budget] = {}

    async def answer(
        self, call: CallRequest, telling: Telling, deadline: Callable[[], float]
    ) -> Answer:
        """Make attempts until one answers; raises the CallFault of the last. ``deadline`` gives the
        event loop's time at which the call is over; it may move."""
        clock = asyncio.get_running_loop().time
        retry = Retry() if call.retry is UNSET else call.retry
        fallbacks = [] if call.fallbacks is UNSET else list(call.fallbacks)
        target, number, tried = call, 0, 0
        reason: Reason = "first"
        while True:
            number, tried = number + 1, tried + 1
            telling.started(number, reason, target)
            budget = self._budgets.setdefault(target.provider, Budget())
            if reason in ("first", "fallback"):
                budget.first(clock())
            try:
                return await self._attempt(target, telling)
            except CallFault as fault:
                at = Progress(retry, tried, len(fallbacks), telling.said, clock(), deadline())
                chance = random.random()  # noqa: S311  # nobody gains by guessing a wait
                then = following(at, fault, chance, partial(budget.spend, clock()))
                if then is None:
                    raise
                telling.attempt_failed(fault, then.wait_s)
                tried -= fault.next_key
            await asyncio.sleep(then.wait_s)
            reason = then.reason
            if reason == "fallback":
                fallback = fallbacks.pop(0)
                target = replace(call, provider=fallback.provider, model=fallback.model)
                tried = 0
