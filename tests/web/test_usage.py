"""The usage page: its numbers are sums of the lists they lead to, and nobody else's."""

import html
import math
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.test import Client
from django.utils import timezone

from orchestration.domain.spans import Span, today_in
from orchestration.models import Run
from orchestration.run_filter import RunFilter
from orchestration.usage import usage_of
from tests.conftest import Person
from tests.used_runs import NOON, PRICE, cached, call, draft, failed, unpriced, used_run
from tests.web.numbers import Numbers, listed_sums
from workspaces.models import Workspace

pytestmark = pytest.mark.django_db

DAYS = {"from": "2026-11-18", "to": "2026-11-23"}
SPAN = Span(date(2026, 11, 18), date(2026, 11, 23))


@pytest.fixture
def used(alice: Person) -> Workspace:
    """Runs of several days, members, pipelines, models and endings, in a zone that is not UTC."""
    home = alice.workspace
    home.time_zone = "Asia/Kolkata"  # five and a half hours ahead
    home.save()
    midnight = datetime(2026, 11, 20, 18, 30, tzinfo=UTC)
    tick = timedelta(microseconds=1)
    used_run(home, call(), call("groq/quick"), drafts=(draft(), draft()))
    used_run(home, call(), cached(), started_by="bob", at=midnight)
    used_run(home, call(), unpriced(), drafts=(draft(),), at=midnight - tick)
    used_run(home, failed(), call(), pipeline="wait-all", status="degraded", reason="rate_limited")
    used_run(home, failed(reason="auth"), status="failed", reason="auth", started_by="key k4")
    used_run(home, cached(price=None), cached("groq/quick"), at=NOON - timedelta(days=4))
    used_run(home, call("recorded/7d1f/A", cost_micro_usd=0), started_by="bob")
    used_run(home, call("openai/editor"), drafts=(draft(state="failed", reason="auth"),), at=NOON)
    for n in range(35):  # more than a page of the list
        used_run(home, call("groq/quick", cost_micro_usd=n), at=NOON - timedelta(minutes=n))
    used_run(home, call(), at=NOON - timedelta(days=6))  # before the span
    return home


def test_every_number_of_the_page_is_the_sum_of_the_list_it_leads_to(
    alice: Person, used: Workspace
) -> None:
    browser = alice.browser()
    page = browser.get("/usage/", DAYS).content.decode()
    numbers = Numbers(page).found
    lists = {address: listed_sums(browser, address) for address, _, _ in numbers if address}
    wrong = [
        (address, what, value, lists[address][what])
        for address, what, value in numbers
        if address and lists[address][what] != value
    ]
    assert not wrong
    assert len(lists) > 25
    # Only a zero leads nowhere, and a number there is none of.
    assert {value for address, _, value in numbers if not address} == {0}
    assert lists["/runs/?from=2026-11-18&to=2026-11-23"]["runs"] == 43


@pytest.mark.parametrize(
    "asked",
    [
        {"member": "bob"},
        {"model": "openai/*"},
        {"cached": "1"},
        {"part": "synthesis"},
        {"reason": "auth"},
        {"state": "failed"},
        {"status": "done", "pipeline": "synthesis"},
        {"model": "recorded/7d1f/A"},
    ],
    ids=str,
)
def test_so_it_is_with_a_filter(alice: Person, used: Workspace, asked: dict[str, str]) -> None:
    browser = alice.browser()
    numbers = Numbers(browser.get("/usage/", DAYS | asked).content.decode()).found
    assert any(address for address, _, _ in numbers)
    lists = {address: listed_sums(browser, address) for address, _, _ in numbers if address}
    for address, what, value in numbers:
        assert not address or lists[address][what] == value, (address, what)


