"""Complete answers, kept in memory and, where Redis is configured, shared through it.

The counterpart of ``go/fanout-service/cache``. Memory is bounded in bytes and forgets what was used
least recently. A workspace and a digest name an answer, and are never joined into one string here,
so that no workspace reaches another's answer by choosing its digest. Nothing the cache does can
fail a call: an error is a miss.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from orchestration.fanout.cache_store import CacheStore
from orchestration.fanout.cache_value import CachedAnswer

# What an entry costs besides its texts: the object, its names and its place in the order.
_OVERHEAD_BYTES = 1024


@dataclass(frozen=True, slots=True)
class _Kept:
    answer: CachedAnswer
    expires_s: float
    size: int


class AnswerCache:
    """``ttl_s`` counts from when an answer was stored. ``clock`` is Unix time in seconds. Used
    within one event loop."""

    def __init__(
        self,
        *,
        max_bytes: int,
        ttl_s: float,
        store: CacheStore | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._max_bytes, self._ttl_s = max_bytes, ttl_s
        self._store = store
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._purges: Counter[str] = Counter()  # by workspace
        self.bytes = 0

    @property
    def entries(self) -> int:
        return len(self._kept)

    async def get(self, workspace: str, digest: str) -> tuple[CachedAnswer, int] | None:
        """The answer and its age in milliseconds, which is never negative."""
        now = self._clock()
        kept = self._kept.get((workspace, digest))
        if kept is not None and kept.expires_s > now:
            self._kept.move_to_end((workspace, digest))
            return kept.answer, _age_ms(kept.answer, now)
        self._drop((workspace, digest))
        since = self.mark(workspace)
        found = None if self._store is None else await self._store.get(workspace, digest)
        if found is None:
            return None
        answer, left_s = found
        now = self._clock()
        # Both clocks must agree that the answer is fresh: Redis tells what is left whatever the
        # time to live of who stored it, and ours may be shorter.
        left_s = min(left_s, self._ttl_s - _age_ms(answer, now) / 1000)
        if left_s <= 0:
            return None
        if since == self.mark(workspace):
            self._keep((workspace, digest), answer, now + left_s)
        return answer, _age_ms(answer, now)

    def mark(self, workspace: str) -> int:
        """The moment at which the work on an answer begins, for its ``put``."""
        return self._purges.get(workspace, 0)

    def put(
        self, workspace: str, digest: str, answer: CachedAnswer, since: int | None = None
    ) -> None:
        """Keep an answer, unless its workspace was purged since that mark. Redis is written behind,
        and nobody waits for it."""
        now = self._clock()
        left_s = self._ttl_s - _age_ms(answer, now) / 1000
        if left_s <= 0 or since not in (None, self.mark(workspace)):
            return
        self._keep((workspace, digest), answer, now + left_s)
        if self._store is not None:
            self._store.put(workspace, digest, answer, left_s)

    async def purge(self, workspace: str) -> None:
        """Forget the answers of a workspace in memory, and keep none that are on their way. What is
        being written to Redis is there when this returns."""
        self._purges[workspace] += 1
        for key in [key for key in self._kept if key[0] == workspace]:
            self._drop(key)
        if self._store is not None:
            await self._store.settled()

    async def aclose(self) -> None:
        if self._store is not None:
            await self._store.aclose()

    def _keep(self, key: tuple[str, str], answer: CachedAnswer, expires_s: float) -> None:
        self._drop(key)
        size = _OVERHEAD_BYTES + len(answer.text.encode()) + len((answer.thoughts or "").encode())
        if size > self._max_bytes:
            return
        self._kept[key] = _Kept(answer, expires_s, size)
        self.bytes += size
        while self.bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: tuple[str, str]) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.bytes -= kept.size


def _age_ms(answer: CachedAnswer, now_s: float) -> int:
    """0 for an answer that someone whose clock is ahead stored in what is our future."""
    return max(0, int(now_s * 1000) - answer.stored_at_ms)
