"""Both backends keep answers in one form: what one wrote into Redis, the other replays."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from launcher.go_build import SERVICE
from orchestration.fanout.answer_cache import AnswerCache
from orchestration.fanout.cache_store import CacheStore
from orchestration.fanout.client import ProviderClient
from orchestration.fanout.go import GoClient
from orchestration.fanout.inprocess import InProcessClient
from orchestration.fanout.providers import providers_of, read_endpoints
from orchestration.fanout.wire import CacheUse, Chunk, Event, Finished, Thought
from tests.contract.conftest import Upstream, running
from tests.contract.test_attempts import story
from tests.contract.traces import call, events_of, fanout
from tests.redis_server import RedisServer

pytestmark = pytest.mark.golang


@pytest.fixture
def service(binaries: Path, upstream: Upstream, redis_server: RedisServer) -> Iterator[str]:
    env = upstream.env | {
        "REX_FANOUT_LISTEN": "127.0.0.1:0",
        "REX_REDIS_URL": redis_server.url,
    }
    command = [str(binaries / SERVICE), "--exit-on-stdin-eof"]
    with running(command, env, "address") as said:
        yield f"http://{said['address']}"


@pytest.fixture
async def pair(
    service: str, upstream: Upstream, redis_server: RedisServer
) -> AsyncIterator[dict[str, ProviderClient]]:
    reach = read_endpoints(upstream.env)
    # Nothing in memory: what is found was read from Redis.
    cache = AnswerCache(max_bytes=0, ttl_s=3600, store=CacheStore(redis_server.url))
    clients: dict[str, ProviderClient] = {
        "go": GoClient(service, providers_of(reach)),
        "python": InProcessClient(reach, cache),
    }
    await clients["python"].ready()
    yield clients
    for client in clients.values():
        await client.aclose()


@pytest.mark.parametrize(("writer", "reader"), [("go", "python"), ("python", "go")])
async def test_an_answer_of_one_backend_is_replayed_by_the_other(
    writer: str, reader: str, pair: dict[str, ProviderClient]
) -> None:
    one = call("reasoning?cached=2&text=odd")
    one = replace(one, thoughts=True, cache=CacheUse("7f" * 32, "read_write"))
    request = replace(fanout(one), workspace="ws:1")
    fresh = await events_of(pair[writer], request)
    assert story(fresh)[0] == "1 first"
    for number in range(50):  # Redis is written behind the call
        again = await events_of(
            pair[reader],
            replace(request, id=f"{request.id}-{number}", calls=(replace(one, cache=READS),)),
        )
        if story(again)[0] == "0 cache":
            break
        await asyncio.sleep(0.05)
    assert story(again) == ["0 cache", "thought", "chunk", "finished"]
    assert said(again, Chunk) == said(fresh, Chunk)
    assert said(again, Thought) == said(fresh, Thought)
    first, last = fresh[-1], again[-1]
    assert isinstance(first, Finished)
    assert isinstance(last, Finished)
    assert (last.usage, last.model, last.provider) == (first.usage, first.model, first.provider)
    assert last.cached_age_ms is not None


READS = CacheUse("7f" * 32, "read")


def said(events: list[Event], kind: type[Chunk | Thought]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))