def test_the_tables_agree_with_each_other(used: Workspace) -> None:
    usage = usage_of(used, SPAN, RunFilter())
    for lines in (usage.by_day, usage.by_model, usage.by_pipeline, usage.by_member):
        total = lines[0].sums
        for line in lines[1:]:
            total = total + line.sums
        assert total == usage.totals
    for lines in (usage.by_day, usage.by_pipeline, usage.by_member, usage.by_status):
        assert sum(line.runs or 0 for line in lines) == usage.runs
    assert [line.name for line in usage.by_day][::5] == ["2026-11-23", "2026-11-18"]
    # The run of the last microsecond before midnight in India belongs to the day before.
    by_day = {line.name: line.runs for line in usage.by_day}
    assert (by_day["2026-11-20"], by_day["2026-11-21"]) == (1, 1)


def test_a_price_nobody_knows_is_unknown_and_not_nothing(alice: Person) -> None:
    used_run(alice.workspace, unpriced("openai/new"))
    page = alice.browser().get("/usage/", DAYS).content.decode()
    assert ">unknown</data>" in page
    assert "the price of 1 call or draft is not known" in page
    used_run(alice.workspace, call("openai/small"))
    page = alice.browser().get("/usage/", DAYS).content.decode()
    assert "≥ </span>$0.0014" in page
    totals = alice.api().get("/api/usage", DAYS).json()["totals"]
    assert (totals["cost_micro_usd"], totals["unpriced"]) == (1_400, 1)


def test_a_failed_call_that_used_nothing_has_no_unknown_price(alice: Person) -> None:
    used_run(alice.workspace, failed())
    page = alice.browser().get("/usage/", DAYS).content.decode()
    assert "unknown</data>" not in page
    assert "is not known" not in page


def test_the_cache_saves_what_its_answers_would_have_cost(alice: Person) -> None:
    home = alice.workspace
    # 600 tokens at $1 and 400 at $0.25 a million, 101 at $4: 1,104 micro-dollars exactly.
    used_run(home, cached(cached_tokens=400, output_tokens=101))
    # No discount is known, and a part of a micro-dollar counts as one.
    price = PRICE | {"cached_input": None, "input": 1_500_000}
    used_run(home, cached(cached_tokens=400, input_tokens=1, output_tokens=0, price=price))
    used_run(home, cached(price=None))
    totals = usage_of(home, SPAN, RunFilter()).totals
    assert (totals.saved_micro_usd, totals.saved_unpriced) == (600 + 100 + 404 + 2, 1)
    assert totals.saved_tokens == 1_101 + 1 + 1_100
    assert (totals.input_tokens, totals.known_micro_usd) == (0, 0)


@pytest.mark.parametrize("size", [1, 2, 19, 20, 21, 101])
def test_percentiles_are_the_exact_ones_by_nearest_rank(alice: Person, size: int) -> None:
    values = [(n * 37) % size * 10 + 5 for n in range(size)]
    for value in values:
        calls = [call(first_token_ms=value, duration_ms=value + 1), cached(first_token_ms=1)]
        used_run(alice.workspace, *calls, failed(duration_ms=1), duration_ms=value * 2)
    used_run(alice.workspace, call("groq/quick", first_token_ms=None), status="failed")
    usage = usage_of(alice.workspace, SPAN, RunFilter())

    def nearest_rank(percent: int) -> int:
        return sorted(values)[math.ceil(size * percent / 100) - 1]

    expected = nearest_rank(50), nearest_rank(95)
    quick, small = sorted(usage.of_models, key=lambda each: each.name)
    assert (small.name, small.count, small.first_ms) == ("openai/small", size, expected)
    assert small.whole_ms == (expected[0] + 1, expected[1] + 1)
    assert (quick.name, quick.count, quick.first_ms) == ("groq/quick", 1, (None, None))
    told = alice.api().get("/api/usage", DAYS).json()["latency_of_models"]
    quick_told = next(each for each in told if each["model"] == "groq/quick")
    assert quick_told["first_text_ms"] == {"p50": None, "p95": None}
    assert "—" in alice.browser().get("/usage/", DAYS).content.decode()
    (done,) = usage.of_runs
    assert (done.name, done.count) == ("done", size)
    assert done.whole_ms == (expected[0] * 2, expected[1] * 2)


# --- who, and what is asked ----------------------------------------------------------------------


