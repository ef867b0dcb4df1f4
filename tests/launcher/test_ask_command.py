"""``./rex ask`` against a server on a real socket that cuts, refuses and stops."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from launcher import run_record
from launcher.ask import client
from launcher.failure import Failed
from launcher.layout import ROOT, Layout
from launcher.run_record import RunRecord
from tests.launcher.test_ask_view import LOG


@dataclass(frozen=True, slots=True)
class Ended:
    """How the command ended, and what it wrote."""

    code: int
    out: str
    err: str


_RUN = {
    "status": "degraded",
    "reason": "deadline",
    "message": "The deadline was reached.",
    "answer": "It is blue.\n\nWhy?",
    "calls": [{"state": "done"}, {"state": "timeout"}],
    "totals": {"duration_ms": 1000, "output_tokens": 5, "cost_micro_usd": 3100},
}


class FakeRex(ThreadingHTTPServer):
    """Speaks the API; a test sets where it cuts the stream, or what it refuses."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cut_after: list[int] = []
        self.refusal: tuple[int, dict[str, str]] | None = None
        self.stop_refusal: tuple[int, dict[str, str]] | None = None
        self.lost_readings = 0
        self.without_database: list[bool] = []
        self.stop_ends_it: bool | None = None
        self.reading = threading.Event()
        self.stopped = threading.Event()
        self.bodies: list[dict[str, Any]] = []
        self.asked: list[dict[str, list[str]]] = []
        self.authorised: set[str] = set()


