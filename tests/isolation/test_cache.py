"""A kept answer is its workspace's own: the same question elsewhere is asked like any first one."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest
from msgspec.structs import replace
from redis import Redis

from launcher.go_build import SERVICE
from orchestration.fanout.answer_cache import AnswerCache
from orchestration.fanout.cache_store import CacheStore
from orchestration.fanout.client import FanoutRefused, ProviderClient
from orchestration.fanout.go import GoClient
from orchestration.fanout.inprocess import InProcessClient
from orchestration.fanout.providers import providers_of, read_endpoints
from orchestration.fanout.wire import CacheUse, CallRequest, FanoutRequest
from tests.contract.conftest import Upstream, binaries, running, upstream
from tests.contract.test_attempts import story
from tests.contract.test_stopping import only_here
from tests.contract.traces import call, events_of, fanout
from tests.redis_server import RedisServer

__all__ = ["binaries", "upstream"]

pytestmark = pytest.mark.golang

HOME, ELSEWHERE = "6f1d1c5e-0000-4000-8000-000000000001", "6f1d1c5e-0000-4000-8000-000000000002"
CANARY = "canary-of-a-cached-prompt"
_digests = (f"{number:064x}" for number in count(1 << 96))


@pytest.fixture
def service(binaries: Path, upstream: Upstream, redis_server: RedisServer) -> Iterator[str]:
    env = upstream.env | {"REX_FANOUT_LISTEN": "127.0.0.1:0", "REX_REDIS_URL": redis_server.url}
    with running([str(binaries / SERVICE), "--exit-on-stdin-eof"], env, "address") as said:
        yield f"http://{said['address']}"


@pytest.fixture(params=["go", "python"])
async def backend(
    request: pytest.FixtureRequest, service: str, upstream: Upstream, redis_server: RedisServer
) -> AsyncIterator[ProviderClient]:
    reach = read_endpoints(upstream.env)
    live: ProviderClient
    if request.param == "go":
        live = GoClient(service, providers_of(reach))
    else:
        store = CacheStore(redis_server.url)
        live = InProcessClient(reach, AnswerCache(max_bytes=1 << 20, ttl_s=3600, store=store))
        await live.ready()
    yield live
    await live.aclose()


def question(script: str) -> CallRequest:
    one = call(only_here(script), prompt=f"{CANARY}: why is the sky blue?")
    return replace(one, cache=CacheUse(next(_digests), "read_write"))


def of(workspace: str, one: CallRequest) -> FanoutRequest:
    return replace(fanout(one), workspace=workspace)


async def test_what_one_workspace_has_asked_is_asked_anew_for_another(
    backend: ProviderClient, upstream: Upstream
) -> None:
    one = question("ok?delay_ms=2")
    assert story(await events_of(backend, of(HOME, one)))[0] == "1 first"
    # The control: at home the answer is kept.
    assert story(await events_of(backend, of(HOME, one)))[0] == "0 cache"
    assert len(upstream.log(one.model)) == 1
    assert story(await events_of(backend, of(ELSEWHERE, one)))[0] == "1 first"
    assert len(upstream.log(one.model)) == 2
    # And now each has its own.
    assert story(await events_of(backend, of(ELSEWHERE, one)))[0] == "0 cache"
    assert len(upstream.log(one.model)) == 2


async def test_a_question_under_way_is_joined_by_its_own_workspace_alone(
    backend: ProviderClient, upstream: Upstream
) -> None:
    one = question("ok?delay_ms=60")
    first = asyncio.create_task(events_of(backend, of(HOME, one)))
    await asyncio.sleep(0.2)  # so that it comes first
    joined, elsewhere = await asyncio.gather(
        events_of(backend, of(HOME, one)), events_of(backend, of(ELSEWHERE, one))
    )
    assert story(await first)[0] == "1 first"
    assert story(joined)[0] == "0 cache"
    assert story(elsewhere)[0] == "1 first"
    assert len(upstream.log(one.model)) == 2


async def test_redis_names_answers_by_workspace_and_digest_and_by_no_word_of_a_prompt(
    backend: ProviderClient, redis_server: RedisServer
) -> None:
    one = question("ok?delay_ms=2")
    for workspace in (HOME, ELSEWHERE):
        await events_of(backend, of(workspace, one))
    redis = Redis.from_url(redis_server.url)
    for _ in range(100):  # it is written behind the call
        names = [name.decode() for name in await asyncio.to_thread(lambda: list(redis.scan_iter()))]
        kept = [name for name in names if "cache:1:" in name]
        if len(kept) == 2:
            break
        await asyncio.sleep(0.05)
    assert isinstance(one.cache, CacheUse)
    assert sorted(kept) == sorted(
        f"rex:cache:1:{{{workspace}}}:{one.cache.key}" for workspace in (HOME, ELSEWHERE)
    )
    assert CANARY not in str(names)
    # The prompt is in no value either: it is what the digest is of.
    values = [await asyncio.to_thread(redis.dump, name) for name in kept]
    assert not any(CANARY.encode() in (value or b"") for value in values)
    redis.close()


async def test_nothing_is_kept_or_looked_up_for_nobody(
    backend: ProviderClient, upstream: Upstream
) -> None:
    """Without a workspace there is no one whose answer it could be."""
    one = question("ok?delay_ms=2")
    with pytest.raises(FanoutRefused) as refused:
        await events_of(backend, fanout(one))
    assert (refused.value.status, refused.value.field) == (400, "workspace")
    assert upstream.log(one.model) == []
