"""Answers in memory and in Redis: bounded, isolated, and never a reason for a call to fail."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from orchestration.fanout.answer_cache import AnswerCache
from orchestration.fanout.cache_store import CacheStore
from orchestration.fanout.cache_value import (
    CachedAnswer,
    ForeignValue,
    decode_answer,
    encode_answer,
)
from orchestration.fanout.wire import Usage
from tests.redis_server import RedisServer

A, B = "a" * 64, "b" * 64
HOUR_S = 3600.0


class Clock:
    """Unix time that a test sets."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def answer(text: str = "Grüße 😀", *, at: float = 1_700_000_000.0) -> CachedAnswer:
    usage = Usage(3, 4, 1, 2, estimated=False)
    return CachedAnswer(1, text, None, "stop", usage, "local", "m", int(at * 1000))


def memory(clock: Clock, *, max_bytes: int = 1 << 20) -> AnswerCache:
    return AnswerCache(max_bytes=max_bytes, ttl_s=HOUR_S, clock=clock)


async def test_an_answer_is_found_with_its_age_until_its_time_is_over() -> None:
    clock = Clock()
    cache = memory(clock)
    cache.put("ws", A, answer())
    clock.now += HOUR_S - 1
    assert await cache.get("ws", A) == (answer(), 3_599_000)
    clock.now += 1
    assert await cache.get("ws", A) is None
    assert cache.bytes == 0


async def test_an_answer_of_one_workspace_is_not_there_for_another() -> None:
    cache = memory(Clock())
    cache.put("ws", A, answer())
    assert await cache.get("ws2", A) is None
    assert await cache.get("ws", B) is None


async def test_memory_forgets_what_was_not_used_for_longest() -> None:
    cache = memory(Clock(), max_bytes=5000)
    for digest in (A, B):
        cache.put("ws", digest, answer("x" * 1000))
    assert await cache.get("ws", A)
    cache.put("ws", "c" * 64, answer("x" * 1000))
    assert await cache.get("ws", B) is None
    assert await cache.get("ws", A)
    assert cache.bytes <= 5000
    cache.put("ws", "d" * 64, answer("x" * 6000))
    assert await cache.get("ws", "d" * 64) is None, "larger than all of memory"
    assert await cache.get("ws", A)


async def test_a_clock_that_is_behind_makes_no_negative_age() -> None:
    cache = memory(Clock())
    cache.put("ws", A, answer(at=1_700_000_009))
    found = await cache.get("ws", A)
    assert found
    assert found[1] == 0


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        encode_answer(answer()).replace(b'"v":1', b'"v":2'),
        encode_answer(answer())[:-1] + b',"more":1}',
        encode_answer(answer()) + b"{}",
        encode_answer(answer()).replace(b'"stop"', b'"other"'),
    ],
)
def test_a_value_that_is_none_of_ours_is_refused(value: bytes) -> None:
    with pytest.raises(ForeignValue):
        decode_answer(value)


def test_a_value_is_read_as_it_was_written_and_odd_text_is_repaired() -> None:
    assert decode_answer(encode_answer(answer())) == answer()
    odd = encode_answer(answer("a")).replace(b'"a"', rb'"a\u0000"')
    assert decode_answer(odd).text == "a�"


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[CacheStore]:
    made = CacheStore(redis_url)
    yield made
    await made.aclose()


async def stored(store: CacheStore, workspace: str = "ws", digest: str = A) -> CachedAnswer | None:
    """What Redis has, once it has been written."""
    for _ in range(100):
        if found := await store.get(workspace, digest):
            return found[0]
        await asyncio.sleep(0.01)
    return None


async def test_processes_share_answers_through_redis(store: CacheStore, redis_url: str) -> None:
    clock = Clock()
    writing = AnswerCache(max_bytes=0, ttl_s=HOUR_S, store=store, clock=clock)
    writing.put("ws", A, answer())
    assert await stored(store) == answer()
    other = CacheStore(redis_url)
    reading = AnswerCache(max_bytes=1 << 20, ttl_s=HOUR_S, store=other, clock=clock)
    assert await reading.get("ws", A) == (answer(), 0)
    assert await reading.get("ws2", A) is None
    await other.aclose()
    # Once read, it is in memory too.
    assert await reading.get("ws", A) == (answer(), 0)


async def test_redis_forgets_an_answer_when_its_time_is_over(store: CacheStore) -> None:
    store.put("ws", A, answer(), 0.2)
    found = await stored(store)
    assert found == answer()
    await asyncio.sleep(0.3)
    assert await store.get("ws", A) is None


@pytest.mark.parametrize("workspace", ["", "a}b", "x" * 129, "a b"])
async def test_names_of_another_form_are_not_asked_for(store: CacheStore, workspace: str) -> None:
    store.put(workspace, A, answer(), 60)
    assert await store.get(workspace, A) is None


@pytest.mark.parametrize("how", ["frozen", "gone"])
async def test_redis_that_does_not_answer_is_a_miss_and_is_left_alone(
    redis_server: RedisServer, how: str
) -> None:
    store = CacheStore(redis_server.url)
    store.put("ws", A, answer(), 60)
    assert await stored(store)
    redis_server.pause() if how == "frozen" else redis_server.kill()
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await store.get("ws", A) is None
    assert await store.get("ws", A) is None
    assert loop.time() - began < 5, "nobody waits for Redis"
    store.put("ws", B, answer(), 60)
    if how == "frozen":
        redis_server.resume()
    await store.aclose()