def test_everyone_of_the_workspace_sees_its_usage_and_nobody_else_sees_any_of_it(
    alice: Person, bob: Person, vera: Person, charlie: Person, used: Workspace
) -> None:
    for person in (alice, bob, vera):
        assert "groq/quick" in person.browser().get("/usage/", DAYS).content.decode()
        assert person.api().get("/api/usage", DAYS).json()["totals"]["runs"] == 43
    page = charlie.browser().get("/usage/", DAYS)
    assert page.status_code == 200
    assert "groq/quick" not in page.content.decode()
    assert "Nothing has been asked in this workspace yet" in page.content.decode()
    assert charlie.api().get("/api/usage", DAYS).json()["totals"]["runs"] == 0
    for address in ("/usage/", "/usage.csv", "/runs.csv"):
        stranger = Client().get(address)
        assert (stranger.status_code, stranger["Location"][:7]) == (302, "/login/")
    assert Client().get("/api/usage").status_code == 401


def test_the_api_says_what_the_page_says_and_each_line_how_to_ask_for_its_runs(
    alice: Person, used: Workspace
) -> None:
    told = alice.api().get("/api/usage", DAYS).json()
    assert (told["from"], told["to"], told["time_zone"]) == (*DAYS.values(), "Asia/Kolkata")
    page = Numbers(alice.browser().get("/usage/", DAYS).content.decode())
    of_page = {what: value for _, what, value in reversed(page.found)}  # the totals come first
    for what in ("calls", "drafts", "cached", "input_tokens", "output_tokens", "cost_micro_usd"):
        assert told["totals"][what] == of_page[what]
    for line in told["by_model"] + told["by_member"] + told["by_day"]:
        listed = every_run(alice, line["query"])
        for what in ("calls", "drafts", "cached", "input_tokens", "cost_micro_usd"):
            assert sum(run["used"][what] or 0 for run in listed) == (line[what] or 0)


def every_run(person: Person, query: str) -> list[Any]:
    """All pages of the list of runs."""
    runs: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = person.api().get(f"/api/runs?{query}&cursor={quote(cursor)}").json()
        runs += page["data"]
        cursor = page["next_cursor"]
    return runs


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"period": "year"}, "period"),
        ({"from": "x"}, "from"),
        ({"from": "2026-11-24", "to": "2026-11-23"}, "from"),
        ({"from": "2025-11-22", "to": "2026-11-23"}, "from"),
        ({"status": "asleep"}, "status"),
        ({"nonsense": "1"}, "nonsense"),
    ],
    ids=str,
)
def test_a_question_that_cannot_be_answered_is_refused_by_the_api_and_forgiven_by_the_page(
    alice: Person, asked: dict[str, str], field: str
) -> None:
    answer = alice.api().get("/api/usage", asked)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == field
    page = alice.browser().get("/usage/", asked)
    assert page.status_code == 200
    if field != "nonsense":
        assert html.escape(answer.json()["detail"]) in page.content.decode()


@pytest.mark.parametrize(
    ("asked", "days"),
    [
        ({}, 7),
        ({"period": "today"}, 1),
        ({"period": "30d"}, 30),
        ({"from": "2025-11-23", "to": "2026-11-23"}, 366),
        ({"to": "2026-11-23"}, 7),
    ],
    ids=str,
)
def test_a_span_has_all_its_days(alice: Person, asked: dict[str, str], days: int) -> None:
    told = alice.api().get("/api/usage", asked).json()
    assert len(told["by_day"]) == days
    if "period" in asked:
        assert told["to"] == today_in("UTC", timezone.now()).isoformat()


def test_a_key_needs_the_scope_for_usage(alice: Person) -> None:
    key = alice.workspace.api_keys.get()
    assert alice.api().get("/api/usage").status_code == 200
    key.scopes = ["runs:read", "runs:write"]
    key.save()
    answer = alice.api().get("/api/usage")
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert "usage:read" in answer.json()["detail"]


def test_the_number_of_queries_does_not_grow_with_runs(
    alice: Person, used: Workspace, django_assert_max_num_queries: Any
) -> None:
    with django_assert_max_num_queries(25):
        usage_of(used, SPAN, RunFilter())
    assert Run.objects.in_workspace(used).count() > 40
