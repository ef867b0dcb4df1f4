"""What operators see and do, with either backend on real sockets."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from msgspec.structs import replace

from launcher.go_build import SERVICE
from orchestration.fanout import operations, select
from orchestration.fanout.answer_cache import AnswerCache
from orchestration.fanout.cache_store import CacheStore
from orchestration.fanout.client import FanoutUnavailable, ProviderClient
from orchestration.fanout.go import GoClient
from orchestration.fanout.inprocess import InProcessClient
from orchestration.fanout.providers import providers_of, read_endpoints
from orchestration.fanout.recorded import RecordedClient
from orchestration.fanout.target_state import TargetState
from orchestration.fanout.wire import CacheUse, CallRequest, Finished
from tests.contract.conftest import SECRET, Upstream, running
from tests.contract.test_attempts import asked
from tests.contract.test_stopping import only_here, until
from tests.contract.traces import call, events_of, fanout
from tests.redis_server import RedisServer

pytestmark = pytest.mark.golang

_digests = (f"{number:064x}" for number in count(1 << 72))


@pytest.fixture
def service(binaries: Path, upstream: Upstream, redis_server: RedisServer) -> Iterator[str]:
    env = upstream.env | {"REX_FANOUT_LISTEN": "127.0.0.1:0", "REX_REDIS_URL": redis_server.url}
    with running([str(binaries / SERVICE), "--exit-on-stdin-eof"], env, "address") as said:
        yield f"http://{said['address']}"


@pytest.fixture(params=["go", "python"])
async def backend(
    request: pytest.FixtureRequest,
    settings: Any,
    service: str,
    upstream: Upstream,
    redis_server: RedisServer,
) -> AsyncIterator[ProviderClient]:
    """Each backend in turn, as the settings name it, with a Redis behind its cache."""
    settings.FANOUT_BACKEND, settings.FANOUT_URL = request.param, service
    settings.REDIS_URL = redis_server.url
    reach = read_endpoints(upstream.env)
    live: ProviderClient
    if request.param == "go":
        live = GoClient(service, providers_of(reach))
    else:
        store = CacheStore(redis_server.url)
        live = InProcessClient(reach, AnswerCache(max_bytes=1 << 20, ttl_s=3600, store=store))
        await live.ready()
    select._clients[asyncio.get_running_loop()] = RecordedClient(live, None, providers_of(reach))
    yield live
    await select.close_client()


async def target_of(one: CallRequest) -> TargetState | None:
    """How the target of ``one`` stands, with its only key or without any."""
    told = await asyncio.to_thread(operations.targets)
    assert SECRET.encode() not in msgspec.json.encode(told)
    found = [each for each in told.targets if each.provider == one.provider]
    return found[0] if found else None


async def test_a_target_is_told_while_it_is_asked_and_afterwards(
    backend: ProviderClient, upstream: Upstream
) -> None:
    one = call(only_here("no-headers"))
    assert await target_of(one) is None
    request = fanout(one)
    asking = asyncio.create_task(events_of(backend, request))
    await until(lambda: bool(upstream.log(one.model)), "the call is upstream")
    during = await target_of(one)
    assert during
    assert (during.model, during.key, during.in_flight) == (one.model, "none", 1)
    assert (during.breaker, during.refused, during.resumes_ms) == ("closed", False, None)
    assert during.asked_ms is not None
    await backend.cancel(request.id, None, "stop.user")
    await asking
    after = await target_of(one)
    assert after
    assert after.in_flight == 0
    assert after.asked_ms is not None
    assert after.asked_ms >= during.asked_ms


async def test_a_refused_key_is_told_by_its_place(backend: ProviderClient) -> None:
    one = call("http-401", provider="keyed")
    await events_of(backend, fanout(one))
    stands = await target_of(one)
    assert stands
    assert (stands.key, stands.refused) == ("1", True)
    assert stands.resumes_ms is not None
    assert stands.resumes_ms > 10_000


async def cached(backend: ProviderClient, one: CallRequest, workspace: UUID) -> bool:
    """Whether asking again found an answer."""
    events = await events_of(backend, replace(fanout(one), workspace=str(workspace)))
    end = events[-1]
    assert isinstance(end, Finished)
    return end.cached_age_ms is not None


async def entries() -> int:
    told = await asyncio.to_thread(operations.targets)
    assert told.cache
    return told.cache.entries


async def test_a_purge_forgets_the_answers_of_one_workspace_everywhere(
    backend: ProviderClient, redis_server: RedisServer
) -> None:
    ours, theirs = uuid4(), uuid4()
    one = asked("ok?delay_ms=0", cache=CacheUse(next(_digests), "read_write"))
    for workspace in (ours, theirs):
        assert not await cached(backend, one, workspace)
        assert await cached(backend, one, workspace)
    assert await entries() == 2
    store = CacheStore(redis_server.url)
    digest = one.cache.key if isinstance(one.cache, CacheUse) else ""
    for _ in range(100):  # it is written behind the call
        if await store.get(str(theirs), digest):
            break
        await asyncio.sleep(0.02)
    for _ in range(2):  # again, and there is nothing any more
        await asyncio.to_thread(operations.purge, ours)
    assert await entries() == 1
    assert await store.get(str(ours), digest) is None
    assert await store.get(str(theirs), digest) is not None
    await store.aclose()
    assert not await cached(backend, one, ours)
    assert await cached(backend, one, theirs)


async def test_an_answer_on_its_way_is_neither_kept_nor_shared_after_a_purge(
    backend: ProviderClient, upstream: Upstream
) -> None:
    workspace = uuid4()
    one = asked("ok?delay_ms=60", cache=CacheUse(next(_digests), "read_write"))
    request = replace(fanout(one), workspace=str(workspace))
    before = asyncio.create_task(events_of(backend, request))
    await until(lambda: len(upstream.log(one.model)) == 1, "the call is upstream")
    await asyncio.to_thread(operations.purge, workspace)
    read_only = replace(one, cache=replace(one.cache, mode="read"))  # type: ignore[type-var]
    assert not await cached(backend, read_only, workspace)
    assert isinstance((await before)[-1], Finished), "who waited for it gets it"
    assert await entries() == 0
    assert not await cached(backend, read_only, workspace)
    assert len(upstream.log(one.model)) == 3


@pytest.mark.parametrize("fault", [RedisServer.kill, RedisServer.pause])
async def test_a_purge_that_redis_did_not_take_is_no_success(
    fault: Callable[[RedisServer], None], backend: ProviderClient, redis_server: RedisServer
) -> None:
    workspace = uuid4()
    one = asked("ok?delay_ms=0", cache=CacheUse(next(_digests), "read_write"))
    assert not await cached(backend, one, workspace)
    fault(redis_server)
    with pytest.raises(FanoutUnavailable, match="ask again"):
        await asyncio.to_thread(operations.purge, workspace)
    assert await entries() == 0, "what is in memory is forgotten all the same"
