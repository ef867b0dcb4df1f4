"""What the in-process backend makes of refusals: what it tells, and which key it uses next."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from orchestration.domain.errors import ErrorKind
from orchestration.domain.routing import Provider
from orchestration.fanout import inprocess
from orchestration.fanout.inprocess import InProcessClient
from orchestration.fanout.providers import Endpoint
from orchestration.fanout.wire import Failed, Timeouts
from tests.fanout.asking import call, events_of, fanout
from tests.fanout.servers import Send, saying, serving

ANSWER = (
    b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
LAB = Provider("lab", "lab", "openai")


async def test_a_refusal_whose_body_stalls_is_told_with_its_status_and_its_wait() -> None:
    async def answer(send: Send) -> None:
        await send(
            b"HTTP/1.1 503 Busy\r\nContent-Type: application/json\r\n"
            b"Retry-After: 7\r\nContent-Length: 99\r\n\r\n{"
        )
        await asyncio.sleep(30)

    async with serving(answer) as server:
        client = InProcessClient({"lab": Endpoint(LAB, f"{server.url}/v1")})
        await client.ready()
        one = replace(call(provider="lab"), timeouts_ms=Timeouts(first_token=300))
        events = await events_of(client, fanout(one))
        await client.aclose()
    last = events[-1]
    assert isinstance(last, Failed)
    assert (last.kind, last.status, last.retry_after_ms) == (ErrorKind.OVERLOADED, 503, 7000)


class Keys:
    """Lets in the keys of ``good``; ``asked`` are those that came."""

    def __init__(self) -> None:
        self.good: set[str] = set()
        self.asked: list[str] = []

    async def answer(self, head: bytes, send: Send) -> None:
        key = head.partition(b"Bearer ")[2].partition(b"\r\n")[0].decode()
        self.asked.append(key)
        status = "200 OK" if key in self.good else "401 No"
        await saying(ANSWER, content_type="text/event-stream", status=status)(send)


class Calls:
    """Calls that a server with ``keys`` lets in or not."""

    def __init__(self, url: str, keys: Keys) -> None:
        self.client = InProcessClient({"lab": Endpoint(LAB, f"{url}/v1", ("one", "two"))})
        self._keys = keys

    async def ended(self) -> str:
        """The keys that were used for one, and how it ended."""
        self._keys.asked.clear()
        last = (await events_of(self.client, fanout(call(provider="lab"))))[-1]
        return f"{' '.join(self._keys.asked)}: {last.kind if isinstance(last, Failed) else 'done'}"


@pytest.fixture
async def keys() -> AsyncIterator[tuple[Keys, Calls]]:
    keys = Keys()

    async def answer(send: Send) -> None:
        await keys.answer(server.requests[-1], send)

    async with serving(answer) as server:
        calls = Calls(server.url, keys)
        await calls.client.ready()
        yield keys, calls
        await calls.client.aclose()


async def test_a_refused_key_is_passed_over_while_another_may_do(
    keys: tuple[Keys, Calls],
) -> None:
    server, calls = keys
    server.good = {"two"}
    assert await calls.ended() == "one two: done"
    assert await calls.ended() == "two: done"
    server.good = set()
    assert await calls.ended() == "two: auth"
    assert await calls.ended() == "one: auth", "all were refused: the first tells whether it holds"
    server.good = {"one"}
    assert await calls.ended() == "one: done"


async def test_a_refused_key_is_used_again_after_a_while(
    keys: tuple[Keys, Calls], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inprocess, "REFUSED_S", 0.5)
    server, calls = keys
    server.good = {"two"}
    assert await calls.ended() == "one two: done"
    await asyncio.sleep(0.6)
    server.good = {"one"}
    assert await calls.ended() == "one: done"
