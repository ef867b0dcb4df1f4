"""Both backends in front of one scripted upstream: the real binaries, real sockets on loopback."""

import json
import os
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from launcher.go_build import FAKE_PROVIDER, SERVICE, build
from launcher.layout import Layout
from orchestration.fanout.answer_cache import AnswerCache
from orchestration.fanout.client import ProviderClient
from orchestration.fanout.go import GoClient
from orchestration.fanout.inprocess import InProcessClient
from orchestration.fanout.providers import providers_of, read_endpoints

ROOT = Path(__file__).resolve().parents[2]
SECRET = "sk-canary-0123456789"
# The service remembers what a provider did to it: it leaves one alone that refused its key, asked
# to wait or failed often. So that tests do not meet each other, a call takes a provider of its own.
LABS = [f"lab{number}" for number in range(400)]


@dataclass(frozen=True, slots=True)
class Upstream:
    """The scripted provider of go/fanout-service/cmd/fakeprovider."""

    url: str

    @property
    def env(self) -> dict[str, str]:
        """What makes both backends reach it: without a key, with one, with one that is refused,
        and where nobody listens."""
        labs = {f"REX_PROVIDER_{name.upper()}_BASE_URL": f"{self.url}/v1" for name in LABS}
        return labs | {
            "REX_LOCAL_BASE_URL": f"{self.url}/v1",
            "REX_PROVIDER_KEYED_BASE_URL": f"{self.url}/v1",
            "REX_PROVIDER_KEYED_API_KEY": SECRET,
            "REX_PROVIDER_REFUSED_BASE_URL": f"{self.url}/v1",
            "REX_PROVIDER_REFUSED_API_KEY": SECRET,
            "REX_PROVIDER_SPEAKS_ANTHROPIC_BASE_URL": f"{self.url}/v1",
            "REX_PROVIDER_SPEAKS_ANTHROPIC_API_KEY": SECRET,
            "REX_PROVIDER_SPEAKS_ANTHROPIC_WIRE": "anthropic",
            "REX_PROVIDER_SPEAKS_GEMINI_BASE_URL": f"{self.url}/v1beta",
            "REX_PROVIDER_SPEAKS_GEMINI_API_KEY": SECRET,
            "REX_PROVIDER_SPEAKS_GEMINI_WIRE": "gemini",
            "REX_PROVIDER_PAIR_GO_BASE_URL": f"{self.url}/v1",
            "REX_PROVIDER_PAIR_GO_API_KEY": f"{SECRET}-one, {SECRET}-two",
            "REX_PROVIDER_PAIR_PYTHON_BASE_URL": f"{self.url}/v1",
            "REX_PROVIDER_PAIR_PYTHON_API_KEY": f"{SECRET}-one, {SECRET}-two",
            "REX_PROVIDER_CLOSED_BASE_URL": "http://127.0.0.1:9/v1",
        }

    def log(self, model: str) -> list[dict[str, Any]]:
        """The requests for ``model`` so far, oldest first."""
        with urllib.request.urlopen(f"{self.url}/_/log", timeout=5) as response:
            rows: list[dict[str, Any]] = json.load(response)
        return [row for row in rows if row["model"] == model]


@contextmanager
def running(command: list[str], env: dict[str, str], first_word: str) -> Iterator[dict[str, Any]]:
    """A program that says where it listens in a JSON line; ends with the test session."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"]} | env,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        said: dict[str, Any] = {}
        while first_word not in said:
            line = process.stdout.readline()
            assert line, f"{command[0]} ended before it listened"
            said = json.loads(line)
        yield said
    finally:
        process.stdin.close()  # which ends it
        process.wait(timeout=20)
        process.stdout.close()


@pytest.fixture(scope="session")
def binaries() -> Path:
    layout = Layout(ROOT, ROOT / ".rex")
    build(layout, SERVICE, FAKE_PROVIDER)
    return Path(layout.bin)


@pytest.fixture(scope="session")
def upstream(binaries: Path) -> Iterator[Upstream]:
    command = [str(binaries / FAKE_PROVIDER), "--listen", "127.0.0.1:0", "--exit-on-stdin-eof"]
    with running(command, {}, "listening") as said:
        yield Upstream(f"http://{said['listening']}")


@pytest.fixture(scope="session")
def service_url(binaries: Path, upstream: Upstream) -> Iterator[str]:
    command = [str(binaries / SERVICE), "--exit-on-stdin-eof"]
    env = upstream.env | {"REX_FANOUT_LISTEN": "127.0.0.1:0"}
    with running(command, env, "address") as said:
        yield f"http://{said['address']}"


@pytest.fixture
async def go(service_url: str, upstream: Upstream) -> AsyncIterator[ProviderClient]:
    client = GoClient(service_url, providers_of(read_endpoints(upstream.env)))
    yield client
    await client.aclose()


@pytest.fixture
async def python(upstream: Upstream) -> AsyncIterator[ProviderClient]:
    cache = AnswerCache(max_bytes=1 << 20, ttl_s=3600)
    client = InProcessClient(read_endpoints(upstream.env), cache)
    await client.ready()  # LiteLLM's import takes seconds that belong to no call
    yield client
    await client.aclose()


@pytest.fixture(params=["go", "python"])
def client(request: pytest.FixtureRequest) -> ProviderClient:
    """Each backend in turn, for tests that look at one at a time."""
    found: ProviderClient = request.getfixturevalue(request.param)
    return found
