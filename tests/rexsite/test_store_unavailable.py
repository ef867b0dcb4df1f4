"""A database that is away, frozen or locked is a refusal; reading goes on where it can."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from orchestration.domain.pipelines import DEFAULT_PIPELINE
from tests.postgres_server import PostgresServer
from tests.rexsite.rex_process import HANGS_AFTER_S, Rex, manage, rex_on

PAGE = "The database does not answer"


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    file = tmp_path / "rex.sqlite3"
    manage(tmp_path, f"sqlite:///{file}", "migrate", "--no-input", "--verbosity", "0")
    return file


@pytest.fixture
def on_sqlite(tmp_path: Path, sqlite_file: Path) -> Iterator[Rex]:
    with rex_on(tmp_path, f"sqlite:///{sqlite_file}") as rex:
        yield rex


@pytest.fixture
def on_postgres(tmp_path: Path, postgres_url: str) -> Iterator[Rex]:
    with rex_on(tmp_path, postgres_url) as rex:
        yield rex


def refused(answer: httpx.Response) -> None:
    """A problem that says when to come back, and nothing of what is inside."""
    assert answer.status_code == 503, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Retry-After"] == "1"
    assert answer.json()["code"] == "store_unavailable"
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"]
    assert "Traceback" not in answer.text


def refused_page(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["Retry-After"] == "1"
    assert PAGE in answer.text
    assert "/static/rex/css/rex." in answer.text
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "Traceback" not in answer.text


def token_of(rex: Rex) -> dict[str, str]:
    return {"X-CSRFToken": rex.browser.cookies["csrftoken"]}


def send_form(rex: Rex) -> httpx.Response:
    form = {"prompt": "Why?", "pipeline": DEFAULT_PIPELINE, "models": "local/brisk"}
    return rex.browser.post("/", data=form, headers=token_of(rex))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANGS_AFTER_S
    while not condition():
        assert time.monotonic() < deadline, "it never comes to that"
        time.sleep(0.05)


def comes_back(rex: Rex) -> None:
    """It takes runs again by itself, soon after the database does."""
    wait_for(lambda: rex.ask().status_code == 202)
    assert rex.browser.get("/").status_code == 200


def close_code(rex: Rex, authorization: str) -> int | None:
    """How the live socket of a run is closed for who holds a key."""
    address = f"{rex.url.replace('http', 'ws')}/ws/runs/{uuid4()}/"
    headers = {"Authorization": authorization}
    connecting = connect(address, additional_headers=headers, proxy=None)
    with connecting as socket, pytest.raises(ConnectionClosed) as closed:
        socket.recv(timeout=HANGS_AFTER_S)
    return closed.value.rcvd.code if closed.value.rcvd else None


# --- what is locked for writing can be read -----------------------------------------------------


@contextmanager
def writer_of(file: Path) -> Iterator[None]:
    """Another process in the middle of a transaction, as far as SQLite can tell."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def writer_of_table(url: str) -> Iterator[None]:
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE orchestration_run, workspaces_workspace IN EXCLUSIVE MODE")
        yield
        other.rollback()


def writing_is_refused_and_reading_goes_on(
    rex: Rex, lock: Callable[[], AbstractContextManager[None]]
) -> None:
    before = rex.ask()
    assert before.status_code == 202, before.text
    with lock():
        refused(rex.ask())
        refused_page(send_form(rex))
        for address in ("/api/runs", before.json()["api_url"], before.json()["events_url"]):
            assert rex.api.get(address).status_code == 200, address
        for address in ("/", "/runs/", before.json()["url"], "/readyz"):
            assert rex.browser.get(address).status_code == 200, address
    comes_back(rex)
    assert len(rex.api.get("/api/runs").json()["data"]) == 2, "a refused request left a run"
    told = rex.logged("store_unavailable")
    assert len(told) == 2, told
    assert "Traceback" not in rex.log.read_text()


def test_while_another_process_writes_to_sqlite_runs_are_refused_and_read(
    on_sqlite: Rex, sqlite_file: Path
) -> None:
    writing_is_refused_and_reading_goes_on(on_sqlite, lambda: writer_of(sqlite_file))


def test_while_a_table_of_postgresql_is_locked_runs_are_refused_and_read(
    on_postgres: Rex, postgres_url: str
) -> None:
    writing_is_refused_and_reading_goes_on(on_postgres, lambda: writer_of_table(postgres_url))


# --- what is away cannot ------------------------------------------------------------------------


@contextmanager
def frozen(server: PostgresServer) -> Iterator[None]:
    server.pause()
    yield
    server.resume()


@contextmanager
def stopped(server: PostgresServer) -> Iterator[None]:
    server.kill()
    yield
    server.start()


