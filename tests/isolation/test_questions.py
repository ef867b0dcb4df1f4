"""What can be said about another workspace in a question: filters, cursors, keys, recordings."""

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import Client

from orchestration.models import Run
from orchestration.run_filter import PARAMETERS
from tests.isolation.asking import JSON, Told, ask, found_in
from tests.isolation.world import UNKNOWN, Place, World
from tests.runs import priced
from workspaces.models import Workspace

LISTS = (
    *("/", "/runs/", "/runs.csv", "/usage/", "/usage.csv", "/account/", "/members/", "/keys/"),
    *("/api/runs", "/api/usage", "/api/quotas", "/api/models", "/docs/errors"),
)
NOTHING = "canary-of-nobody"


def client_of(place: Place, address: str) -> Client:
    return place.owner.api() if address.startswith("/api/") else place.owner.browser()


def questions(place: Place, canary: str, run_id: Any) -> list[dict[str, str]]:
    """What might name the rows of ``place``; the same about nobody where the canary is nobody's."""
    cursor = f"{place.run.created_at.isoformat()}~{run_id}"
    values = {
        "model": f"local/{canary}-model",
        "member": f"{canary} started-by",
        "pipeline": f"{canary}-pipeline",
        "reason": "timeout",
        "status": "done",
        "state": "done",
        "part": "answers",
        "cached": "1",
        "from": "2026-11-01",
        "to": "2026-11-30",
    }
    assert values.keys() == set(PARAMETERS), "a new filter: say what it could name"
    strays = {
        "run": str(run_id), "workspace": str(place.workspace.pk), "q": canary, "since": "0",
        "next": f"/runs/{run_id}/", "key": canary, "format": "json", "period": "30d",
    }  # fmt: skip
    alone = [{name: value} for name, value in (values | strays).items()]
    return [*alone, {"cursor": cursor}, {"cursor": cursor, "member": values["member"]}]


@pytest.mark.parametrize("address", LISTS)
def test_no_filter_and_no_cursor_reaches_into_another_workspace(world: World, address: str) -> None:
    other = world.elsewhere
    client = client_of(world.home, address)
    theirs = questions(other, other.canary, other.run.pk)
    nobodys = questions(other, NOTHING, UNKNOWN)
    for foreign, unknown in zip(theirs, nobodys, strict=True):
        asked = [*foreign.values(), str(other.run.pk), other.canary]
        about = ask(client, ("GET", "", ""), f"{address}?{urlencode(foreign)}", asked)
        assert about.status in (200, 400), foreign
        assert not found_in(about, other.marks), foreign
        asked = [*unknown.values(), str(UNKNOWN), NOTHING]
        nothing = ask(client, ("GET", "", ""), f"{address}?{urlencode(unknown)}", asked)
        assert about.status == nothing.status, foreign


def test_the_cursor_of_another_workspace_gives_its_readers_own_runs(world: World) -> None:
    """It is a place in time, and says no more to whom it was not given."""
    other = world.elsewhere
    cursor = other.owner.api().get("/api/runs", {"cursor": ""}).json()["data"][0]
    stolen = f"{cursor['created_at']}~{cursor['id']}"
    rows = world.home.owner.api().get("/api/runs", {"cursor": stolen}).json()["data"]
    own = {
        str(pk)
        for pk in Run.objects.in_workspace(world.home.workspace).values_list("pk", flat=True)
    }
    assert {row["id"] for row in rows} <= own


def test_filters_find_the_own_rows(world: World) -> None:
    """Else the tests above would pass on filters that find nothing."""
    for place in (world.home, world.elsewhere):
        for name in ("model", "member", "pipeline"):
            wanted = next(each for each in questions(place, place.canary, UNKNOWN) if name in each)
            assert place.owner.api().get("/api/runs", wanted).json()["data"], name


# --- starting and estimating ---------------------------------------------------------------------


def post(
    client: Client, address: str, body: dict[str, Any], asked: list[str], **headers: str
) -> Told:
    return ask(client, ("POST", JSON, json.dumps(body)), address, asked, **headers)


@pytest.mark.parametrize("address", ["/api/run", "/api/estimate"])
def test_a_foreign_recording_is_refused_in_the_words_for_an_unknown_one(
    world: World, address: str
) -> None:
    other = world.elsewhere

    def refusals(run_id: Any) -> list[Told]:
        recorded = [f"recorded/{run_id}/{stream}" for stream in ("A", "v1", "Z")]
        bodies: list[dict[str, Any]] = [
            {"replay_of": str(run_id)},
            *({"prompt": "Why?", "models": [each]} for each in recorded),
        ]
        return [post(world.home.owner.api(), address, body, [str(run_id)]) for body in bodies]

    foreign, unknown = refusals(other.run.pk), refusals(UNKNOWN)
    for one, same in zip(foreign, unknown, strict=True):
        assert not found_in(one, other.marks)
        assert _words(one) == _words(same)
    assert {json.loads(each.text)["code"] for each in foreign} == {"unknown_run", "unknown_model"}


def _words(told: Told) -> tuple[Any, ...]:
    """``ask`` has taken out what was asked for, and the id of the request from headers alone."""
    problem = json.loads(told.text)
    problem.pop("request_id")
    headers = {k: v for k, v in told.headers.items() if not k.lower().startswith("x-ratelimit")}
    return told.status, headers, problem


