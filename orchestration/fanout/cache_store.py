"""Answers in Redis, shared with other processes and with the Go service.

Redis may hang or be gone at any time: reading is bounded, writing is done behind the calls, and
after a failure Redis is left alone for a while.
"""

import asyncio
import logging
import math
import re
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from orchestration.fanout.cache_value import (
    CachedAnswer,
    ForeignValue,
    decode_answer,
    encode_answer,
)

log = logging.getLogger("rex.cache")

PREFIX: Final = "rex:"
READ_TIMEOUT_S: Final = 0.1  # a call waits for Redis no longer before it is made without
WRITE_TIMEOUT_S: Final = 1.0  # nobody waits for a write
REST_S: Final = 5.0  # how long Redis is left alone after a failure
MAX_VALUE_BYTES: Final = 1 << 20  # to read more would take much of READ_TIMEOUT_S
MAX_WRITING: Final = 64  # answers on their way to Redis at once; more are not stored

_WORKSPACE = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_FAILURES = (RedisError, OSError, TimeoutError)


class StoreFailed(Exception):
    """Redis did not do what it was asked to."""


class CacheStore:
    """Reads and writes the Redis at ``url``. Used within one event loop."""

    def __init__(self, url: str) -> None:
        self._redis: Any = Redis.from_url(
            url,
            socket_connect_timeout=READ_TIMEOUT_S * 2,
            socket_timeout=WRITE_TIMEOUT_S,
            # A retry beneath would use up the time of a call that could be made meanwhile.
            retry=None,
        )
        self._rest_until = -math.inf
        self._writing: set[asyncio.Task[None]] = set()

    async def get(self, workspace: str, digest: str) -> tuple[CachedAnswer, float] | None:
        """The answer and for how many seconds it may still be served, by Redis' clock."""
        name = _name(workspace, digest)
        if name is None or self._rests():
            return None
        try:
            async with asyncio.timeout(READ_TIMEOUT_S), self._redis.pipeline(False) as pipe:
                value, left_ms = await pipe.get(name).pttl(name).execute()
        except ResponseError:
            return None  # a value of another type: none of ours
        except _FAILURES as error:
            self._failed("read", error)
            return None
        if value is None or left_ms == -2:
            return None
        try:
            return decode_answer(value), math.inf if left_ms == -1 else left_ms / 1000
        except ForeignValue:
            return None

    def put(self, workspace: str, digest: str, answer: CachedAnswer, left_s: float) -> None:
        """Write an answer behind the call; not one that is too large, nor while Redis rests."""
        name, value = _name(workspace, digest), encode_answer(answer)
        if name is None or len(value) > MAX_VALUE_BYTES or len(self._writing) >= MAX_WRITING:
            return
        if left_s >= 0.001 and not self._rests():
            task = asyncio.create_task(self._write(name, value, int(left_s * 1000)))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def _write(self, name: str, value: bytes, left_ms: int) -> None:
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._redis.set(name, value, px=left_ms)
        except _FAILURES as error:
            self._failed("write", error)

    async def purge(self, workspace: str, *, within_s: float) -> None:
        """Delete the answers of a workspace. Raises StoreFailed when not all are deleted."""
        if not _WORKSPACE.match(workspace):
            return  # nothing can be stored for it
        pattern = f"{PREFIX}cache:1:{{{workspace}}}:*"
        try:
            async with asyncio.timeout(within_s):
                names: list[bytes] = []
                async for name in self._redis.scan_iter(pattern, count=1000):
                    names.append(name)
                    if len(names) == 1000:
                        await self._redis.unlink(*names)
                        names.clear()
                if names:
                    await self._redis.unlink(*names)
        except _FAILURES as error:
            self._failed("purge", error)
            raise StoreFailed("Redis did not forget all answers; ask again") from None

    async def settled(self) -> None:
        """Return when what is being written now is written, or was given up."""
        await asyncio.gather(*self._writing)

    async def aclose(self) -> None:
        """Finish what is being written, and disconnect."""
        await self.settled()
        await self._redis.aclose()

    def _rests(self) -> bool:
        return asyncio.get_running_loop().time() < self._rest_until

    def _failed(self, operation: str, error: Exception) -> None:
        self._rest_until = asyncio.get_running_loop().time() + REST_S
        # The error's own words are kept out: Redis repeats in some what it was sent.
        log.warning("the cache's store does not answer: %s, %s", operation, type(error).__name__)


def _name(workspace: str, digest: str) -> str | None:
    """The key in Redis; none for what is not of the contract's form. The braces put a workspace's
    answers on one node of a cluster, and end the workspace, which can hold none."""
    if not _WORKSPACE.match(workspace) or not _DIGEST.match(digest):
        return None
    return f"{PREFIX}cache:1:{{{workspace}}}:{digest}"
