"""scripts/fanout_smoke_test.py says what it saw of a running service, good or bad."""

import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

import fanout_smoke_test
from tests.contract.conftest import SECRET

pytestmark = pytest.mark.golang


def smoked(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, fanout_smoke_test.__file__, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_answers_are_told_and_the_exit_code_is_zero(service_url: str) -> None:
    done = smoked("--url", service_url, "--model", "keyed/ok", "--model", "keyed/length")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 models answered." in done.stdout
    assert "finished (stop)" in done.stdout
    assert "finished (length)" in done.stdout
    assert " configured: local, closed, keyed, lab0, " in done.stdout


def test_one_object_holds_it_all(service_url: str) -> None:
    done = smoked("--url", service_url, "--model", "keyed/ok?delay_ms=0", "--json")
    report = json.loads(done.stdout)
    assert (report["status"], report["problem"], report["exit_code"]) == ("ok", "", 0)
    (call,) = report["calls"]
    assert call["ok"]
    assert call["chars"] > 20
    assert 0 <= call["first_token_ms"] <= call["ended_ms"]
    assert call["output_tokens"] == 12


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("keyed/cut", "incomplete"),
        ("refused/http-401", "auth"),
        ("closed/ok", "connection"),
        ("nobody/ok", "unknown_model"),
        ("openai/gpt-4o", "provider_not_configured"),
    ],
)
def test_a_model_that_does_not_answer_is_told_beside_those_that_do(
    service_url: str, model: str, kind: str
) -> None:
    done = smoked("--url", service_url, "--model", "keyed/ok?delay_ms=0", "--model", model)
    assert done.returncode == 1
    assert f"FAILED {kind}: " in done.stdout
    assert "1 of 2 models answered." in done.stdout
    assert SECRET not in done.stdout + done.stderr


def test_the_limit_of_tokens_reaches_the_models(service_url: str) -> None:
    done = smoked("--url", service_url, "--model", "keyed/ok", "--max-tokens", "3", "--json")
    (call,) = json.loads(done.stdout)["calls"]
    assert (call["end"], call["output_tokens"]) == ("length", 3)


def test_nobody_there_is_said_so() -> None:
    done = smoked("--url", "http://127.0.0.1:9")
    assert done.returncode == 3
    assert "The service cannot be reached: ConnectError." in done.stdout
    assert not done.stderr


class Stranger(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<h1>hello</h1>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def test_a_stranger_on_the_port_is_not_taken_for_the_service() -> None:
    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        done = smoked("--url", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert done.returncode == 3
    assert "is not the fan-out service" in done.stdout
