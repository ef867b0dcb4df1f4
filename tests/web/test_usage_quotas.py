"""The quota bars of the usage page: what the ledger says, and where it is going."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from orchestration.bridge import in_database
from orchestration.domain.spans import Span, today_in
from orchestration.fanout.scripted import Fail, Script
from orchestration.quota_bars import quota_bars
from orchestration.run_filter import RunFilter
from orchestration.usage import usage_of
from tests.conftest import Person
from tests.runs import answers, driven
from tests.used_runs import cached, call, used_run
from tests.web.numbers import Numbers, listed_sums
from workspaces.actions.reserve import reserve
from workspaces.actions.settle import Charge, settle
from workspaces.domain.quotas import Dimension, Hold, Offer
from workspaces.models import Quota, Workspace

pytestmark = pytest.mark.django_db


def work(home: Workspace, *, tokens: int, cost_micro_usd: int, closes: bool = True) -> None:
    """A run that was let in, asked for what it held, and ended, as the ledger has it."""
    now = timezone.now()
    run = used_run(
        home,
        call(input_tokens=tokens, output_tokens=0, cost_micro_usd=cost_micro_usd),
        cached(),
        at=now,
    )
    with transaction.atomic():
        reserve(
            workspace=home,
            subject=run.pk,
            api_key=None,
            pipeline=run.pipeline,
            offers=(Offer(1, (Hold("A", 2 * tokens, 2 * cost_micro_usd),)),),
            now=now,
        )
    charge = Charge("A", tokens=tokens, cost_micro_usd=cost_micro_usd, closes=closes)
    with transaction.atomic():
        settle(subject=run.pk, charges=(charge,), closes=closes)


@pytest.fixture
def limited(home: Workspace) -> Workspace:
    for dimension, limit in (
        (Dimension.TOKENS_PER_DAY, 10_000),
        (Dimension.COST_PER_DAY, 1_000_000),
        (Dimension.COST_PER_MONTH, 5_000_000),
        (Dimension.CONCURRENT_RUNS, 3),
        (Dimension.FANOUT_WIDTH, 4),
    ):
        Quota.objects.create(workspace=home, dimension=dimension, limit=limit)
    Quota.objects.create(
        workspace=home, pipeline="synthesis", dimension=Dimension.COST_PER_DAY, limit=900_000
    )
    return home


def test_with_nothing_under_way_the_quotas_have_used_what_the_tables_say(
    alice: Person, limited: Workspace
) -> None:
    work(limited, tokens=2_000, cost_micro_usd=300_000)
    work(limited, tokens=1_000, cost_micro_usd=100_000)
    browser = alice.browser()
    page = browser.get("/usage/", {"period": "today"}).content.decode()
    bars, _, _ = page.partition('<dl class="figures">')
    found = [each for each in Numbers(bars).found if each[0]]
    assert sorted((what, value) for _, what, value in found) == [
        ("known_micro_usd", 400_000),
        ("known_micro_usd", 400_000),
        ("known_micro_usd", 400_000),
        ("tokens", 3_000),
    ]
    for address, what, value in found:
        sums = listed_sums(browser, address)
        assert sums["cost_micro_usd" if what == "known_micro_usd" else what] == value
    totals = alice.api().get("/api/usage", {"period": "today"}).json()["totals"]
    assert totals["cost_micro_usd"] == 400_000
    assert totals["input_tokens"] + totals["output_tokens"] == 3_000
    assert "hold up to" not in page


def test_what_runs_under_way_hold_is_said(alice: Person, limited: Workspace) -> None:
    work(limited, tokens=2_000, cost_micro_usd=300_000, closes=False)
    page = alice.browser().get("/usage/").content.decode()
    assert "$0.3000</data></a></strong> of $1.00 used, $0.3000 reserved, $0.4000 left" in page
    assert "hold up to 2,000 tokens and $0.3000" in page
    assert "<strong>1</strong> of 3 under way" in page
    assert "at most <strong>4</strong>" in page


def test_a_forecast_is_made_from_the_days_before_and_from_too_few_there_is_none(
    limited: Workspace,
) -> None:
    now = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

    def admitted(at: datetime, cost_micro_usd: int) -> None:
        run = used_run(limited, at=at)
        hold = Hold("A", 0, cost_micro_usd)
        with transaction.atomic():
            reserve(
                workspace=limited, subject=run.pk, api_key=None, pipeline="wait-all",
                offers=(Offer(1, (hold,)),), now=at,
            )  # fmt: skip
            charge = Charge("A", cost_micro_usd=cost_micro_usd, closes=True)
            settle(subject=run.pk, charges=(charge,), closes=True)

    def forecasts() -> dict[str, Any]:
        return {
            each.use.limit.dimension: each.forecast
            for each in quota_bars(limited, now)
            if not each.whose
        }

    admitted(now - timedelta(hours=3), 400_000)
    first = forecasts()
    # Half the day for what is used: evenly spread, the other half brings as much again.
    assert first[Dimension.COST_PER_DAY].expected == 800_000
    assert first[Dimension.COST_PER_DAY].used_up_at is None
    assert first[Dimension.COST_PER_MONTH] is None
    for days in (1, 2, 3):
        admitted(now - timedelta(days=days, hours=3), 100_000)
        admitted(now - timedelta(days=days, hours=-3), 300_000)
    told = forecasts()
    # A quarter of other days was used by noon; the rest comes between 15:00 and 16:00.
    assert told[Dimension.COST_PER_DAY].expected == 1_600_000
    assert told[Dimension.COST_PER_DAY].used_up_at == now + timedelta(hours=3.5)
    # 0.4 dollars a day, for 7.5 days more.
    assert told[Dimension.COST_PER_MONTH].expected == 1_600_000 + 3_000_000


@pytest.mark.django_db(transaction=True)
async def test_runs_that_were_really_driven_have_used_what_the_ledger_says(alice: Person) -> None:
    quota = Quota(workspace=alice.workspace, dimension=Dimension.TOKENS_PER_DAY, limit=10_000_000)
    await in_database(quota.save)
    whole = await driven(alice)
    broken = await driven(alice, answers(B=Script([(0.01, "Half a")], Fail("rate_limited"))))
    await driven(alice, replay_of=whole.pk)
    assert broken.status == "done"

    def both() -> tuple[Any, Any]:
        (bar,) = quota_bars(alice.workspace, timezone.now())
        today = today_in("UTC", timezone.now())
        return bar, usage_of(alice.workspace, Span(today, today), RunFilter())

    bar, usage = await in_database(both)
    assert usage.runs == 3
    assert bar.use.reserved == 0
    assert bar.use.used == usage.totals.input_tokens + usage.totals.output_tokens > 0


def test_a_burst_is_not_shown_as_the_rate(alice: Person) -> None:
    rate = Quota(
        workspace=alice.workspace, dimension=Dimension.REQUESTS_PER_MINUTE, limit=60, burst=20
    )
    rate.save()
    text = alice.browser().get(reverse("usage")).content.decode()
    assert "Requests at once, 60 a minute" in text
    Quota.objects.in_workspace(alice.workspace).update(burst=None)
    assert "Requests a minute" in alice.browser().get(reverse("usage")).content.decode()
