"""The API of runs: reading them, stopping them, and whatever a program may send instead."""

import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from orchestration.bridge import in_database
from orchestration.models import Call, Run
from orchestration.problems import PROBLEMS
from orchestration.run_list import PAGE_SIZE
from tests.conftest import Person
from tests.runs import driven, make_run

pytestmark = pytest.mark.django_db


def problem(response: Any, code: str) -> dict[str, Any]:
    assert response["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (body["code"], body["status"]) == (code, response.status_code)
    assert response.status_code == PROBLEMS[code].status
    return body


# --- reading -------------------------------------------------------------------------------------


def test_a_waiting_run_is_given_whole_at_its_first_fact(alice: Person, bob: Person) -> None:
    run = make_run(alice, models=("local/brisk", "local/plain"))
    snapshot = bob.api().get(f"/api/runs/{run.pk}").json()
    assert (snapshot["id"], snapshot["seq"], snapshot["status"]) == (str(run.pk), 1, "queued")
    assert (snapshot["answer"], snapshot["answer_state"]) == (None, "none")
    assert snapshot["synthesis"]["state"] == "waiting"
    assert [call["label"] for call in snapshot["calls"]] == ["A", "B"]
    assert {call["state"] for call in snapshot["calls"]} == {"queued"}
    assert snapshot["totals"]["cost_micro_usd"] == 0
    assert "html" not in snapshot["calls"][0]


@pytest.mark.django_db(transaction=True)
async def test_an_ended_run_adds_up(alice: Person) -> None:
    run = await driven(alice, pipeline="wait-all")
    api = alice.api()
    snapshot = (await in_database(api.get, f"/api/runs/{run.pk}")).json()
    assert (snapshot["status"], snapshot["answer"]) == ("done", run.answer)
    assert (snapshot["answer_state"], snapshot["seq"]) == ("final", run.last_seq)
    spent = [*snapshot["calls"], *snapshot["synthesis"]["versions"]]
    for count in ("input_tokens", "output_tokens"):
        assert snapshot["totals"][count] == sum(each[count] for each in spent)
        assert snapshot["totals"][count] == getattr(run, count)
    assert snapshot["totals"]["cost_micro_usd"] == run.cost_micro_usd == 0
    assert snapshot["ended_at"].endswith("Z")
    listed = (await in_database(api.get, "/api/runs")).json()["data"]
    assert [(each["id"], each["status"], each["answers"]) for each in listed] == [
        (str(run.pk), "done", "3/3")
    ]


def test_the_list_is_paged_by_its_cursor(alice: Person) -> None:
    made = [str(make_run(alice).pk) for _ in range(PAGE_SIZE + 2)]
    first = alice.api().get("/api/runs").json()
    second = alice.api().get("/api/runs", {"cursor": first["next_cursor"]}).json()
    assert [each["id"] for each in first["data"] + second["data"]] == made[::-1]
    assert second["next_cursor"] is None


@pytest.mark.parametrize("name", ["page", "Cursor", "format", "😀", "x" * 500])
def test_a_parameter_the_list_does_not_know_is_refused_not_ignored(
    alice: Person, name: str
) -> None:
    body = problem(alice.api().get("/api/runs", {name: "1"}), "unknown_field")
    assert body["errors"][0]["field"] == name[:60]
    assert alice.api().get("/api/runs", {"cursor": ""}).status_code == 200


def test_the_models_and_pipelines_that_may_be_named_are_told(alice: Person) -> None:
    offered = alice.api().get("/api/models").json()
    roles = {each["id"]: each["role"] for each in offered["models"]}
    assert roles["local/brisk"] == "answer"
    assert roles["local/editor"] == "synthesis"
    assert "openai/*" not in roles, "a provider without a key is not offered"
    assert {"synthesis", "single", "wait-all"} <= {each["name"] for each in offered["pipelines"]}


READS = ["/api/runs", "/api/models"]


@pytest.mark.parametrize("address", READS)
def test_reading_needs_a_key_or_a_session(client: Client, alice: Person, address: str) -> None:
    assert problem(client.get(address), "not_authenticated")
    assert client.get(address)["WWW-Authenticate"] == "Bearer"
    for reader in (alice.api(), alice.browser()):
        assert reader.get(address).status_code == 200
        assert reader.head(address).content == b""
        problem(reader.delete(address), "method_not_allowed")


def test_an_unknown_run_is_not_found(alice: Person) -> None:
    make_run(alice)
    problem(alice.api().get(f"/api/runs/{uuid4()}"), "not_found")


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "nonsense", "application/json"])
def test_whatever_a_client_accepts_the_api_speaks_json(alice: Person, accept: str) -> None:
    answer = alice.api().get("/api/runs", headers={"Accept": accept})
    assert "json" in answer["Content-Type"]
    assert answer.status_code == 200 or problem(answer, "not_acceptable")