@contextmanager
def without_a_free_connection(server: PostgresServer) -> Iterator[None]:
    """Others hold all there are; Rex's own were lost with the restart."""
    server.kill()
    server.start(max_connections="6")
    with ExitStack() as taken:
        for _ in range(6):
            taken.enter_context(closing(server.connect()))
        yield


@pytest.mark.parametrize("outage", [frozen, stopped, without_a_free_connection])
def test_while_postgresql_does_not_answer_everything_is_refused_in_words(
    on_postgres: Rex,
    postgres_server: PostgresServer,
    outage: Callable[[PostgresServer], AbstractContextManager[None]],
) -> None:
    assert on_postgres.ask().status_code == 202
    with outage(postgres_server):
        refused(on_postgres.ask())
        refused(on_postgres.api.get("/api/runs"))
        refused_page(on_postgres.browser.get("/"))
        refused_page(send_form(on_postgres))
        ready = on_postgres.api.get("/readyz")
        assert (ready.status_code, ready.json()["part"]) == (503, "database")
        assert on_postgres.api.get("/healthz").status_code == 200
        assert close_code(on_postgres, on_postgres.api.headers["Authorization"]) == 1011
    comes_back(on_postgres)
    assert "Traceback" not in on_postgres.log.read_text()


def test_a_connection_that_the_server_ended_is_replaced_before_anyone_notices(
    on_postgres: Rex, postgres_server: PostgresServer
) -> None:
    assert on_postgres.ask().status_code == 202
    with postgres_server.connect() as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rex'"
        ).fetchall()
    assert ended
    assert on_postgres.ask().status_code == 202
    assert on_postgres.browser.get("/").status_code == 200


def test_a_cookie_that_no_row_can_hold_is_not_understood(on_postgres: Rex) -> None:
    cookie = {"Cookie": 'sessionid="aaaaaaaaaaaa\\000"'}
    page = httpx.get(f"{on_postgres.url}/", headers=cookie)
    assert (page.status_code, "not understood" in page.text) == (400, True)
    answer = httpx.get(f"{on_postgres.url}/api/runs", headers=cookie)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


# --- runs under way -----------------------------------------------------------------------------

WORDS = [f"word {number}, " for number in range(40)]
PIECE_MS = 100


def until(rex: Rex, address: str, enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The run as soon as it is ``enough``; it is asked for however often it is refused."""
    answers: list[dict[str, Any]] = []

    def is_enough() -> bool:
        answer = rex.api.get(address)
        answers.append(answer.json())
        return answer.status_code == 200 and enough(answers[-1])

    wait_for(is_enough)
    return answers[-1]


def has_ended(run: dict[str, Any]) -> bool:
    return run["ended_at"] is not None


def recorded(rex: Rex, url: str) -> str:
    """The id of a run that has ended, whose one model said a word every tenth of a second."""
    asked = rex.ask().json()
    until(rex, asked["api_url"], has_ended)  # failed, for there is no model
    ends = list(accumulate(len(word) for word in WORDS))
    pacing = [[PIECE_MS * at, end, 1, at] for at, end in enumerate(ends, start=1)]
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE orchestration_call SET state = 'done', finish_reason = 'stop', text = %s,"
            " pacing = %s, started_ms = 0, duration_ms = %s, reason = NULL WHERE run_id = %s",
            ("".join(WORDS), json.dumps(pacing), pacing[-1][0], asked["id"]),
        )
    return str(asked["id"])


@pytest.mark.parametrize("outage", [frozen, stopped])
def test_a_run_under_way_waits_for_the_database_and_loses_nothing(
    tmp_path: Path,
    postgres_server: PostgresServer,
    postgres_url: str,
    outage: Callable[[PostgresServer], AbstractContextManager[None]],
) -> None:
    # Recordings need no fan-out service, and there is none.
    driving = {"REX_DRIVE_RUNS_IN_WEB": "1", "REX_FANOUT_URL": "http://127.0.0.1:1"}
    with rex_on(tmp_path, postgres_url, **driving) as rex:
        asked = rex.api.post("/api/run", json={"replay_of": recorded(rex, postgres_url)})
        assert asked.status_code == 202, asked.text
        address = asked.json()["api_url"]
        until(rex, address, lambda run: bool(run["calls"][0]["text"]))
        lines = {"Accept": "application/x-ndjson"}
        with rex.api.stream("GET", f"{address}/events", headers=lines) as followed:
            told = (json.loads(line)["type"] for line in followed.iter_lines() if line)
            assert next(told) == "run.started"
            with outage(postgres_server):
                # Who follows is let go in order, and comes back for the rest.
                assert "run.finished" not in list(told)
                refused(rex.api.get(address))
                wait_for(lambda: bool(rex.logged("record_failed")))
        ended = until(rex, address, has_ended)
        assert (ended["status"], ended["reason"]) == ("done", None), ended
        assert ended["calls"][0]["text"] == "".join(WORDS)
        assert "Exception in ASGI application" not in rex.log.read_text()
