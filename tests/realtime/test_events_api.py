"""GET /api/runs/{id}/events on a real server: the long poll, the NDJSON stream, and bad queries."""

import itertools
import json
import time
from typing import Any
from uuid import uuid4

import httpx
import pytest
from django.utils import timezone

from orchestration import events_api
from orchestration.domain.run import RUN_ENDED, TRANSIENT
from orchestration.fanout.scripted import Hang, Script
from orchestration.models import Run
from orchestration.problems import PROBLEMS
from tests.conftest import Person
from tests.realtime.server import Served, cookie_of
from tests.realtime.test_socket import facts, finished, finished_run, silent, texts
from tests.runs import log_of, make_run
from workspaces.models import ApiKey

pytestmark = pytest.mark.django_db(transaction=True)

NDJSON = {"Accept": "application/x-ndjson"}


def events(
    served: Served, headers: dict[str, str], run_id: Any, method: str = "GET", **query: Any
) -> httpx.Response:
    address = f"{served.url}/api/runs/{run_id}/events"
    return httpx.request(
        method, address, params=query, headers=headers, timeout=20, trust_env=False
    )


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (body["code"], body["status"]) == (code, PROBLEMS[code].status)
    assert body["request_id"] == response.headers["X-Request-Id"]
    return body


# --- the long poll -------------------------------------------------------------------------------


def test_polling_from_the_start_to_the_end_gives_the_log_piece_by_piece(
    alice: Person, served: Served
) -> None:
    run = make_run(alice)
    seen: list[dict[str, Any]] = []
    head, done = 0, False
    while not done:
        have = {stream: [0, len(text)] for stream, text in texts(seen).items()}
        answer = events(served, alice.bearer, run.pk, since=head, wait=10, have=json.dumps(have))
        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "no-store"
        body = answer.json()
        assert set(body) == {"head", "events", "done"}
        assert body["events"], "a poll with time left answers when there is something"
        seen += body["events"]
        head, done = body["head"], body["done"]

    log = log_of(finished(run))
    assert facts(seen) == facts(log)
    assert texts(seen) == texts(log)
    assert head == Run.objects.everywhere().get().last_seq


def test_a_poll_with_nothing_new_waits_as_long_as_asked_and_answers_empty(
    alice: Person, served: Served
) -> None:
    silent(served)
    run = make_run(alice)
    body: dict[str, Any] = {"head": 0, "events": []}
    have: dict[str, list[int]] = {}
    while len(have) < 3:
        body = events(served, alice.bearer, run.pk, since=body["head"], wait=10).json()
        have |= {stream: [0, len(text)] for stream, text in texts(body["events"]).items()}

    query = {"since": body["head"], "have": json.dumps(have)}
    overlap = {"overlap.updated"}
    for wait in (0, 1):
        quiet = events(served, alice.bearer, run.pk, wait=wait, **query).json()
        assert (quiet["head"], quiet["done"]) == (body["head"], False)
        assert {event["type"] for event in quiet["events"]} <= overlap


def test_polling_an_ended_run_says_done_at_once(alice: Person, served: Served) -> None:
    run = finished_run(alice, served)
    body = events(served, alice.bearer, run.pk, since=run.last_seq, wait=30).json()
    assert body == {"head": run.last_seq, "events": [], "done": True}


def test_a_poll_that_knows_more_than_the_log_starts_over(alice: Person, served: Served) -> None:
    run = finished_run(alice, served)
    body = events(served, alice.bearer, run.pk, since=run.last_seq + 9).json()
    assert facts(body["events"]) == facts(log_of(run))
    assert body["done"]


# --- the stream ----------------------------------------------------------------------------------


def test_the_stream_is_the_log_one_event_a_line_until_the_end(
    alice: Person, served: Served
) -> None:
    run = make_run(alice)
    answer = events(served, cookie_of(alice) | NDJSON, run.pk)
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert answer.headers["Cache-Control"] == "no-store"
    seen = [json.loads(line) for line in answer.text.splitlines() if line]
    log = log_of(finished(run))
    assert facts(seen) == facts(log)
    assert texts(seen) == texts(log)


