"""Refusals that are remembered for a moment in Redis, so that a flood of requests that do not fit
does not queue for the workspace's row.

Nothing is ever let in from here: where nothing is remembered, and where Redis is lost, frozen or
not configured, the database decides. docs/adr/0028-redis-only-refuses.md
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, TypeVar

import structlog
from django.conf import settings
from redis import Redis
from redis.exceptions import RedisError

from workspaces.actions.reserve import QuotaExceeded
from workspaces.domain.quotas import Dimension, Limit, Refusal, Use, longest
from workspaces.models import Workspace

log = structlog.get_logger("rex.refusals")

MOST_MS: Final = 1_000  # how long a refusal is remembered, at most
SKEW_MS: Final = 250  # by how much the clocks of two processes may differ
TIMEOUT_S: Final = 0.25  # how long anybody waits for Redis
REST_S: Final = 1.0  # how long Redis is left alone after a failure

# These a flood runs into, and they refuse all alike. A budget may have room for a smaller request.
_REMEMBERED: Final = (Dimension.REQUESTS_PER_MINUTE, Dimension.CONCURRENT_RUNS)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)

T = TypeVar("T")


@contextmanager
def refusing_early(workspace: Workspace, scopes: Sequence[str]) -> Iterator[None]:
    """Around an admission of work that counts in ``scopes``, outside its transaction.

    Raises QuotaExceeded without entering where such work was refused a moment ago; a QuotaExceeded
    from within is remembered. Takes TIMEOUT_S at most, each time.
    """
    store = _store(settings.REDIS_URL) if settings.REDIS_URL else None
    if store is None:
        yield
        return
    known = store.find(workspace, scopes)
    if known is not None:
        raise QuotaExceeded(known)
    try:
        yield
    except QuotaExceeded as exceeded:
        store.remember(workspace, exceeded.refusal)
        raise


def forget_refusals(workspace: Workspace, scopes: Collection[str]) -> None:
    """Work has ended that counted in ``scopes``: there may be room. Lost, it costs a moment."""
    if settings.REDIS_URL:
        _store(settings.REDIS_URL).forget(workspace, scopes)


class RefusalStore:
    """The refusals in the Redis at ``url``; used from any thread."""

    def __init__(self, url: str) -> None:
        self._redis: Any = Redis.from_url(
            url,
            socket_connect_timeout=TIMEOUT_S,
            socket_timeout=TIMEOUT_S,
            retry=None,  # a retry beneath would take the time in which the database could answer
        )
        # Threads of its own, because a timeout of the socket bounds neither the look-up of a name
        # nor the sum of connecting, signing in and asking.
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="rex-refusals")
        self._rests_until = -math.inf

    def find(self, workspace: Workspace, scopes: Sequence[str]) -> Refusal | None:
        """The refusal that lasts longest of those remembered for any of ``scopes``."""
        names = [(scope, dimension) for scope in scopes for dimension in _REMEMBERED]
        keys = [_key(workspace, *name) for name in names]
        nothing: list[bytes | None] = [None] * len(keys)
        values = self._bounded(lambda: self._redis.mget(keys), nothing)
        now_ms = _now_ms()
        found = [
            refusal
            for name, value in zip(names, values, strict=True)
            if value is not None and (refusal := _decode(*name, value, now_ms))
        ]
        return longest(found) if found else None

    def remember(self, workspace: Workspace, refusal: Refusal) -> None:
        limit = refusal.use.limit
        if limit.dimension in _REMEMBERED:
            key, life_ms = _key(workspace, limit.scope, limit.dimension), _life_ms(refusal.wait)
            value = _encode(refusal, _now_ms())
            self._bounded(lambda: self._redis.set(key, value, px=life_ms), None)

    def forget(self, workspace: Workspace, scopes: Collection[str]) -> None:
        keys = [_key(workspace, scope, dimension) for scope in scopes for dimension in _REMEMBERED]
        self._bounded(lambda: self._redis.delete(*keys), None)

    def _bounded(self, operation: Callable[[], T], otherwise: T) -> T:
        """What ``operation`` returns; ``otherwise`` where Redis fails, is slow or is left alone."""
        if time.monotonic() < self._rests_until:
            return otherwise
        running = self._threads.submit(operation)
        try:
            return running.result(timeout=TIMEOUT_S)
        except (RedisError, OSError, TimeoutError) as error:
            running.cancel()
            self._rests_until = time.monotonic() + REST_S
            # The error's own words are kept out: Redis repeats in some what it was sent.
            log.warning("refusals_not_remembered", error=type(error).__name__)
            return otherwise


@cache
def _store(url: str) -> RefusalStore:
    return RefusalStore(url)


def _key(workspace: Workspace, scope: str, dimension: Dimension) -> str:
    """Names are in it as digests alone. The braces keep a workspace on one node of a cluster."""
    digest = hashlib.sha256(scope.encode()).hexdigest()[:16]
    return f"rex:refused:{{{workspace.pk}}}:{digest}:{dimension.value}"


def _life_ms(wait: timedelta | None) -> int:
    return MOST_MS if wait is None else max(1, min(MOST_MS, wait // _MS))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _encode(refusal: Refusal, now_ms: int) -> str:
    use, limit = refusal.use, refusal.use.limit
    renews_at_ms = (use.renews_at - _EPOCH) // _MS if use.renews_at else None
    wait_ms = refusal.wait // _MS if refusal.wait is not None else None
    numbers = (limit.value, limit.burst, use.used, use.reserved, refusal.asked)
    return json.dumps([now_ms, *numbers, renews_at_ms, wait_ms])


def _decode(scope: str, dimension: Dimension, value: bytes, now_ms: int) -> Refusal | None:
    """The refusal as it is by now; None for one that is over, and for what is none of ours."""
    try:
        written_ms, limit, burst, used, reserved, asked, renews_at_ms, wait_ms = json.loads(value)
        wait = None if wait_ms is None else wait_ms * _MS
        # Not by what Redis still gives it: a Redis that was frozen writes it when it wakes, and one
        # whose clock was set back keeps it for an hour.
        age_ms = now_ms - written_ms
        if not -SKEW_MS <= age_ms <= _life_ms(wait):
            return None
        use = Use(
            limit=Limit(dimension, scope, int(limit), int(burst)),
            used=int(used),
            reserved=int(reserved),
            renews_at=None if renews_at_ms is None else _EPOCH + renews_at_ms * _MS,
        )
        return Refusal(use, int(asked), wait if wait is None else wait - max(0, age_ms) * _MS)
    except (TypeError, ValueError, OverflowError):
        return None
