"""The embedded model as Rex uses it: real weights, real server, loopback only."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from launcher.layout import ROOT
from launcher.ports import free_port
from launcher.weights import DEFAULT_MODEL
from tests.servers.asking import LONG

pytestmark = pytest.mark.localmodel


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, int]]:
    """A client of a running server, and the server's process id."""
    port = free_port(0)
    script = ROOT / "scripts" / "local_model_server.py"
    env = os.environ | {"REX_STATE_DIR": str(tmp_path_factory.mktemp("state"))}
    command = [sys.executable, str(script), "--port", str(port)]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as process:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False
        ) as http:
            _wait_until_healthy(http, process)
            yield http, process.pid
        process.terminate()


def _wait_until_healthy(http: httpx.Client, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "the model server ended"
        try:
            if http.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the model server did not become healthy")


def _body(content: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    return {"model": DEFAULT_MODEL, "messages": messages, "max_tokens": 24, **more}


def _answer(http: httpx.Client, content: str, **more: Any) -> str:
    response = http.post("/v1/chat/completions", json=_body(content, **more))
    assert response.status_code == 200
    text: str = response.json()["choices"][0]["message"]["content"]
    return text


def test_a_stream_ends_with_a_reason_and_its_usage(server: tuple[httpx.Client, int]) -> None:
    http, _ = server
    body = _body("Say hello.", stream=True, stream_options={"include_usage": True})
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        data = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    chunks = [json.loads(each) for each in data[:-1]]
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert reasons[-1] in ("stop", "length")
    assert chunks[-1]["usage"]["completion_tokens"] > 0


def test_a_schema_is_kept_to(server: tuple[httpx.Client, int]) -> None:
    edit = {
        "type": "object",
        "properties": {
            "op": {"enum": ["replace", "noop"]},
            "text": {"type": "string", "maxLength": 40},
        },
        "required": ["op", "text"],
        "additionalProperties": False,
    }
    schema = {"type": "array", "items": edit, "minItems": 1, "maxItems": 2}
    wanted = {"type": "json_schema", "json_schema": {"name": "edits", "schema": schema}}
    answer = json.loads(
        _answer(server[0], "Edit the text.", response_format=wanted, max_tokens=200, temperature=0)
    )
    assert answer
    assert all(set(each) == {"op", "text"} for each in answer)
    assert all(each["op"] in ("replace", "noop") for each in answer)


def test_the_seed_decides_the_answer(server: tuple[httpx.Client, int]) -> None:
    question = "Tell me something about rivers."
    first, again = (_answer(server[0], question, seed=5, temperature=0.9) for _ in range(2))
    others = {_answer(server[0], question, seed=seed, temperature=0.9) for seed in (6, 7, 8)}
    assert first == again
    assert others != {first}


def test_a_reader_who_leaves_ends_the_work(server: tuple[httpx.Client, int]) -> None:
    http, pid = server
    body = _body("Write a very long story.", stream=True, **LONG)
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        next(response.iter_lines())
    # Idle is a whole second without work; the answer would have taken the better part of a minute.
    deadline = time.monotonic() + 20
    while _cpu_ticks_in_a_second(pid) > 5:
        assert time.monotonic() < deadline, "still generating for a reader who has left"


def _cpu_ticks_in_a_second(pid: int) -> int:
    before = _cpu_ticks(pid)
    time.sleep(1)
    return _cpu_ticks(pid) - before


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def test_no_page_of_another_origin_may_read_an_answer(server: tuple[httpx.Client, int]) -> None:
    response = server[0].get("/v1/models", headers={"Origin": "http://elsewhere.example"})
    allowed = response.headers.get("Access-Control-Allow-Origin", "")
    assert allowed not in ("*", "http://elsewhere.example", "null")


def test_it_listens_on_the_loopback_interface_alone(server: tuple[httpx.Client, int]) -> None:
    port = server[0].base_url.port
    listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
    here = [row.split()[1] for row in listening if row.split()[3] == "0A"]
    assert [address for address in here if int(address.split(":")[1], 16) == port] == [
        f"0100007F:{port:04X}"
    ]