def test_a_silent_stream_is_kept_alive_with_empty_lines_and_leaving_it_stops_nothing(
    alice: Person, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent(served)
    monkeypatch.setattr(events_api, "HEARTBEAT_S", 0.1)
    run = make_run(alice)
    address = f"{served.url}/api/runs/{run.pk}/events"
    headers = alice.bearer | NDJSON
    with httpx.stream("GET", address, headers=headers, timeout=10, trust_env=False) as answer:
        assert any(line == "" for line in answer.iter_lines())
    assert Run.objects.everywhere().get().status not in RUN_ENDED


def test_a_stream_ends_soon_after_its_key_is_revoked(
    alice: Person, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent(served)
    monkeypatch.setattr(events_api, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(events_api, "REAUTHORISE_S", 0.2)
    run = make_run(alice)
    address = f"{served.url}/api/runs/{run.pk}/events"
    headers = alice.bearer | NDJSON
    with httpx.stream("GET", address, headers=headers, timeout=10, trust_env=False) as stream:
        lines = stream.iter_lines()
        next(lines)
        ApiKey.objects.filter(workspace=alice.workspace).update(revoked_at=timezone.now())
        # The read itself is bounded: a stream that went on would meet its time limit here.
        began = time.monotonic()
        for _ in lines:
            assert time.monotonic() - began < 5, "a revoked key goes on reading"
    assert not Run.objects.everywhere().get(pk=run.pk).stop_requested_at


def test_a_slow_models_text_is_in_the_stream_before_its_call_ends(
    alice: Person, served: Served
) -> None:
    served.scripts["C"] = Script([(0.01, "Begun by C.")], Hang())
    run = make_run(alice)
    address = f"{served.url}/api/runs/{run.pk}/events"
    headers = alice.bearer | NDJSON
    with httpx.stream("GET", address, headers=headers, timeout=10, trust_env=False) as answer:
        for line in answer.iter_lines():
            event = json.loads(line) if line else {}
            if event.get("type") == "call.chunk" and event["call"] == "C":
                break
    assert event["text"] == "Begun by C."
    assert run.calls.get(label="C").duration_ms is None


@pytest.mark.parametrize("accept", [{}, NDJSON], ids=["poll", "stream"])
def test_a_head_request_answers_at_once_without_a_body(
    alice: Person, served: Served, accept: dict[str, str]
) -> None:
    silent(served)
    run = make_run(alice)
    address = f"{served.url}/api/runs/{run.pk}/events?wait=30"
    one_at_a_time = httpx.Limits(max_connections=1)
    with httpx.Client(timeout=5, limits=one_at_a_time, trust_env=False) as client:
        answer = client.head(address, headers=alice.bearer | accept)
        assert (answer.status_code, answer.content) == (200, b"")
        # The same connection is free again at once.
        assert client.get(f"{served.url}/healthz").status_code == 200
    assert Run.objects.everywhere().get().status not in RUN_ENDED


# --- refusals ------------------------------------------------------------------------------------


BAD_QUERIES: list[dict[str, str]] = [
    {"since": "-1"},
    {"since": "1.5"},
    {"since": "x"},
    {"since": "²"},
    {"since": ""},
    {"since": "9" * 5000},
    {"wait": "31"},
    {"wait": "-1"},
    {"wait": "soon"},
    {"wait": "9" * 50},
    {"have": ""},
    {"have": "[]"},
    {"have": "{"},
    {"have": '{"A": 1}'},
    {"have": '{"A": [0]}'},
    {"have": '{"A": [0, -1]}'},
    {"have": '{"A": [0, 1e400]}'},
    {"have": '{"A": [0, 99999999999]}'},
    {"have": '{"A": [false, 0]}'},
    {"have": '{"a-very-long-name": [0, 0]}'},
    {"have": json.dumps({f"v{n}": [0, 0] for n in range(201)})},
    {"have": "[" * 20_000},
]


def test_a_query_that_cannot_be_read_is_a_problem_that_names_its_part(
    alice: Person, served: Served
) -> None:
    run = make_run(alice)
    for query, accept in itertools.product(BAD_QUERIES, ({}, NDJSON)):
        body = problem(events(served, alice.bearer | accept, run.pk, **query), 400, "bad_request")
        assert body["detail"].startswith(f"{next(iter(query))} takes "), query


def test_only_reading_is_allowed_and_the_answer_says_so(alice: Person, served: Served) -> None:
    run = make_run(alice)
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        refused = events(served, alice.bearer, run.pk, method=method)
        problem(refused, 405, "method_not_allowed")
        assert refused.headers["Allow"] == "GET, HEAD"


def test_a_stranger_and_somebody_unknown_are_refused_before_anything_is_sent(
    alice: Person, charlie: Person, served: Served
) -> None:
    run = make_run(alice)
    for accept in ({}, NDJSON):
        told = [
            problem(events(served, charlie.bearer | accept, run_id), 404, "not_found")
            for run_id in (run.pk, uuid4())
        ]
        assert [body | {"request_id": ""} for body in told[:1]] == [told[1] | {"request_id": ""}]
        nobody = events(served, accept, run.pk)
        problem(nobody, 401, "not_authenticated")
        assert nobody.headers["WWW-Authenticate"] == "Bearer"


def test_transient_events_carry_the_head_they_came_behind(alice: Person, served: Served) -> None:
    run = make_run(alice)
    answer = events(served, alice.bearer | NDJSON, run.pk)
    seq = 0
    for event in (json.loads(line) for line in answer.text.splitlines() if line):
        if event["type"] in TRANSIENT:
            assert event["seq"] == seq
        seq = event["seq"]
