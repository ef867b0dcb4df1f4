"""Servers nobody here wrote: llama.cpp with the embedded model, and LiteLLM's proxy before it.

The proxy turns Anthropic's and Google's formats, and OpenAI's, into calls of the llama.cpp server,
so what it says is written by people who read the same documentation as we did, and not by us.
Before our scripted upstream it says the faults of others in its own words. None of it is proof that
the vendors' own endpoints do as it does.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from launcher import litellm_proxy
from launcher.go_build import FAKE_PROVIDER, SERVICE, build
from launcher.layout import Layout
from launcher.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
_START_TIMEOUT_S = 180

# Of the proxy. The second model goes through its Responses route, the first does not; behind the
# third name comes that of a script.
PROXY_KEY, WRONG_KEY = "sk-right-canary-0123456789", "sk-wrong-canary-9876543210"
PROXIED, THROUGH_RESPONSES, SCRIPTED = "small", "small-by-responses", "scripted"


@dataclass(frozen=True, slots=True)
class ModelServer:
    """The llama.cpp server."""

    url: str

    def at_work(self) -> int:
        """How many answers it is generating."""
        return sum(slot["is_processing"] for slot in self._slots())

    def wait_until_at_work(self) -> None:
        self._wait(idle=False)

    def wait_until_it_gave_up(self) -> None:
        """Until it is idle; its newest answer must not have come to an end of its own."""
        self._wait(idle=True)
        newest = max(self._slots(), key=lambda slot: slot.get("id_task", -1))
        assert newest["next_token"][0]["has_next_token"], "the answer was generated to its end"

    def _wait(self, *, idle: bool) -> None:
        """Looks ever more seldom: before its first byte is sent the server asks whether a reader
        has left only after a second in which nothing was answered to anyone, looks included."""
        deadline, pause_s = time.monotonic() + 20, 0.02
        while (self.at_work() == 0) != idle:
            assert time.monotonic() < deadline, "still at work" if idle else "still idle"
            time.sleep(pause_s)
            pause_s *= 2

    def _slots(self) -> list[dict[str, Any]]:
        slots: list[dict[str, Any]] = httpx.get(
            f"{self.url}/slots", timeout=30, trust_env=False
        ).json()
        return slots


@dataclass(frozen=True, slots=True)
class Service:
    """The fan-out service, and what it logs."""

    url: str
    log: Path


@dataclass(frozen=True, slots=True)
class Route:
    """A way to the model: the service's provider, the name it gives the model, and whether the
    server at its end counts the tokens of a stream."""

    url: str
    provider: str
    model: str
    counts_streams: bool = True


@contextmanager
def _running(command: list[str], env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[str]]:
    """A program with an environment of its own; its output goes to ``log``."""
    with log.open("w") as out:
        process = subprocess.Popen(
            command,
            env={"PATH": os.environ["PATH"], "HOME": str(log.parent)} | env,
            cwd=log.parent,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdin
        process.stdin.close()


def _wait(process: subprocess.Popen[str], log: Path, address: str) -> None:
    """Until ``address`` answers 200; an end before that is told with all that was logged."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            if httpx.get(address, timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)


@pytest.fixture(scope="session")
def model_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    folder, port = tmp_path_factory.mktemp("model"), free_port(0)
    script, log = ROOT / "scripts" / "local_model_server.py", folder / "log"
    command = [sys.executable, str(script), "--port", str(port), "--slots"]
    url = f"http://127.0.0.1:{port}"
    with _running(command, {"REX_STATE_DIR": str(folder)}, log) as process:
        _wait(process, log, f"{url}/health")
        yield ModelServer(url)


@pytest.fixture(scope="session")
def binaries() -> Path:
    layout = Layout(ROOT, ROOT / ".rex")
    build(layout, SERVICE, FAKE_PROVIDER)
    return layout.bin


