"""Many requests at once: copies of one are one run, and refusals do not queue for the workspace."""

import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from orchestration.actions.start_run import RunRequest, start_run
from orchestration.models import Run
from tests.conftest import Person
from tests.redis_server import RedisServer
from workspaces import refusals
from workspaces.domain import quotas
from workspaces.models import Quota, Reservation

pytestmark = pytest.mark.django_db(transaction=True)

COPIES = 12
BODY = json.dumps({"prompt": "Why?", "models": ["local/brisk"]})


@pytest.fixture
def _one_run_at_once(alice: Person) -> None:
    Quota.objects.create(workspace=alice.workspace, dimension="concurrent_runs", limit=1)


@pytest.mark.usefixtures("_one_run_at_once")
def test_copies_of_a_request_that_took_the_last_room_are_all_given_its_run(alice: Person) -> None:
    request = RunRequest(prompt="Why?", models=("local/brisk",), idempotency_key="once")
    actor, ready = alice.actor, threading.Barrier(COPIES)
    given: list[Any] = []

    def ask() -> None:
        try:
            ready.wait(timeout=10)
            given.append(start_run(actor=actor, request=request).pk)
        except Exception as error:
            given.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(COPIES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    run = Run.objects.everywhere().get()
    assert given == [run.pk] * COPIES
    assert Reservation.objects.everywhere().get().subject == run.pk


@pytest.mark.usefixtures("_one_run_at_once")
def test_a_flood_waits_for_the_workspaces_row_once(
    alice: Person, redis_server: RedisServer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REDIS_URL = redis_server.url
    monkeypatch.setattr(refusals, "MOST_MS", 60_000)
    monkeypatch.setattr(refusals, "TIMEOUT_S", 10)
    monkeypatch.setattr(quotas, "SLOT_WAIT", timedelta(minutes=1))
    client = alice.api()

    def ask() -> tuple[Any, list[str]]:
        with CaptureQueriesContext(connection) as captured:
            response = client.post("/api/run", BODY, content_type="application/json")
        return response, [each["sql"] for each in captured]

    accepted, statements = ask()
    assert accepted.status_code == 202
    assert any(map(reads_quotas, statements))
    first, statements = ask()
    assert any(map(reads_quotas, statements))
    for _ in range(5):
        response, statements = ask()
        assert response.status_code == 429
        assert not any(map(reads_quotas, statements))
        assert not any(each.startswith(("BEGIN", "SAVEPOINT")) for each in statements)
        told, was_told = response.json()["quota"], first.json()["quota"]
        assert (told["name"], told["reserved"]) == (was_told["name"], was_told["reserved"])
        assert response["RateLimit-Policy"] == first["RateLimit-Policy"]


def reads_quotas(statement: str) -> bool:
    return "workspaces_quota" in statement
