"""Real processes: started, watched, and all gone afterwards, however the launcher went."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.failure import Failed
from launcher.layout import Layout
from launcher.ports import free_port, refusal
from launcher.supervise import Service, Stack

# Answers every GET with 200; starts a child of its own, as real servers do.
_SERVER = """
import http.server, subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
class Ok(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
print("about to serve", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Ok).serve_forever()
"""


def _service(name: str, script: str = _SERVER, startup_s: float = 30.0) -> Service:
    port = free_port(0)
    command = (sys.executable, "-c", script, str(port))
    return Service(name, command, dict(os.environ), f"http://127.0.0.1:{port}/", startup_s)


def _group_is_gone(group: int, within_s: float = 15.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_after_the_block_every_process_of_every_group_is_gone(layout: Layout) -> None:
    with Stack(layout) as stack:
        for name in ("one", "two"):
            service = _service(name)
            stack.start(service)
            stack.wait_healthy(service)
        groups = list(stack.pids.values())
        stack.raise_if_ended()
    assert all(_group_is_gone(group) for group in groups)


def test_an_error_inside_the_block_ends_them_too(layout: Layout) -> None:
    with pytest.raises(RuntimeError), Stack(layout) as stack:
        stack.start(_service("one"))
        group = stack.pids["one"]
        raise RuntimeError
    assert _group_is_gone(group)


def test_a_service_that_ends_is_reported_with_the_end_of_its_log(layout: Layout) -> None:
    dying = _service("dying", "import sys; print('the cause'); sys.exit(7)")
    with Stack(layout) as stack:
        stack.start(dying)
        with pytest.raises(Failed) as failed:
            stack.wait_healthy(dying)
    assert "dying ended unexpectedly (exit code 7)" in failed.value.what
    assert "the cause" in failed.value.detail


def test_a_service_that_never_answers_is_reported(layout: Layout) -> None:
    silent = _service("silent", "import time; print('up', flush=True); time.sleep(600)", 1.0)
    with Stack(layout) as stack:
        stack.start(silent)
        with pytest.raises(Failed, match="did not answer"):
            stack.wait_healthy(silent)


def test_a_service_that_ignores_the_request_is_killed(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.supervise.GRACE_S", 0.3)
    deaf = _service("deaf", "import signal\nsignal.signal(15, signal.SIG_IGN)\n" + _SERVER)
    with Stack(layout) as stack:
        stack.start(deaf)
        stack.wait_healthy(deaf)
        group = stack.pids["deaf"]
    assert _group_is_gone(group)


# Says when it is asked to end, and ends a little later.
_SLOW_TO_END = (
    """
import signal, sys, time
def end(*_):
    print(f"asked {time.monotonic()}", flush=True); time.sleep(0.3)
    print(f"ended {time.monotonic()}", flush=True); sys.exit()
signal.signal(signal.SIGTERM, end)
"""
    + _SERVER
)


def test_a_service_is_asked_to_end_only_when_those_started_after_it_are_gone(
    layout: Layout,
) -> None:
    with Stack(layout) as stack:
        for name in ("provider", "web"):
            service = _service(name, _SLOW_TO_END)
            stack.start(service)
            stack.wait_healthy(service)
    said = {
        name: [float(line.split()[1]) for line in _log_lines(layout, name)]
        for name in ("web", "provider")
    }
    assert said["web"][1] < said["provider"][0]


def _log_lines(layout: Layout, name: str) -> list[str]:
    lines = (layout.logs / f"{name}.log").read_text().splitlines()
    return [line for line in lines if line.startswith(("asked", "ended"))]


_LAUNCHER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from launcher.layout import Layout
from launcher.supervise import Service, Stack
stack = Stack(Layout(Path(sys.argv[2]), Path(sys.argv[2]) / ".rex"))
stack.start(Service("sleeper", (sys.executable, "-c", "import time; time.sleep(600)"), {}, ""))
print(stack.pids["sleeper"], flush=True)
time.sleep(600)
"""


def test_a_launcher_killed_outright_leaves_nothing_running(layout: Layout, checkout: Path) -> None:
    command = [sys.executable, "-c", _LAUNCHER, str(checkout / "scripts"), str(layout.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        group = int(launcher.stdout.readline())
        os.killpg(group, 0)
        launcher.send_signal(signal.SIGKILL)
    assert _group_is_gone(group)


def test_a_port_in_use_is_refused_by_name_and_a_free_one_is_not() -> None:
    port = free_port(0)
    assert refusal("127.0.0.1", port) == ""
    with subprocess.Popen(
        [sys.executable, "-u", "-c", _SERVER, str(port)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as server:
        assert server.stdout is not None
        server.stdout.readline()
        deadline = time.monotonic() + 15
        while not refusal("127.0.0.1", port) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert refusal("127.0.0.1", port) == f"Port {port} on 127.0.0.1 is in use."
        assert free_port(port) != port
        os.killpg(server.pid, signal.SIGKILL)


def test_an_address_of_another_machine_is_refused_by_name() -> None:
    assert refusal("192.0.2.1", 8000) == "192.0.2.1 is not an address of this machine."