@pytest.fixture(scope="session")
def scripted_url(binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the scripted upstream."""
    log, address = tmp_path_factory.mktemp("scripted") / "log", f"127.0.0.1:{free_port(0)}"
    command = [str(binaries / FAKE_PROVIDER), "--listen", address, "--exit-on-stdin-eof"]
    with _running(command, {}, log) as process:
        _wait(process, log, f"http://{address}/_/log")
        yield f"http://{address}"


@pytest.fixture(scope="session", autouse=True)
def proxy_starting(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], str] | None]:
    """Begins to start the proxy where a test of this run asks it, and waits no longer than the
    first of them: what it imports takes it half a minute on a busy machine."""
    if not any(item.get_closest_marker("litellm") for item in request.session.items):
        yield None
        return
    model_server: ModelServer = request.getfixturevalue("model_server")
    config = _proxy_config(model_server.url, request.getfixturevalue("scripted_url"))
    folder, port = tmp_path_factory.mktemp("proxy"), free_port(0)
    program = os.environ.get("REX_LITELLM_PROXY") or str(
        litellm_proxy.find(Layout(ROOT, ROOT / ".rex"))
    )
    (folder / "config.json").write_text(json.dumps(config))  # JSON is YAML
    command = [program, "--config", "config.json", "--host", "127.0.0.1", "--port", str(port)]
    # It asks the Internet for prices otherwise.
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}
    url, log = f"http://127.0.0.1:{port}", folder / "log"
    with _running(command, env, log) as process:

        def started() -> str:
            _wait(process, log, f"{url}/health/liveliness")
            return url

        yield started


def _proxy_config(model_server_url: str, scripted_url: str) -> dict[str, Any]:
    models = (
        (PROXIED, "hosted_vllm/any", model_server_url),
        (THROUGH_RESPONSES, "openai/any", model_server_url),
        (f"{SCRIPTED}/*", "hosted_vllm/*", scripted_url),
    )
    return {
        "model_list": [
            {
                "model_name": name,
                "litellm_params": {"model": model, "api_base": f"{url}/v1", "api_key": "none"},
            }
            for name, model, url in models
        ],
        "litellm_settings": {"telemetry": False, "num_retries": 0},
        "general_settings": {"master_key": PROXY_KEY},
    }


@pytest.fixture(scope="session")
def proxy(proxy_starting: Callable[[], str]) -> str:
    """The address of LiteLLM's proxy, without a database: it knows one key."""
    return proxy_starting()


@contextmanager
def _service(binaries: Path, folder: Path, env: dict[str, str]) -> Iterator[Service]:
    log, url = folder / "log", f"http://127.0.0.1:{free_port(0)}"
    env = env | {"REX_FANOUT_LISTEN": url.removeprefix("http://")}
    with _running([str(binaries / SERVICE), "--exit-on-stdin-eof"], env, log) as process:
        _wait(process, log, f"{url}/readyz")
        yield Service(url, log)


@pytest.fixture(scope="session")
def beside_llama(
    binaries: Path, model_server: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service that asks the llama.cpp server by both of the formats it speaks."""
    env = {
        "REX_LOCAL_BASE_URL": f"{model_server.url}/v1",
        "ANTHROPIC_BASE_URL": f"{model_server.url}/v1",
        "ANTHROPIC_API_KEY": "llama.cpp-asks-for-none",
    }
    with _service(binaries, tmp_path_factory.mktemp("beside_llama"), env) as service:
        yield service


def _at(proxy: str, key: str) -> dict[str, str]:
    return {
        "ANTHROPIC_BASE_URL": f"{proxy}/v1",
        "ANTHROPIC_API_KEY": key,
        "GOOGLE_BASE_URL": f"{proxy}/v1beta",
        "GEMINI_API_KEY": key,
        "REX_PROVIDER_PROXY_BASE_URL": f"{proxy}/v1",
        "REX_PROVIDER_PROXY_API_KEY": key,
    }


@pytest.fixture(scope="session")
def beside_proxy(
    binaries: Path, proxy: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service that asks LiteLLM's proxy by three formats."""
    with _service(binaries, tmp_path_factory.mktemp("beside_proxy"), _at(proxy, PROXY_KEY)) as it:
        yield it


@pytest.fixture(scope="session")
def locked_out(
    binaries: Path, proxy: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The same with a key that the proxy does not know."""
    with _service(binaries, tmp_path_factory.mktemp("locked_out"), _at(proxy, WRONG_KEY)) as it:
        yield it


@pytest.fixture(scope="session")
def beside_faults(
    binaries: Path, proxy: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The same with the right key, for calls that fail: what a service learns of a provider by
    them holds back its other calls."""
    with _service(binaries, tmp_path_factory.mktemp("beside_faults"), _at(proxy, PROXY_KEY)) as it:
        yield it
