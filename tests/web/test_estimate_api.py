"""POST /api/estimate: what a run would use, told before it is asked for."""

import json
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from orchestration.models import Call, ModelPrice, Run
from tests.conftest import Person
from tests.runs import THREE, make_run, priced
from workspaces.domain.quotas import Dimension
from workspaces.models import ApiKey, Counter, Lease, Quota, Reservation, Workspace

pytestmark = pytest.mark.django_db

KINDS = ("low", "expected", "worst")


def post(client: Client, url: str = "/api/estimate", **body: Any) -> Any:
    asked = {"prompt": "Why?", "models": list(THREE)} | body
    return client.post(url, json.dumps(asked), content_type="application/json")


def estimated(client: Client, **body: Any) -> dict[str, Any]:
    response = post(client, **body)
    assert response.status_code == 200, response.content
    assert response["Cache-Control"] == "no-store"
    answer: dict[str, Any] = response.json()
    return answer


def limit(workspace: Workspace, **values: int) -> None:
    for name, value in values.items():
        Quota.objects.create(workspace=workspace, dimension=Dimension[name.upper()], limit=value)


def test_it_tells_low_expected_and_worst_of_the_whole_and_of_every_part(alice: Person) -> None:
    priced(input=3_000_000, output=9_000_000)
    answer = estimated(alice.api())
    parts = [*answer["calls"], answer["synthesis"]]
    assert [part["model"] for part in parts] == [*THREE, "local/editor"]
    assert [part["call"] for part in answer["calls"]] == ["A", "B", "C"]
    for kind in KINDS:
        for unit in ("tokens", "cost_micro_usd"):
            assert answer[kind][unit] == sum(part[kind][unit] for part in parts) > 0
            assert isinstance(answer[kind][unit], int)
    assert answer["low"]["tokens"] < answer["expected"]["tokens"] < answer["worst"]["tokens"]
    assert answer["pipeline"] == "synthesis"


def test_every_price_says_where_it_is_from(alice: Person) -> None:
    own = ModelPrice.objects.create(model="local/brisk", input=5, output=6, cached_input=1)
    first, second, _ = estimated(alice.api())["calls"]
    assert first["price"] == {
        "version": f"override-{own.pk}",
        "input": 5,
        "output": 6,
        "cached_input": 1,
    }
    assert second["price"]["version"] == "free"


def test_one_model_is_not_merged_with_anything(alice: Person) -> None:
    answer = estimated(alice.api(), models=["local/brisk"])
    assert answer["synthesis"] is None
    assert answer["worst"] == answer["calls"][0]["worst"]


def test_a_run_holds_exactly_what_its_estimate_called_the_worst(alice: Person) -> None:
    priced()
    answer = estimated(alice.api())
    run = make_run(alice, prompt="Why?")
    leases = Lease.objects.filter(reservation__subject=run.pk)
    held = [(lease.name, lease.bound_tokens, lease.bound_micro_usd) for lease in leases]
    told = [(part["call"], *part["worst"].values()) for part in answer["calls"]]
    assert sorted(held) == sorted([*told, ("synthesis", *answer["synthesis"]["worst"].values())])
    prices = dict(Call.objects.filter(run=run).values_list("label", "price"))
    assert prices == {part["call"]: part["price"] for part in answer["calls"]}


def test_asking_stores_nothing_and_uses_up_nothing(alice: Person, home: Workspace) -> None:
    limit(home, requests_per_minute=1, concurrent_runs=1)
    for _ in range(3):
        assert estimated(alice.api())["quotas"]["fits"]
    for model in (Run, Reservation, Counter):
        assert not model.objects.everywhere().exists()
    assert post(alice.api(), "/api/run").status_code == 202


def test_nothing_is_written_or_locked(alice: Person, home: Workspace) -> None:
    limit(home, tokens_per_day=10, concurrent_runs=1)
    with CaptureQueriesContext(connection) as queries:
        post(alice.browser())
    statements = [query["sql"] for query in queries]
    about_quotas = [each for each in statements if "workspaces_" in each]
    assert about_quotas
    assert all(each.startswith("SELECT") and "FOR " not in each for each in about_quotas)


def test_it_says_how_the_run_would_fare_as_the_refusal_itself_does(
    alice: Person, home: Workspace
) -> None:
    limit(home, tokens_per_day=100)
    told = estimated(alice.api())["quotas"]
    refusal = post(alice.api(), "/api/run")
    assert refusal.status_code == 429
    assert (told["fits"], told["width"]) == (False, 0)
    assert told["refusal"] == refusal.json()["quota"]
    assert told["detail"] == refusal.json()["detail"]


