"""Charlie, of another workspace, learns nothing of Alice's runs: not even whether there are any."""

import itertools
import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from django.test import Client
from django.urls import URLResolver, get_resolver

from orchestration.models import Run
from tests.conftest import Person
from tests.docs.markdown import ROOT
from tests.runs import driven, make_run

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
UNKNOWN = UUID("7d1f7c55-3c1e-4b52-8f4e-0d3f0c8b5a11")


def routes_of_a_run(resolver: URLResolver, prefix: str = "") -> Iterator[str]:
    """Every route of the URL conf that takes the id of a run, as a template."""
    for each in resolver.url_patterns:
        route = f"{prefix}{each.pattern}"
        if isinstance(each, URLResolver):
            if each.app_name != "admin":
                yield from routes_of_a_run(each, route)
        elif "run_id" in route:
            yield "/" + route.replace("<uuid:run_id>", "{run_id}").replace("<str:label>", "A")


ROUTES = sorted(routes_of_a_run(get_resolver()))


def what_is_told(client: Client, method: str, address: str, run_id: UUID) -> tuple[Any, ...]:
    """Status, headers and body, without what is new in every answer whoever asks."""
    response = client.generic(
        method, address.format(run_id=run_id), b"{}", content_type="application/json"
    )
    text = response.content.decode().replace(str(run_id), "<run>")
    headers = {name: value.replace(str(run_id), "<run>") for name, value in response.items()}
    fresh = [headers.pop("X-Request-Id")]
    fresh += re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', text)
    fresh += re.findall(r'name="csrf-token" content="(\w+)"', text)
    for each in fresh:
        text = text.replace(each, "<new>")
    cookies = sorted(response.cookies)
    return response.status_code, headers, cookies, text


def test_the_routes_that_take_a_run_are_all_found() -> None:
    assert len(ROUTES) >= 7
    assert "/runs/{run_id}/" in ROUTES
    assert "/api/runs/{run_id}/calls/A/stop" in ROUTES


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("route", ROUTES)
def test_a_foreign_run_is_answered_exactly_as_one_that_never_was(
    alice: Person, charlie: Person, route: str
) -> None:
    run = make_run(alice)
    before = Run.objects.everywhere().values().get()
    askers = (charlie.browser(), charlie.api(), Client())
    for client, method in itertools.product(askers, METHODS):
        foreign, unknown = (
            what_is_told(client, method, route, run_id) for run_id in (run.pk, UNKNOWN)
        )
        assert foreign == unknown
        assert foreign[0] in (200, 302, 401, 403, 404, 405)
        # What answers 200 to a stranger tells of the interface (OPTIONS), never of a run.
        assert foreign[0] != 200 or method == "OPTIONS"
        assert run.prompt not in foreign[3]
    assert Run.objects.everywhere().values().get() == before


@pytest.mark.django_db(transaction=True)
def test_the_same_routes_do_answer_the_owner(alice: Person) -> None:
    """Else the test above would pass on routes that answer nobody."""
    run = make_run(alice)
    for route in ROUTES:
        method = "POST" if re.search(r"/(stop|replay)/?$", route) else "GET"
        status = what_is_told(alice.browser(), method, route, run.pk)[0]
        assert status in (200, 202, 302), route


@pytest.mark.django_db
def test_lists_show_nothing_of_another_workspace(alice: Person, charlie: Person) -> None:
    run = make_run(alice)
    assert charlie.api().get("/api/runs").json() == {"data": [], "next_cursor": None}
    for address in ("/", "/runs/"):
        text = charlie.browser().get(address).content.decode()
        assert str(run.pk) not in text
        assert run.prompt not in text
    own = f"{run.created_at.isoformat()}~{run.pk}"
    assert charlie.api().get("/api/runs", {"cursor": own}).json()["data"] == []


@pytest.mark.django_db(transaction=True)
async def test_a_foreign_recording_is_refused_in_the_words_for_an_unknown_one(
    alice: Person, charlie: Person
) -> None:
    run = await driven(alice, models=("local/brisk",), pipeline="single")
    charlies = charlie.api()

    async def refusal(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        from orchestration.bridge import in_database

        answer = await in_database(charlies.post, "/api/run", body, content_type="application/json")
        problem = answer.json()
        problem.pop("request_id")
        return answer.status_code, problem

    by_model = [
        await refusal({"prompt": "Why?", "models": [f"recorded/{run_id}/A"]})
        for run_id in (run.pk, UNKNOWN)
    ]
    by_run = [await refusal({"replay_of": str(run_id)}) for run_id in (run.pk, UNKNOWN)]
    assert by_model[0] == by_model[1]
    assert by_run[0] == by_run[1]
    assert (by_model[0][1]["code"], by_run[0][1]["code"]) == ("unknown_model", "unknown_run")


# --- the code ------------------------------------------------------------------------------------

# These serve every workspace: the driver with its sweep, the writer of the log, which is handed a
# run its caller already holds, and the recordings, whose door is start_run.
EVERYWHERE = {
    "orchestration/actions/claim_runs.py",
    "orchestration/actions/give_up_run.py",
    "orchestration/actions/record_event.py",
    "orchestration/admin/queries.py",
    "orchestration/driving/load.py",
    "orchestration/recordings.py",
}


def code() -> dict[str, str]:
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for package in ("rexsite", "workspaces", "orchestration")
        for path in sorted((ROOT / package).rglob("*.py"))
        if "migrations" not in path.parts
    }


def test_runs_are_reached_by_workspace_and_across_workspaces_only_where_that_is_meant() -> None:
    everywhere = set()
    for name, text in code().items():
        for manager, reached in re.findall(r"\bRun\.(objects|_\w*manager)\b\s*\.?\s*(\w*)", text):
            assert (manager, reached) in {("objects", "in_workspace"), ("objects", "everywhere")}, (
                f"{name} reaches runs past their workspace"
            )
        if re.search(r"(?<!`)Run\.objects\.everywhere\(\)", text):
            everywhere.add(name)
    assert everywhere == EVERYWHERE


def test_what_hangs_off_a_run_is_only_reached_through_a_run() -> None:
    """``Call.objects.filter(pk=…)`` would find another workspace's."""
    for name, text in code().items():
        for model, first in re.findall(
            r"\b(Call|RunEvent|Synthesis)\.objects\b[\s.]*\w+\(\s*([\w]*)", text
        ):
            assert first in {
                "run",
                "run_id",
                "run__in",
                "run__workspace",
                "RunEvent",
                "Call",
                "",
            }, f"{name} reaches a {model} by {first}"
