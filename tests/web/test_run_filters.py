"""The list of runs by what is asked for: on the page and in the API, the same runs."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestration.models import Run
from orchestration.run_filter import RunFilter
from orchestration.run_list import PAGE_SIZE, list_runs
from tests.conftest import Person
from tests.used_runs import NOON, cached, call, draft, failed, used_run

pytestmark = pytest.mark.django_db


@pytest.fixture
def made(alice: Person) -> dict[str, Run]:
    """Runs of which each filter asks for some."""
    home = alice.workspace
    return {
        "small": used_run(home, call("openai/small"), drafts=(draft(),)),
        "known": used_run(home, cached("openai/small"), call("groq/quick"), started_by="bob"),
        "limited": used_run(home, call("openai/small"), failed(reason="rate_limited")),
        "broken": used_run(home, failed(reason="auth"), status="failed", reason="auth"),
        "edited": used_run(
            home, call("openai/small"), drafts=(draft(state="failed", reason="auth"),)
        ),
        "replayed": used_run(home, call("recorded/7d1f/A"), pipeline="wait-all"),
        "older": used_run(home, call("groq/quick"), at=NOON - timedelta(days=2)),
    }


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, "small known limited broken edited replayed older"),
        ({"from": "2026-11-23"}, "small known limited broken edited replayed"),
        ({"to": "2026-11-22"}, "older"),
        ({"from": "2026-11-21", "to": "2026-11-21"}, "older"),
        ({"from": "2026-11-24"}, ""),
        ({"from": "2026-11-23", "to": "2026-11-21"}, ""),
        ({"model": "groq/quick"}, "known older"),
        ({"model": "groq/*"}, "known older"),
        ({"model": "recorded/*"}, "replayed"),
        ({"model": "openai/editor"}, "small edited"),
        ({"model": "openai/editor", "part": "answers"}, ""),
        ({"model": "openai/editor", "part": "synthesis"}, "small edited"),
        ({"part": "synthesis"}, "small edited"),
        ({"pipeline": "wait-all"}, "replayed"),
        ({"member": "bob"}, "known"),
        ({"member": "nobody"}, ""),
        ({"status": "failed"}, "broken"),
        ({"reason": "rate_limited"}, "limited"),
        ({"reason": "auth"}, "broken edited"),
        ({"reason": "auth", "part": "answers"}, "broken"),
        ({"reason": "auth", "model": "groq/*"}, ""),
        ({"cached": "1"}, "known"),
        ({"cached": "1", "model": "groq/*"}, ""),
        ({"state": "failed"}, "limited broken"),
        ({"state": "failed", "part": "synthesis"}, ""),
        (
            {"model": "", "status": "", "cached": ""},
            "small known limited broken edited replayed older",
        ),
    ],
)
def test_a_filter_finds_the_same_runs_on_the_page_and_in_the_api(
    alice: Person, made: dict[str, Run], asked: dict[str, str], found: str
) -> None:
    expected = {str(made[name].pk) for name in found.split()}
    answer = alice.api().get("/api/runs", asked)
    assert {run["id"] for run in answer.json()["data"]} == expected
    page = alice.browser().get("/runs/", asked).content.decode()
    assert set(re.findall(r'href="/runs/([0-9a-f-]{36})/"', page)) == expected


def test_a_run_counts_with_what_was_asked_for_alone(alice: Person, made: dict[str, Run]) -> None:
    def used(**asked: str) -> Any:
        listed = alice.api().get("/api/runs", asked).json()["data"]
        return next(run["used"] for run in listed if run["id"] == str(made["small"].pk))

    assert (used()["calls"], used()["drafts"], used()["cost_micro_usd"]) == (1, 1, 5_200)
    only = used(part="synthesis")
    assert (only["calls"], only["drafts"], only["cost_micro_usd"]) == (0, 1, 3_800)
    only = used(model="openai/small")
    assert (only["calls"], only["drafts"], only["cost_micro_usd"]) == (1, 0, 1_400)


def test_the_day_of_a_filter_is_that_of_the_workspaces_time_zone(alice: Person) -> None:
    home = alice.workspace
    late = used_run(home, call(), at=datetime(2026, 11, 23, 10, 59, 59, 999_999, tzinfo=UTC))
    early = used_run(home, call(), at=datetime(2026, 11, 23, 11, 0, tzinfo=UTC))

    def on(day: str) -> list[str]:
        listed = alice.api().get("/api/runs", {"from": day, "to": day}).json()["data"]
        return [run["id"] for run in listed]

    assert on("2026-11-23") == [str(early.pk), str(late.pk)]
    home.time_zone = "Pacific/Auckland"  # thirteen hours ahead in November
    home.save()
    assert on("2026-11-23") == [str(late.pk)]
    assert on("2026-11-24") == [str(early.pk)]


def test_a_filtered_list_is_paged_without_loss_or_doubling(alice: Person) -> None:
    home = alice.workspace
    wanted = [
        str(used_run(home, call("groq/quick"), at=NOON + timedelta(seconds=n // 2)).pk)
        for n in range(PAGE_SIZE + 3)
    ]
    for n in range(5):
        used_run(home, call(), at=NOON + timedelta(seconds=n))
    seen: list[str] = []
    cursor: str | None = ""
    asked = {"model": "groq/quick"}
    while cursor is not None:
        page = alice.api().get("/api/runs", asked | {"cursor": cursor}).json()
        seen += [run["id"] for run in page["data"]]
        cursor = page["next_cursor"]
    assert len(seen) == len(wanted)
    assert set(seen) == set(wanted)
    first = alice.browser().get("/runs/", asked).content.decode()
    assert 'rel="next" href="?model=groq/quick&amp;cursor=' in first


WRONG = [
    ("from", "yesterday"),
    ("from", "2026-02-30"),
    ("to", "0001-01-01"),
    ("to", "9999-12-31"),
    ("to", "20261123"),
    ("to", "२०२६-११-२३"),
    ("model", "a\x00b"),
    ("model", "m" * 201),
    ("member", "\x00"),
    ("part", "both"),
    ("status", "DONE"),
    ("state", "asleep"),
    ("cached", "yes"),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda each: repr(each)[:20])
def test_a_filter_that_cannot_be_used_is_refused_by_the_api_and_left_out_by_the_page(
    alice: Person, made: dict[str, Run], name: str, value: str
) -> None:
    answer = alice.api().get("/api/runs", {name: value})
    assert answer.status_code == 400
    assert answer.json()["code"] == "bad_request"
    assert answer.json()["errors"][0]["field"] == name
    page = alice.browser().get("/runs/", {name: value, "pipeline": "wait-all"})
    text = page.content.decode()
    assert page.status_code == 200
    assert answer.json()["detail"] in text
    assert re.findall(r'href="/runs/([0-9a-f-]{36})/"', text) == [str(made["replayed"].pk)]


def test_a_parameter_given_twice_is_refused(alice: Person) -> None:
    answer = alice.api().get("/api/runs?model=a&model=b")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "model")


def test_the_page_says_which_filters_are_on_and_each_can_be_taken_off(
    alice: Person, made: dict[str, Run]
) -> None:
    browser = alice.browser()
    asked = {"model": "openai/small", "member": "<b>", "cached": "1", "from": "2026-11-20"}
    text = browser.get("/runs/", asked).content.decode()
    for words in (
        "from 20 Nov 2026",
        "model openai/small",
        "started by &lt;b&gt;",
        "from the cache",
    ):
        assert words in text
    assert "<b>" not in text
    assert 'href="?from=2026-11-20&amp;model=openai/small&amp;cached=1"' in text
    assert "No run is like this" in text
    assert "No run is like this" not in browser.get("/runs/", {"cached": "1"}).content.decode()
    assert "chip-on" not in browser.get("/runs/").content.decode()


def test_nobody_finds_runs_of_another_workspace(
    alice: Person, charlie: Person, made: dict[str, Run]
) -> None:
    own = used_run(charlie.workspace, call("groq/quick"))
    for asked in ({}, {"model": "groq/*"}, {"member": "alice"}, {"reason": ""}):
        listed = charlie.api().get("/api/runs", asked).json()["data"]
        assert [run["id"] for run in listed] == [str(own.pk)]
    assert charlie.api().get("/api/runs", {"reason": "auth"}).json()["data"] == []


def test_the_list_asks_as_much_of_the_database_for_thirty_runs_as_for_one(
    alice: Person, django_assert_num_queries: Any
) -> None:
    home = alice.workspace
    used_run(home, call(), cached(), drafts=(draft(),))
    with django_assert_num_queries(5):
        list_runs(home, RunFilter(model="openai/*"))
    for _ in range(PAGE_SIZE):
        used_run(home, call(), cached(), drafts=(draft(),))
    with django_assert_num_queries(5):
        runs, following = list_runs(home, RunFilter(model="openai/*"))
    assert len(runs) == PAGE_SIZE
    assert following