def test_what_runs_under_way_hold_is_in_the_way_until_they_end(
    alice: Person, home: Workspace
) -> None:
    limit(home, concurrent_runs=1)
    assert estimated(alice.api())["quotas"] == {
        "fits": True,
        "width": 3,
        "detail": "",
        "refusal": None,
    }
    make_run(alice)
    told = estimated(alice.api())["quotas"]
    assert (told["fits"], told["refusal"]["name"]) == (False, "concurrent_runs")
    assert told["refusal"]["retry_after_s"] == 2


def test_a_workspace_that_shrinks_is_told_how_many_would_be_asked(
    alice: Person, home: Workspace
) -> None:
    limit(home, fanout_width=2)
    assert not estimated(alice.api())["quotas"]["fits"]
    home.on_excess = Workspace.OnExcess.SHRINK
    home.save()
    told = estimated(alice.api())["quotas"]
    assert (told["fits"], told["width"], told["refusal"]) == (True, 2, None)
    run = make_run(alice)
    assert run.calls.exclude(state="skipped").count() == 2


def test_the_quota_of_the_key_that_asks_counts(alice: Person, home: Workspace) -> None:
    key = ApiKey.objects.in_workspace(home).get(public=alice.key.split("-")[2])
    Quota.objects.create(workspace=home, api_key=key, dimension=Dimension.FANOUT_WIDTH, limit=1)
    told = estimated(alice.api())["quotas"]
    assert (told["fits"], told["refusal"]["scope"]) == (False, "key")
    assert estimated(alice.browser())["quotas"]["fits"]


def test_a_replay_uses_nothing(alice: Person) -> None:
    run = make_run(alice)
    Run.objects.everywhere().update(ended_at=timezone.now(), status="done")
    body = json.dumps({"replay_of": str(run.pk)})
    answer = alice.api().post("/api/estimate", body, content_type="application/json").json()
    assert {kind: answer[kind] for kind in KINDS} == {
        key: {"tokens": 0, "cost_micro_usd": 0} for key in KINDS
    }


def test_an_unknown_price_makes_the_cost_unknown_where_it_is_allowed(
    alice: Person, home: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestration.price_book.price_of", lambda model: None)
    home.allow_unpriced = True
    home.save()
    answer = estimated(alice.api())
    assert answer["calls"][0]["price"] is None
    assert all(answer[kind]["cost_micro_usd"] is None for kind in KINDS)
    assert answer["worst"]["tokens"] > 0


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": " "},
        {"prompt": "x" * 100_001},
        {"prompt": "\ud800"},
        {"models": []},
        {"models": ["nobody/x"]},
        {"models": ["openai/gpt-4o"]},
        {"models": ["recorded/0b0a/A"]},
        {"models": ["local/brisk"] * 9},
        {"models": "local/brisk"},
        {"pipeline": "none"},
        {"cache": "sometimes"},
        {"replay_of": "41f2d0e6-0000-4000-8000-000000000000"},
        {"deadline": 3},
    ],
)
def test_what_cannot_be_run_cannot_be_estimated_for_the_same_reason(
    alice: Person, body: dict[str, Any]
) -> None:
    answers = [post(alice.api(), url, **body) for url in ("/api/run", "/api/estimate")]
    problems = [answer.json() for answer in answers]
    assert {answer.status_code // 100 for answer in answers} == {4}
    for problem in problems:
        del problem["request_id"]
    assert problems[0] == problems[1]
    assert answers[1]["Content-Type"] == "application/problem+json"


def test_a_model_without_a_price_is_refused_as_the_run_would_be(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestration.price_book.price_of", lambda model: None)
    problems = [post(alice.api(), url).json() for url in ("/api/run", "/api/estimate")]
    assert [problem["code"] for problem in problems] == ["unpriced_model", "unpriced_model"]


def test_a_paused_workspace_says_so(alice: Person, home: Workspace) -> None:
    home.paused_at, home.paused_reason = timezone.now(), "The invoice is open."
    home.save()
    response = post(alice.api())
    assert (response.status_code, response.json()["code"]) == (403, "workspace_paused")
    assert "The invoice is open." in response.json()["detail"]


def test_whoever_may_read_may_ask_and_nobody_else(
    vera: Person, home: Workspace, client: Client
) -> None:
    assert post(vera.browser()).status_code == 200
    ApiKey.objects.in_workspace(home).update(scopes=[ApiKey.Scope.USAGE_READ])
    assert post(vera.api()).json()["code"] == "forbidden"
    assert post(client).json()["code"] == "not_authenticated"
    assert vera.browser().get("/api/estimate").json()["code"] == "method_not_allowed"


def test_the_answers_of_another_workspace_change_nothing(alice: Person, charlie: Person) -> None:
    before = estimated(alice.api())
    make_run(charlie)
    Call.objects.update(state="done", output_tokens=9)
    assert estimated(alice.api()) == before