def test_its_own_recordings_are_played(world: World) -> None:
    """Else the test above would pass on recordings that nobody can play."""
    priced()
    for place in (world.home, world.elsewhere):
        for body in (
            {"replay_of": str(place.run.pk)},
            {"prompt": "Why?", "models": [f"recorded/{place.run.pk}/A"], "pipeline": "single"},
        ):
            told = post(place.owner.api(), "/api/estimate", body, [])
            assert told.status == 200, told.text


def test_an_idempotency_key_is_its_workspaces_own(world: World) -> None:
    """The same key in two workspaces is two runs; neither hears of the other's."""

    def started(place: Place, prompt: str) -> dict[str, Any]:
        body = {"prompt": prompt, "models": ["local/brisk"], "pipeline": "single"}
        headers = {"Idempotency-Key": "a-key-of-both"}
        answer: dict[str, Any] = json.loads(
            post(place.owner.api(), "/api/run", body, [], **headers).text
        )
        return answer

    theirs = started(world.elsewhere, "Why is it green?")
    before = world.elsewhere.rows()
    # With the very body it was first used for, and with another.
    for prompt in ("Why is it green?", "Why is it blue?"):
        told = started(world.home, prompt)
        assert theirs["id"] not in json.dumps(told)
        if prompt == "Why is it green?":
            assert Workspace.objects.get(runs__pk=told["id"]) == world.home.workspace
            assert started(world.home, prompt)["id"] == told["id"]
        else:
            assert told["code"] == "idempotency_conflict"
    assert world.elsewhere.rows() == before
    assert started(world.elsewhere, "Why is it green?")["id"] == theirs["id"]


@pytest.mark.parametrize(
    "body",
    [
        {"workspace": "{workspace}"},
        {"workspace_id": "{workspace}"},
        {"started_by": "{canary}"},
        {"api_key": "{public}"},
        {"budget": 10**9},
        {"is_staff": True},
        {"__proto__": {"workspace": "{workspace}"}},
        {"models": [{"workspace": "{workspace}"}]},
    ],
)
@pytest.mark.parametrize("address", ["/api/run", "/api/estimate"])
def test_no_field_of_a_question_names_a_workspace(
    world: World, address: str, body: dict[str, Any]
) -> None:
    other = world.elsewhere
    text = json.dumps({"prompt": "Why?"} | body)
    for name, value in (
        ("{workspace}", str(other.workspace.pk)),
        ("{canary}", other.canary),
        ("{public}", str(other.ids["public"])),
    ):
        text = text.replace(name, value)
    runs = Run.objects.everywhere().count()
    told = ask(world.home.owner.api(), ("POST", JSON, text), address)
    assert told.status == 400
    assert json.loads(told.text)["code"] in ("unknown_field", "wrong_type")
    assert Run.objects.everywhere().count() == runs


# --- choosing ------------------------------------------------------------------------------------


def test_a_workspace_one_is_no_member_of_cannot_be_chosen_nor_told_from_none(world: World) -> None:
    browser, other = world.home.owner.browser(), world.elsewhere.workspace
    answers = [
        ask(
            browser,
            ("POST", "application/x-www-form-urlencoded", f"workspace={asked}"),
            "/account/workspace/",
            [str(asked)],
        ).compared
        for asked in (other.pk, UNKNOWN, "no-such-place", other.slug)
    ]
    assert answers[0][0] == 404
    assert all(each == answers[0] for each in answers)
    assert browser.get(f"/runs/{world.home.run.pk}/").status_code == 200


def test_a_session_that_names_another_workspace_is_none_of_it(world: World) -> None:
    """As it is after a membership ended, or if somebody could write into their own session."""
    browser = world.home.owner.browser()
    session = browser.session
    session["workspace"] = str(world.elsewhere.workspace.pk)
    session.save()
    for address in LISTS:
        told = ask(browser, ("GET", "", ""), address)
        assert not found_in(told, world.elsewhere.marks), address


@pytest.mark.parametrize("address", ["/login/", "/theme/", "/language/"])
def test_whoever_is_sent_back_stays_on_this_site(world: World, address: str) -> None:
    for back in (
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
    ):
        fields = {
            "next": back, "theme": "dark", "language": "en",
            "username": world.home.owner.user.username,
            "password": "canary-password-of-home-owner",
        }  # fmt: skip
        told = Client().post(address, fields)
        assert told.status_code == 302
        assert "evil" not in told["Location"]
        assert "javascript" not in told["Location"]


# --- somebody who is in both ---------------------------------------------------------------------


def test_who_is_in_both_reads_one_at_a_time(world: World) -> None:
    both = world.home.member
    membership = world.elsewhere.workspace.memberships.create(user=both.user, role="owner")
    try:
        browser = both.browser()
        # They know the name of either, and may choose.
        known = {world.elsewhere.canary, str(world.elsewhere.workspace.pk)}
        marks = [mark for mark in world.elsewhere.marks if mark not in known]
        for address in LISTS:
            told = ask(browser, ("GET", "", ""), address)
            assert not found_in(told, marks), address
            text = told.everything.replace(world.elsewhere.workspace.name, "")
            if address != "/account/":
                assert world.elsewhere.canary not in text, address
        assert browser.get(f"/runs/{world.elsewhere.run.pk}/").status_code == 404
        assert browser.get(f"/api/runs/{world.elsewhere.run.pk}").status_code == 404
    finally:
        membership.delete()