class _Handler(BaseHTTPRequestHandler):
    server: FakeRex
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.authorised.add(self.headers["Authorization"])
        if self.path.endswith("/stop"):
            self.server.stopped.set()
            return self._json(*(self.server.stop_refusal or (202, {})))
        self.server.bodies.append(json.loads(content))
        if self.server.refusal:
            return self._json(*self.server.refusal)
        links = {"url": "/runs/1/", "api_url": "/api/runs/1", "events_url": "/api/runs/1/events"}
        return self._json(202, links)

    def do_GET(self) -> None:
        if self.server.without_database and self.server.without_database.pop(0):
            problem = {"detail": "The database does not answer.", "code": "store_unavailable"}
            return self._json(503, problem)
        url = urlsplit(self.path)
        if not url.path.endswith("/events"):
            return self._json(200, _RUN) if self._is_reached() else None
        query = parse_qs(url.query)
        self.server.asked.append(query)
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        since, have = int(query["since"][0]), json.loads(query["have"][0])
        events = [event for event in LOG if _is_wanted(event, since, have)]
        if self.server.cut_after:
            events = events[: self.server.cut_after.pop(0)]
            self._lines(events)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return None
        if self.server.stop_ends_it is not None:
            self._lines(events[:3])
            self.server.reading.set()
            (self.server.stopped if self.server.stop_ends_it else threading.Event()).wait(30)
            events = [{**LOG[-1], "status": "cancelled", "reason": "stop.user"}]
        self._lines(events)
        self.wfile.write(b"0\r\n\r\n")
        return None

    def _is_reached(self) -> bool:
        """False after hanging up, as often as the test wants readings of the run to be lost."""
        if not self.server.lost_readings:
            return True
        self.server.lost_readings -= 1
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
        return False

    def _lines(self, events: list[Any]) -> None:
        for event in events:
            line = json.dumps(event).encode() + b"\n\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.flush()

    def _json(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        return None


def _is_wanted(event: Any, since: int, have: dict[str, list[int]]) -> bool:
    if event["type"] == "call.chunk":
        return bool(event["offset"] >= have.get(event["call"], [0, 0])[1])
    if event["type"] == "synthesis.delta":
        return bool(event["offset"] >= have.get(f"v{event['version']}", [0, 0])[1])
    return bool(event["seq"] > since)


@pytest.fixture
def rex(layout: Layout) -> Iterator[FakeRex]:
    """A Rex that 'runs' in this layout."""
    server = FakeRex()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    layout.api_key.write_text("sk-rex-test\n")
    url = f"http://127.0.0.1:{server.server_port}"
    with run_record.only_one(layout):
        run_record.write(layout, RunRecord(url, "m", {}, {}))
        yield server
    server.shutdown()
    server.server_close()


def _started(
    layout: Layout, *arguments: str, inherited: tuple[int, ...] = ()
) -> "subprocess.Popen[str]":
    """The command in a process of its own, as a person starts it."""
    return subprocess.Popen(
        [sys.executable, "-B", ROOT / "scripts" / "launcher", "ask", *arguments],
        env=os.environ | {"REX_STATE_DIR": str(layout.state)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=inherited,
    )


def _ended(process: "subprocess.Popen[str]") -> Ended:
    out, err = process.communicate(timeout=60)
    return Ended(process.returncode, out, err)


def _ask(layout: Layout, *arguments: str) -> Ended:
    return _ended(_started(layout, "Why is the sky blue?", *arguments))


def test_only_the_answer_goes_to_stdout(layout: Layout, rex: FakeRex) -> None:
    ended = _ask(layout, "--models", "m/a, m/b", "--pipeline", "fast", "--fresh")
    assert ended.out == "It is blue.\n\nWhy?\n"
    assert "A m/a: done" in ended.err
    assert "degraded (deadline)" in ended.err
    assert ended.code == 3
    assert rex.bodies == [
        {
            "prompt": "Why is the sky blue?",
            "pipeline": "fast",
            "models": ["m/a", "m/b"],
            "cache": "refresh",
        }
    ]
    assert rex.authorised == {"Bearer sk-rex-test"}


def test_json_is_one_object_and_quiet_is_quiet(layout: Layout, rex: FakeRex) -> None:
    ended = _ask(layout, "--json", "--quiet")
    assert json.loads(ended.out) == _RUN
    assert ended.err == ""


def test_a_question_from_a_file_is_sent_as_it_is(
    layout: Layout, rex: FakeRex, tmp_path: Path
) -> None:
    (tmp_path / "question.md").write_text("Warum?\n\nÄ 🌍\n")
    assert _ended(_started(layout, "--file", str(tmp_path / "question.md"))).code == 3
    assert rex.bodies == [{"prompt": "Warum?\n\nÄ 🌍\n"}]


@pytest.mark.parametrize("cuts", [[], [1], [4, 2], [5, 1, 1, 3]])
def test_the_events_come_once_each_however_often_the_stream_is_cut(
    layout: Layout, rex: FakeRex, cuts: list[int]
) -> None:
    rex.cut_after = list(cuts)
    shown = [json.loads(line) for line in _ask(layout, "--ndjson", "--quiet").out.splitlines()]
    assert sorted(shown, key=json.dumps) == sorted(LOG, key=json.dumps)
    assert len(rex.asked) == len(cuts) + 1


def test_a_reconnect_names_what_is_already_there(layout: Layout, rex: FakeRex) -> None:
    rex.cut_after = [5]
    _ask(layout, "--quiet")
    assert rex.asked[1] == {"since": ["4"], "have": ['{"A": [0, 7], "B": [0, 0]}']}


def test_a_refused_question_says_why_and_exits_with_2(layout: Layout, rex: FakeRex) -> None:
    problem = {"detail": "There is no model m/x.", "code": "unknown_model", "request_id": "r1"}
    rex.refusal = (400, problem)
    ended = _ask(layout)
    assert ended.code == 2
    assert "There is no model m/x." in ended.err
    assert "unknown_model" in ended.err
    assert "Traceback" not in ended.err


def test_a_reader_that_closes_the_pipe_ends_it_without_a_complaint(
    layout: Layout, rex: FakeRex
) -> None:
    process = _started(layout, "Why?", "--ndjson", "--quiet")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(60) == 128 + signal.SIGPIPE


def test_a_first_interrupt_stops_the_run_and_prints_what_exists(
    layout: Layout, rex: FakeRex
) -> None:
    rex.stop_ends_it = True
    process = _started(layout, "Why?")
    assert rex.reading.wait(30)
    process.send_signal(signal.SIGINT)
    ended = _ended(process)
    assert rex.stopped.is_set()
    assert "Stopping the run" in ended.err
    assert ended.out == "It is blue.\n\nWhy?\n"


def test_a_second_interrupt_leaves_at_once(layout: Layout, rex: FakeRex) -> None:
    rex.stop_ends_it = False
    process = _started(layout, "Why?")
    assert rex.reading.wait(30)
    process.send_signal(signal.SIGINT)
    assert rex.stopped.wait(30)
    process.send_signal(signal.SIGINT)
    ended = _ended(process)
    assert ended.code == 130
    assert ended.out == ""
    assert "/runs/1/" in ended.err


def test_a_refused_stop_is_said(layout: Layout, rex: FakeRex) -> None:
    rex.stop_ends_it = True
    rex.stop_refusal = (401, {"detail": "The key is not known.", "code": "unauthorised"})
    process = _started(layout, "Why?")
    assert rex.reading.wait(30)
    process.send_signal(signal.SIGINT)
    assert "The stop was refused: The key is not known." in _ended(process).err


@pytest.mark.parametrize(("lost", "code"), [(2, 3), (3, 1)])
def test_a_server_that_goes_at_the_very_end_is_tried_again_and_then_told_of(
    layout: Layout, rex: FakeRex, lost: int, code: int
) -> None:
    rex.lost_readings = lost
    ended = _ask(layout)
    assert ended.code == code
    assert (ended.out == "It is blue.\n\nWhy?\n") is (code == 3)
    assert ("Rex cannot be reached" in ended.err) is (code == 1)
    assert "Traceback" not in ended.err


def test_a_run_is_followed_on_when_the_database_is_back(layout: Layout, rex: FakeRex) -> None:
    rex.cut_after = [4]
    # The stream is cut, twice refused, read to its end; and then the run itself, refused once.
    rex.without_database = [False, True, True, False, True, False]
    ended = _ask(layout, "--quiet")
    assert (ended.code, ended.out) == (3, "It is blue.\n\nWhy?\n")
    assert not rex.without_database
    assert len(rex.asked) == 2


def test_a_question_that_cannot_be_stored_is_refused_at_once(layout: Layout, rex: FakeRex) -> None:
    rex.refusal = (503, {"detail": "The database does not answer.", "code": "store_unavailable"})
    ended = _ask(layout)
    assert ended.code == 1
    assert "The database does not answer." in ended.err
    assert len(rex.bodies) == 1


def test_a_question_out_of_a_pipe_is_read(layout: Layout, rex: FakeRex) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"Why?")
    os.close(writer)
    process = _started(layout, "--file", f"/dev/fd/{reader}", inherited=(reader,))
    os.close(reader)
    assert _ended(process).code == 3
    assert rex.bodies == [{"prompt": "Why?"}]


class Slept(Exception):
    """Raised instead of sleeping."""


@pytest.mark.parametrize("error", [None, client.Unavailable("The database does not answer.")])
@pytest.mark.parametrize("patient", [True, False])
def test_a_server_that_stays_away_is_given_up_only_after_a_while(
    monkeypatch: pytest.MonkeyPatch, patient: bool, error: Exception | None
) -> None:
    def sleep(_: float) -> None:
        raise Slept

    monkeypatch.setattr("launcher.ask.client.asyncio.sleep", sleep)
    monkeypatch.setattr(client, "_GIVE_UP_S", 60.0 if patient else -1.0)
    said = "The database" if error else "Rex cannot be reached"
    with pytest.raises(Slept if patient else Failed, match=None if patient else said):
        client.Patience().wait(error).send(None)
