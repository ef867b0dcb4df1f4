"""What the API says of quotas: when it refuses, when it accepts, and when it is asked."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from orchestration.actions.plan_run import RunPlan
from orchestration.actions.start_run import estimate_plan
from orchestration.domain.estimate import RunEstimate
from orchestration.models import Run
from tests.conftest import Person
from workspaces.access import Actor
from workspaces.domain.quotas import Dimension
from workspaces.models import ApiKey, Counter, Quota, QuotaOverride, Workspace

pytestmark = pytest.mark.django_db

Limits = Callable[..., None]


@pytest.fixture
def limits(home: Workspace) -> Limits:
    home.allow_unpriced = True
    home.save()

    def set_limits(pipeline: str = "", key: ApiKey | None = None, **values: int) -> None:
        for name, value in values.items():
            dimension = Dimension[name.upper()]
            Quota.objects.create(
                workspace=home, pipeline=pipeline, api_key=key, dimension=dimension, limit=value
            )

    return set_limits


def key_of(person: Person) -> ApiKey:
    return ApiKey.objects.in_workspace(person.workspace).get(public=person.key.split("-")[2])


def ask(client: Client, models: int = 1, **headers: str) -> Any:
    named = ["local/brisk", "local/plain", "local/thorough"][:models]
    body = json.dumps({"prompt": "Why?", "models": named})
    return client.post("/api/run", body, content_type="application/json", headers=headers)


def refused(response: Any, **quota: Any) -> dict[str, Any]:
    """Assert the documented shape; returns the problem."""
    assert response.status_code == 429, response.content
    assert response["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["code"] == "quota_exceeded"
    assert problem["title"] == "Too Many Requests"
    assert problem["quota"] | quota == problem["quota"]
    assert set(problem["quota"]) == {
        *("name", "scope", "scope_name", "limit", "used", "reserved", "renews_at"),
        *("asked", "retry_after_s"),
    }
    return problem


def test_one_run_more_than_may_be_at_once_is_refused_in_words_and_numbers(
    alice: Person, limits: Limits
) -> None:
    limits(concurrent_runs=1)
    assert ask(alice.api()).status_code == 202
    response = ask(alice.api())
    problem = refused(
        response,
        name="concurrent_runs",
        scope="workspace",
        scope_name=None,
        limit=1,
        used=0,
        reserved=1,
        asked=1,
        renews_at=None,
        retry_after_s=2,
    )
    assert problem["detail"] == (
        "This workspace may have 1 run at once, and 1 is under way. Try again in 2 seconds."
    )
    assert response["Retry-After"] == "2"
    assert "x-should-retry" not in response
    assert response["RateLimit-Policy"] == '"concurrent_runs";q=1;qu="concurrent-requests"'
    assert response["RateLimit"] == '"concurrent_runs";r=0;t=2'
    assert Run.objects.everywhere().count() == 1


def test_requests_a_minute_are_told_as_clients_of_openai_and_of_the_draft_read_them(
    alice: Person, limits: Limits
) -> None:
    limits(requests_per_minute=2)
    first, second = ask(alice.api()), ask(alice.api())
    for accepted, left in ((first, "1"), (second, "0")):
        assert accepted.status_code == 202
        assert accepted["x-ratelimit-limit-requests"] == "2"
        assert accepted["x-ratelimit-remaining-requests"] == left
        assert re.fullmatch(r"(30|2\d|1m0|5\d)s", accepted["x-ratelimit-reset-requests"])
        assert accepted["RateLimit-Policy"] == '"requests_per_minute";q=2;w=60'
        assert re.fullmatch(rf'"requests_per_minute";r={left};t=(30|2\d)', accepted["RateLimit"])
    response = ask(alice.api())
    problem = refused(response, name="requests_per_minute", limit=2, used=2)
    wait_s = problem["quota"]["retry_after_s"]
    assert 20 < wait_s <= 30
    assert response["Retry-After"] == str(wait_s)
    assert response["RateLimit"] == f'"requests_per_minute";r=0;t={wait_s}'
    assert response["x-ratelimit-remaining-requests"] == "0"
    assert problem["detail"] == (
        f"This workspace may start 2 runs a minute; they are used. Try again in {wait_s} seconds."
    )


def test_where_no_waiting_helps_clients_are_told_not_to_retry(
    alice: Person, limits: Limits
) -> None:
    limits(fanout_width=2)
    assert ask(alice.api(), models=2).status_code == 202
    response = ask(alice.api(), models=3)
    problem = refused(response, name="fanout_width", limit=2, asked=3, retry_after_s=None)
    assert problem["detail"] == (
        "This workspace may ask 2 models in a run, and this one asks 3. Ask fewer models."
    )
    assert response["x-should-retry"] == "false"
    assert "Retry-After" not in response
    assert "RateLimit" not in response


def test_where_waiting_helps_only_tomorrow_both_are_told(alice: Person, limits: Limits) -> None:
    limits(tokens_per_day=10_000_000)
    today = f"{timezone.now():%Y-%m-%d}"
    Counter.objects.create(workspace=alice.workspace, window=today, tokens=9_999_999)
    response = ask(alice.api())
    problem = refused(response, name="tokens_per_day", used=9_999_999, reserved=0)
    ends = datetime.fromisoformat(problem["quota"]["renews_at"])
    assert ends == datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(
        days=1
    )
    assert int(response["Retry-After"]) == problem["quota"]["retry_after_s"]
    assert response["x-should-retry"] == "false"
    assert response["x-ratelimit-limit-tokens"] == "10000000"
    assert response["x-ratelimit-remaining-tokens"] == "1"
    assert response["RateLimit-Policy"] == '"tokens_per_day";q=10000000;qu="tokens";w=86400'
    assert "10,000,000 tokens a day: 9,999,999 tokens are used" in problem["detail"]


def test_a_limit_of_the_key_is_told_as_the_keys(alice: Person, bob: Person, limits: Limits) -> None:
    limits(key=key_of(alice), concurrent_runs=1)
    assert ask(alice.api()).status_code == 202
    problem = refused(ask(alice.api()), scope="key", scope_name=key_of(alice).public)
    assert problem["detail"].startswith("This API key may have 1 run at once")
    response = ask(bob.api())
    assert response.status_code == 202
    assert "RateLimit" not in response, "it is no limit of Bob's"


def test_a_limit_of_the_pipeline_is_told_with_its_name(alice: Person, limits: Limits) -> None:
    limits(pipeline="synthesis", concurrent_runs=1)
    assert ask(alice.api()).status_code == 202
    response = ask(alice.api())
    problem = refused(response, scope="pipeline", scope_name="synthesis")
    assert problem["detail"].startswith("The synthesis pipeline may have 1 run at once")
    assert response["RateLimit"] == '"pipeline.synthesis.concurrent_runs";r=0;t=2'


def test_all_limits_that_hold_for_the_asker_are_in_the_headers(
    alice: Person, limits: Limits
) -> None:
    limits(requests_per_minute=60, concurrent_runs=1)
    limits(key=key_of(alice), requests_per_minute=30)
    for response in (ask(alice.api()), ask(alice.api())):
        policies = response["RateLimit-Policy"].split(", ")
        assert sorted(policies) == [
            '"concurrent_runs";q=1;qu="concurrent-requests"',
            '"key.requests_per_minute";q=30;w=60',
            '"requests_per_minute";q=60;w=60',
        ]
        assert response["x-ratelimit-limit-requests"] == "30", "the one that is used up first"


def test_without_limits_there_is_nothing_to_tell(alice: Person, limits: Limits) -> None:
    response = ask(alice.api())
    assert response.status_code == 202
    assert not [name for name in response.headers if "ratelimit" in name.lower()]


def test_a_paused_workspace_refuses_with_the_operators_reason(
    alice: Person, limits: Limits, home: Workspace
) -> None:
    assert ask(alice.api()).status_code == 202
    home.paused_at, home.paused_reason = timezone.now(), "The invoice of May is open."
    home.save()
    response = ask(alice.api())
    assert response.status_code == 403
    problem = response.json()
    assert problem["code"] == "workspace_paused"
    assert problem["detail"] == (
        "This workspace is paused; nothing new is started in it. The invoice of May is open."
    )


def test_a_workspace_that_is_deleted_meanwhile_answers_as_one_that_never_was(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def estimate_and_delete(actor: Actor, plan: RunPlan) -> RunEstimate:
        estimate = estimate_plan(actor, plan)
        Workspace.objects.filter(pk=actor.workspace.pk).delete()
        return estimate

    monkeypatch.setattr("orchestration.actions.start_run.estimate_plan", estimate_and_delete)
    client = alice.api()
    meanwhile, afterwards = ask(client), ask(client)
    assert meanwhile.status_code == afterwards.status_code == 401
    assert meanwhile["WWW-Authenticate"] == afterwards["WWW-Authenticate"]
    assert not Run.objects.everywhere().exists()


def test_a_key_reads_its_own_limits_and_the_workspaces_and_no_other_keys(
    alice: Person, bob: Person, limits: Limits
) -> None:
    limits(concurrent_runs=5)
    limits(pipeline="council", tokens_per_day=900)
    limits(key=key_of(alice), cost_per_day=70)
    limits(key=key_of(bob), cost_per_day=80)
    assert ask(alice.api()).status_code == 202

    def scopes(client: Client) -> list[tuple[str, str | None, int]]:
        data = client.get("/api/quotas").json()["data"]
        return [(each["scope"], each["scope_name"], each["limit"]) for each in data]

    shared = [("workspace", None, 5), ("pipeline", "council", 900)]
    assert scopes(alice.api()) == [*shared, ("key", key_of(alice).public, 70)]
    assert scopes(bob.api()) == [*shared, ("key", key_of(bob).public, 80)]
    assert scopes(alice.browser()) == shared, "a person asks with no key"


def test_each_limit_is_told_whole(alice: Person, limits: Limits) -> None:
    limits(concurrent_runs=5)
    limits(cost_per_month=2_000_000)
    ends = timezone.now() + timedelta(hours=24)
    QuotaOverride.objects.create(
        quota=Quota.objects.in_workspace(alice.workspace).get(dimension=Dimension.CONCURRENT_RUNS),
        limit=8,
        reason="launch",
        created_by="operator",
        expires_at=ends,
    )
    ask(alice.api())
    answer = alice.api().get("/api/quotas").json()
    assert answer["time_zone"] == "UTC"
    runs, month = answer["data"]
    assert runs == {
        "name": "concurrent_runs",
        "scope": "workspace",
        "scope_name": None,
        "limit": 8,
        "used": 0,
        "reserved": 1,
        "remaining": 7,
        "unit": "runs",
        "window": None,
        "renews_at": None,
        "override": {"usual_limit": 5, "until": ends.isoformat()},
    }
    assert set(month) == set(runs)
    assert (month["unit"], month["window"], month["override"]) == ("micro_usd", "month", None)
    assert month["renews_at"].endswith("-01T00:00:00+00:00")


def test_quotas_are_usage_and_need_its_scope(alice: Person, charlie: Person) -> None:
    key = key_of(alice)
    assert alice.api().get("/api/quotas").status_code == 200
    key.scopes = ["runs:read", "runs:write"]
    key.save()
    response = alice.api().get("/api/quotas")
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    assert "usage:read" in response.json()["detail"]
    assert Client().get("/api/quotas").status_code == 401
    assert charlie.api().get("/api/quotas").json() == {"data": [], "time_zone": "UTC"}


def test_a_parameter_nobody_knows_is_refused(alice: Person) -> None:
    response = alice.api().get("/api/quotas?scope=key")
    assert (response.status_code, response.json()["code"]) == (400, "unknown_field")
