"""The in-process backend: which connections it keeps, and when it imports what is slow."""

import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import MappingProxyType

import pytest

from orchestration.domain.routing import Provider
from orchestration.fanout.inprocess import InProcessClient
from orchestration.fanout.providers import Endpoint
from tests.fanout.asking import call, events_of, fanout, text_of

ANSWER = (
    b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)


class Upstream(ThreadingHTTPServer):
    """Answers with one word and keeps connections; ``connections`` are those that were used."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.connections: set[object] = set()


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.connections.add(self.client_address)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(("closes", "connections"), [(False, 1), (True, 3)])
async def test_a_connection_is_kept_unless_the_endpoint_closes_them_itself(
    upstream: Upstream, closes: bool, connections: int
) -> None:
    quirks = MappingProxyType({"close_connections": closes})
    lab = Provider("lab", "lab", "openai", quirks=quirks)
    address = f"http://127.0.0.1:{upstream.server_port}/v1"
    client = InProcessClient({"lab": Endpoint(lab, address)})
    for number in range(3):
        events = await events_of(client, fanout(call(provider="lab"), id=f"f-{number}"))
        assert text_of(events) == "Hi"
    await client.aclose()
    assert len(upstream.connections) == connections


def test_litellm_is_imported_when_the_client_is_made_ready_and_not_before() -> None:
    program = """
import asyncio, sys
from orchestration.fanout.inprocess import InProcessClient
async def main():
    client = InProcessClient({})
    assert "litellm" not in sys.modules
    await client.ready()
    assert "litellm" in sys.modules
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