# --- stopping ------------------------------------------------------------------------------------


def stops(run_id: UUID) -> tuple[str, str]:
    return f"/api/runs/{run_id}/stop", f"/api/runs/{run_id}/calls/B/stop"


def test_a_stop_is_accepted_once_and_asking_again_is_no_error(alice: Person) -> None:
    run = make_run(alice)
    whole, one = stops(run.pk)
    for address in (one, whole):
        answers = [alice.api().post(address) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [202, 202]
        assert [answer.json() for answer in answers] == [{"stopping": True}, {"stopping": False}]
    assert Run.objects.everywhere().get().stop_requested_at
    asked = Call.objects.filter(stop_requested_at__isnull=False)
    assert list(asked.values_list("label", flat=True)) == ["B"]


def test_a_stop_that_is_not_allowed_stops_nothing(
    alice: Person, vera: Person, charlie: Person, client: Client
) -> None:
    run = make_run(alice)
    forged = Client(enforce_csrf_checks=True)
    forged.force_login(alice.user)
    for address in stops(run.pk):
        problem(vera.browser().post(address), "forbidden")
        problem(charlie.api().post(address), "not_found")
        problem(client.post(address), "not_authenticated")
        problem(forged.post(address), "csrf_failed")
        problem(alice.api().get(address), "method_not_allowed")
    for label in ("Z", "AA", "v1", "%00", "💥"):
        problem(alice.api().post(f"/api/runs/{run.pk}/calls/{label}/stop"), "not_found")
    assert Run.objects.everywhere().get().stop_requested_at is None
    assert not Call.objects.filter(stop_requested_at__isnull=False).exists()


# --- anything else -------------------------------------------------------------------------------

JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(), inner, max_size=4),
    max_leaves=12,
)
NEARLY = some.fixed_dictionaries(
    {},
    optional={
        "prompt": some.text() | JSON,
        "pipeline": some.sampled_from(["synthesis", "single@1", "fast@9"]) | JSON,
        "models": some.lists(some.sampled_from(["local/brisk", "local/x", "recorded/x/A"])) | JSON,
        "replay_of": some.uuids().map(str) | JSON,
    },
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=NEARLY | JSON, key=some.none() | some.text(max_size=20))
def test_no_body_is_ever_a_failure_of_ours_and_what_is_refused_is_not_stored(
    alice: Person, body: Any, key: str | None
) -> None:
    before = Run.objects.everywhere().count()
    headers = {} if key is None else {"Idempotency-Key": key.encode().decode("latin-1")}
    answer = alice.api().post(
        "/api/run", json.dumps(body), content_type="application/json", headers=headers
    )
    if answer.status_code == 202:
        assert Run.objects.everywhere().filter(pk=answer.json()["id"]).exists()
        return
    code = answer.json()["code"]
    assert problem(answer, code)["status"] < 500
    assert Run.objects.everywhere().count() == before
