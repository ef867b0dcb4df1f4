"""Reservations hold the most that work may use, and give back what it did not."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import transaction

from workspaces.actions.reserve import QuotaExceeded, WorkspacePaused, reserve
from workspaces.actions.settle import Charge, settle
from workspaces.counting import recount
from workspaces.domain.quotas import Dimension, Hold, Offer
from workspaces.limits import limits_of
from workspaces.models import (
    ApiKey,
    Counter,
    Lease,
    Quota,
    QuotaOverride,
    Reservation,
    Workspace,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
Limits = Callable[..., None]


@pytest.fixture
def limits(home: Workspace) -> Limits:
    def set_limits(**values: int) -> None:
        for name, value in values.items():
            Quota.objects.create(workspace=home, dimension=Dimension[name.upper()], limit=value)

    return set_limits


def offer(*holds: tuple[int, int]) -> Offer:
    """Calls A, B, … of so many tokens and micro-dollars."""
    named = zip("ABCDEFGH", holds, strict=False)
    return Offer(len(holds), tuple(Hold(name, *hold) for name, hold in named))


def admit(
    home: Workspace, *offers: Offer, now: datetime = NOON, pipeline: str = "synthesis"
) -> UUID:
    subject = uuid4()
    with transaction.atomic():
        reserve(
            workspace=home,
            subject=subject,
            api_key=None,
            pipeline=pipeline,
            offers=offers or (offer((100, 10)),),
            now=now,
        )
    return subject


def pay(subject: UUID, *charges: Charge, closes: bool = False) -> frozenset[str]:
    with transaction.atomic():
        return settle(subject=subject, charges=charges, closes=closes)


def books() -> list[Any]:
    return list(Counter.objects.everywhere().order_by("scope", "window").values())


def today(home: Workspace) -> Counter:
    return Counter.objects.in_workspace(home).get(scope="", window="2026-11-23")


def test_a_refused_request_consumes_nothing(home: Workspace, limits: Limits) -> None:
    limits(requests_per_minute=60, concurrent_runs=1, tokens_per_day=1_000)
    first = admit(home)
    before = books()
    with pytest.raises(QuotaExceeded) as refused:
        admit(home, now=NOON + timedelta(seconds=1))
    assert refused.value.refusal.use.limit.dimension is Dimension.CONCURRENT_RUNS
    assert books() == before
    pay(first, closes=True)
    admit(home, now=NOON + timedelta(seconds=1))


def test_what_was_held_and_not_used_is_given_back(home: Workspace, limits: Limits) -> None:
    limits(cost_per_day=100)
    subject = admit(home, offer((500, 60), (500, 40)))
    with pytest.raises(QuotaExceeded):
        admit(home, offer((1, 1)))
    pay(subject, Charge("A", tokens=50, cost_micro_usd=6, closes=True))
    counter = today(home)
    assert (counter.tokens, counter.tokens_reserved) == (50, 500)
    assert (counter.cost_micro_usd, counter.cost_reserved_micro_usd) == (6, 40)
    admit(home, offer((1, 54)))


def test_a_lease_that_is_closed_is_paid_no_more(home: Workspace) -> None:
    subject = admit(home)
    charge = Charge("A", tokens=50, cost_micro_usd=6, closes=True)
    pay(subject, charge)
    before = books()
    pay(subject, charge)
    assert books() == before
    pay(subject, closes=True)
    after = books()
    assert pay(subject, charge, closes=True) == frozenset()
    assert books() == after
    assert today(home).tokens == 50


def test_work_that_asks_for_less_is_let_in_where_the_whole_does_not_fit(
    home: Workspace, limits: Limits
) -> None:
    limits(fanout_width=2)
    subject = admit(home, offer((1, 1), (1, 1), (1, 1)), offer((1, 1), (1, 1)))
    assert Lease.objects.filter(reservation__subject=subject).count() == 2


def test_a_call_that_is_tried_again_holds_all_of_its_bound_again(
    home: Workspace, limits: Limits
) -> None:
    limits(cost_per_day=100)
    subject = admit(home, offer((100, 60)))
    assert pay(subject, Charge("A", tokens=10, cost_micro_usd=20, renews=True)) == frozenset()
    counter = today(home)
    assert (counter.cost_micro_usd, counter.cost_reserved_micro_usd) == (20, 60)
    assert pay(subject, Charge("A", tokens=10, cost_micro_usd=30, renews=True)) == {"A"}
    counter = today(home)
    assert (counter.cost_micro_usd, counter.cost_reserved_micro_usd) == (50, 30)


def test_a_quota_that_comes_meanwhile_counts_what_the_call_has_used(home: Workspace) -> None:
    subject = admit(home, offer((100, 10)), pipeline="council")
    Quota.objects.create(
        workspace=home, pipeline="council", dimension=Dimension.TOKENS_PER_DAY, limit=120
    )
    again = Charge("A", tokens=30, renews=True)
    assert pay(subject, again) == {"A"}, "30 used, 70 held, and 30 more do not fit into 120"
    counter = Counter.objects.in_workspace(home).get(scope="pipeline:council", window="2026-11-23")
    assert (counter.tokens, counter.tokens_reserved) == (30, 70)


def test_more_than_the_bound_is_counted_and_blocks_the_next(
    home: Workspace, limits: Limits
) -> None:
    limits(tokens_per_day=100)
    subject = admit(home, offer((60, 0)))
    pay(subject, Charge("A", tokens=120, closes=True), closes=True)
    assert today(home).tokens == 120
    with pytest.raises(QuotaExceeded) as refused:
        admit(home, offer((1, 0)), now=NOON)
    assert refused.value.refusal.retry_after_s == 12 * 3600
    admit(home, offer((1, 0)), now=NOON + timedelta(hours=12))


def test_a_run_that_ends_after_midnight_is_paid_by_the_day_that_let_it_in(
    home: Workspace,
) -> None:
    subject = admit(home, now=datetime(2026, 11, 23, 23, 59, tzinfo=UTC))
    admit(home, now=datetime(2026, 11, 24, 0, 1, tzinfo=UTC))
    pay(subject, Charge("A", tokens=7, closes=True), closes=True)
    assert today(home).tokens == 7


def test_the_day_of_a_workspace_is_that_of_its_time_zone(home: Workspace) -> None:
    home.time_zone = "Pacific/Auckland"
    home.save()
    admit(home, now=NOON)
    assert Reservation.objects.in_workspace(home).get().day == "2026-11-24"


def test_an_override_counts_until_it_expires(home: Workspace, limits: Limits) -> None:
    limits(concurrent_runs=0)
    override = QuotaOverride.objects.create(
        quota=Quota.objects.in_workspace(home).get(),
        limit=1,
        reason="launch",
        created_by="operator",
        expires_at=NOON + timedelta(hours=1),
    )
    subject = admit(home)
    pay(subject, closes=True)
    with pytest.raises(QuotaExceeded):
        admit(home, now=NOON + timedelta(hours=1))
    override.ended_at = NOON
    override.save()
    with pytest.raises(QuotaExceeded):
        admit(home)


def test_the_limits_of_some_work_are_those_of_its_scopes_and_no_others(home: Workspace) -> None:
    keys = [
        ApiKey.objects.create(workspace=home, name=name, public=name, secret_sha256="", scopes=[])
        for name in ("first", "second")
    ]
    elsewhere = Workspace.objects.create(slug="elsewhere", name="Elsewhere")
    Quota.objects.create(workspace=elsewhere, dimension=Dimension.FANOUT_WIDTH, limit=1)
    for quota in (
        *(Quota(api_key=key) for key in keys),
        *(Quota(pipeline=name) for name in ("", "council", "synthesis")),
    ):
        quota.workspace, quota.dimension, quota.limit = home, Dimension.FANOUT_WIDTH, 5
        quota.save()
    assert len(limits_of(home, None, NOON)) == 5
    for scopes in (
        ["", "key:first", "pipeline:council"],
        ["", "pipeline:synthesis"],
        ["key:second"],
        ["key:nobody", "pipeline:none"],
        [],
    ):
        told = {limit.scope for limit in limits_of(home, scopes, NOON)}
        assert told == set(scopes) - {"key:nobody", "pipeline:none"}


def test_a_quota_of_a_pipeline_counts_what_the_month_had_before_it(home: Workspace) -> None:
    subject = admit(home, pipeline="council")
    pay(subject, Charge("A", tokens=70, closes=True), closes=True)
    Quota.objects.create(
        workspace=home, pipeline="council", dimension=Dimension.TOKENS_PER_DAY, limit=100
    )
    with pytest.raises(QuotaExceeded):
        admit(home, offer((31, 0)), pipeline="council")
    admit(home, offer((31, 0)), pipeline="synthesis")


def test_a_paused_workspace_lets_nothing_in(home: Workspace) -> None:
    home.paused_at, home.paused_reason = NOON, "unpaid"
    home.save()
    with pytest.raises(WorkspacePaused, match="paused"):
        admit(home)
    assert not books()


def test_counters_are_the_sums_of_the_ledger(home: Workspace, limits: Limits) -> None:
    limits(tokens_per_day=10_000)
    first, _second = admit(home), admit(home, offer((3, 4), (5, 6)))
    pay(first, Charge("A", tokens=9, cost_micro_usd=2, closes=True), closes=True)
    told = books()
    for counter in Counter.objects.everywhere():
        recount(counter)
        counter.save()
    assert books() == told
