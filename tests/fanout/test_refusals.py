"""What the in-process backend makes of refusals."""

import asyncio

from msgspec.structs import replace

from orchestration.domain.errors import ErrorKind
from orchestration.domain.routing import Provider
from orchestration.fanout.inprocess import InProcessClient
from orchestration.fanout.providers import Endpoint
from orchestration.fanout.wire import Failed, Timeouts
from tests.fanout.asking import call, events_of, fanout
from tests.fanout.servers import Send, serving

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
