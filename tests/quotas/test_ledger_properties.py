"""The property test of the ledger: whatever happens in whatever order, the books are right.

Hypothesis makes runs, charges, endings, changes of quotas and of the time, against the real
database; a model of a few lines says what must be true. After every commit: settled + reserved ≤
budget, runs at once ≤ limit, counters = sums of the ledger; what is refused has consumed nothing;
and when everything has ended nothing is held. docs/adr/0006-reserve-then-settle.md
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from workspaces.access import actor_from_key
from workspaces.actions.issue_key import issue_key
from workspaces.actions.reserve import QuotaExceeded, reserve
from workspaces.actions.settle import Charge, settle
from workspaces.counting import SUMS, recount
from workspaces.domain.gcra import judge
from workspaces.domain.quotas import (
    BUDGETS,
    Dimension,
    Hold,
    Limit,
    Offer,
    key_scope,
    pipeline_scope,
)
from workspaces.domain.windows import Windows, windows_at
from workspaces.models import ApiKey, Counter, Lease, Quota, Reservation, Workspace

BEGIN = datetime(2026, 11, 29, 22, tzinfo=UTC)  # a month's end is near in every zone
ZONES = ["UTC", "Pacific/Auckland", "America/St_Johns"]
PIPELINES = ["synthesis", "council"]
LABELS = "ABC"

amounts = st.integers(0, 40)
holds = st.lists(st.tuples(amounts, amounts), min_size=1, max_size=len(LABELS))
tight = st.integers(40, 90)  # there is room for a run or two, and then for none
limits = st.one_of(
    st.tuples(st.sampled_from(sorted(BUDGETS)), tight),
    st.tuples(st.sampled_from(sorted(set(Dimension) - BUDGETS)), st.sampled_from([0, 1, 1, 2, 3])),
)


@dataclass
class Held:
    """A lease, as the model has it: (tokens, micro-dollars)."""

    bound: tuple[int, int]
    reserved: tuple[int, int]
    used: tuple[int, int] = (0, 0)
    open: bool = True


@dataclass
class Work:
    """A run, as the model has it."""

    subject: UUID
    scopes: list[str]
    windows: Windows
    leases: dict[str, Held]
    open: bool = True

    def sums(self) -> tuple[int, int]:
        """What it has used and holds, of tokens and of money."""
        tokens, money = (
            sum(each.used[unit] + each.reserved[unit] for each in self.leases.values())
            for unit in (0, 1)
        )
        return tokens, money


@dataclass
class Ledger:
    """What should be so: the quotas that are set, all work there ever was, and when the next
    request is due."""

    quotas: dict[tuple[str, Dimension], int] = field(default_factory=dict)
    works: list[Work] = field(default_factory=list)
    tats: dict[str, datetime] = field(default_factory=dict)

    def runs(self, scope: str) -> int:
        return sum(each.open for each in self.works if scope in each.scopes)

    def spent(self, scope: str, dimension: Dimension, windows: Windows) -> int:
        """Settled and reserved."""
        return sum(
            each.sums()[_unit(dimension)]
            for each in self.works
            if scope in each.scopes and dimension.window(each.windows) == dimension.window(windows)
        )

    def limits(self, scopes: list[str]) -> Mapping[tuple[str, Dimension], int]:
        return {key: limit for key, limit in self.quotas.items() if key[0] in scopes}

    def fits(self, scopes: list[str], windows: Windows, asked: tuple[int, int]) -> bool:
        """Whether budgets have room for so much more."""
        return all(
            not asked[_unit(dimension)]
            or self.spent(scope, dimension, windows) + asked[_unit(dimension)] <= limit
            for (scope, dimension), limit in self.limits(scopes).items()
            if dimension in BUDGETS
        )

    def admits(self, scopes: list[str], windows: Windows, offer: Offer, now: datetime) -> bool:
        for (scope, dimension), limit in self.limits(scopes).items():
            if dimension is Dimension.CONCURRENT_RUNS and self.runs(scope) >= limit:
                return False
            if dimension is Dimension.FANOUT_WIDTH and offer.width > limit:
                return False
            if dimension is Dimension.REQUESTS_PER_MINUTE and not (
                limit and judge(_rate(limit), self.tats.get(scope), now).allowed
            ):
                return False
        return self.fits(scopes, windows, (offer.tokens, offer.cost_micro_usd))


def _unit(dimension: Dimension) -> int:
    return 0 if dimension is Dimension.TOKENS_PER_DAY else 1


def _rate(limit: int) -> Any:
    return Limit(Dimension.REQUESTS_PER_MINUTE, "", limit).rate


class Books(RuleBasedStateMachine):
    works = Bundle("works")

    @initialize(zone=st.sampled_from(ZONES), budget=tight, other=tight)
    def open_a_workspace(self, zone: str, budget: int, other: int) -> None:
        self.home = Workspace.objects.create(slug=uuid4().hex, name="Acme", time_zone=zone)
        actor = actor_from_key(issue_key(workspace=self.home, name="a key"))
        assert actor is not None
        assert actor.api_key is not None
        self.key: ApiKey = actor.api_key
        self.now, self.model = BEGIN, Ledger()
        # The most a budget or a slot may be seen at: its limit, or more where the limit was
        # lowered below what was used, or where a provider counted more than it was asked for.
        self.excused: dict[tuple[str, Dimension, str], int] = defaultdict(int)
        self._set_quota("", Dimension.COST_PER_MONTH, budget)
        self._set_quota("key", Dimension.TOKENS_PER_DAY, other)
        self._set_quota("council", Dimension.CONCURRENT_RUNS, 1)

    # --- what happens ----------------------------------------------------------------------------

    @rule(hours=st.sampled_from([0.001, 0.01, 0.2, 3, 26]))
    def time_passes(self, hours: float) -> None:
        self.now += timedelta(hours=hours)

    @rule(of=st.sampled_from(["", "key", *PIPELINES]), limit=limits)
    def a_quota_is_set(self, of: str, limit: tuple[Dimension, int]) -> None:
        self._set_quota(of, *limit)

    @precondition(lambda self: self.model.quotas)
    @rule(data=st.data())
    def a_quota_is_taken_away(self, data: st.DataObject) -> None:
        scope, dimension = data.draw(st.sampled_from(sorted(self.model.quotas)))
        for quota in Quota.objects.in_workspace(self.home).filter(dimension=dimension):
            if quota.scope == scope:
                quota.delete()
        del self.model.quotas[scope, dimension]

    @rule(
        target=works,
        asked=holds,
        pipeline=st.sampled_from(PIPELINES),
        by_key=st.booleans(),
        shrinks=st.booleans(),
    )
    def work_is_asked_for(
        self, asked: list[tuple[int, int]], pipeline: str, by_key: bool, shrinks: bool
    ) -> Any:
        named = [Hold(label, *each) for label, each in zip(LABELS, asked, strict=False)]
        widths = range(len(named), 0, -1) if shrinks else (len(named),)
        offers = [Offer(width, tuple(named[:width])) for width in widths]
        windows = windows_at(self.now, self.home.time_zone)
        scopes = ["", *([key_scope(self.key.lineage)] if by_key else []), pipeline_scope(pipeline)]
        fitting = [
            index
            for index, offer in enumerate(offers)
            if self.model.admits(scopes, windows, offer, self.now)
        ]
        subject = uuid4()
        if not fitting:
            with self._unchanged(), pytest.raises(QuotaExceeded) as refused, transaction.atomic():
                self._reserve(subject, pipeline, by_key, offers)
            self._waiting_is_enough(refused.value, scopes, offers[-1])
            return multiple()
        with transaction.atomic():
            admission = self._reserve(subject, pipeline, by_key, offers)
        assert admission.offer == fitting[0]
        for scope, dimension in self.model.limits(scopes):
            if dimension is Dimension.REQUESTS_PER_MINUTE:
                rate = _rate(self.model.quotas[scope, dimension])
                self.model.tats[scope] = judge(rate, self.model.tats.get(scope), self.now).tat
        held = {
            each.name: Held((each.tokens, each.cost_micro_usd), (each.tokens, each.cost_micro_usd))
            for each in offers[admission.offer].holds
        }
        work = Work(subject, scopes, windows, held)
        self.model.works.append(work)
        return work

    @rule(
        work=works,
        number=st.integers(0, len(LABELS) - 1),
        used=st.tuples(amounts, amounts),
        then=st.sampled_from(["goes on", "ends", "is tried again", "is tried again"]),
    )
    def a_call_tells_what_it_used(
        self, work: Work, number: int, used: tuple[int, int], then: str
    ) -> None:
        label = LABELS[number % len(work.leases)]
        self._charge(
            work, Charge(label, *used, closes=then == "ends", renews=then == "is tried again")
        )

    @rule(work=consumes(works), used=st.tuples(amounts, amounts))
    def work_ends(self, work: Work, used: tuple[int, int]) -> None:
        self._charge(work, Charge("A", *used, closes=True), closes=True)
        # Whoever ends it again (a sweep, a driver that lost it) finds nothing to do.
        with self._unchanged():
            self._charge(work, Charge("A", *used, closes=True), closes=True)

    @rule(work=consumes(works))
    def work_is_given_up(self, work: Work) -> None:
        self._charge(work, closes=True)

    @rule()
    def the_sums_are_lost(self) -> None:
        """What is counted over a day or a month can be made again from the ledger."""
        Counter.objects.in_workspace(self.home).exclude(window="").delete()

    # --- what is true after each of them ---------------------------------------------------------

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        for (scope, dimension), limit in self.model.quotas.items():
            if dimension is Dimension.CONCURRENT_RUNS:
                open_ones = self._reservations(scope).filter(closed_at__isnull=True).count()
                assert open_ones <= limit + self.excused[scope, dimension, ""]
            if dimension in BUDGETS:
                for window, spent in self._spent_by_window(scope, dimension).items():
                    assert spent <= limit + self.excused[scope, dimension, window]

    @invariant()
    def counters_are_sums_of_the_ledger(self) -> None:
        for counter in Counter.objects.in_workspace(self.home):
            told = [counter.runs, *(getattr(counter, name) for name in SUMS)]
            recount(counter)
            assert told == [counter.runs, *(getattr(counter, name) for name in SUMS)]

    @invariant()
    def the_ledger_is_what_happened(self) -> None:
        leases = Lease.objects.filter(reservation__workspace=self.home).select_related(
            "reservation"
        )
        booked = {
            (each.reservation.subject, each.name): Held(
                bound=(each.bound_tokens, each.bound_micro_usd),
                reserved=(each.reserved_tokens, each.reserved_micro_usd),
                used=(each.tokens, each.cost_micro_usd),
                open=each.closed_at is None,
            )
            for each in leases
        }
        assert booked == {
            (work.subject, name): held
            for work in self.model.works
            for name, held in work.leases.items()
        }

    def teardown(self) -> None:
        """When everything has ended nothing is held, and nobody waits for a slot."""
        if not hasattr(self, "home"):
            return
        for work in self.model.works:
            self._charge(work, closes=True)
        for counter in Counter.objects.in_workspace(self.home):
            assert (counter.runs, counter.tokens_reserved, counter.cost_reserved_micro_usd) == (
                (0, 0, 0)
            )
        assert not Reservation.objects.in_workspace(self.home).filter(closed_at=None).exists()
        self.the_ledger_is_what_happened()

    # --- helpers ---------------------------------------------------------------------------------

    def _set_quota(self, of: str, dimension: Dimension, limit: int) -> None:
        key, pipeline = (self.key, "") if of == "key" else (None, of)
        quota, _ = Quota.objects.update_or_create(
            workspace=self.home,
            api_key=key,
            pipeline=pipeline,
            dimension=dimension,
            defaults={"limit": limit},
        )
        self.model.quotas[quota.scope, dimension] = limit
        # What there is already may be more than a limit that is new.
        for name in [name for name in self.excused if name[:2] == (quota.scope, dimension)]:
            del self.excused[name]
        if dimension is Dimension.CONCURRENT_RUNS:
            self._excuse(quota.scope, dimension, "", self.model.runs(quota.scope) - limit)
        if dimension in BUDGETS:
            for windows in {each.windows for each in self.model.works}:
                excess = self.model.spent(quota.scope, dimension, windows) - limit
                self._excuse(quota.scope, dimension, dimension.window(windows), excess)

    def _reserve(self, subject: UUID, pipeline: str, by_key: bool, offers: list[Offer]) -> Any:
        return reserve(
            workspace=self.home,
            subject=subject,
            api_key=self.key if by_key else None,
            pipeline=pipeline,
            offers=offers,
            now=self.now,
        )

    def _charge(self, work: Work, *charges: Charge, closes: bool = False) -> None:
        """Settle, and expect of the model the same."""
        before = self._spent_by_model(work)
        with transaction.atomic():
            refused = settle(subject=work.subject, charges=charges, closes=closes)
        expected = set()
        for charge in charges:
            held = work.leases.get(charge.lease)
            if not work.open or held is None or not held.open:
                continue
            used = (charge.tokens, charge.cost_micro_usd)
            held.used = _sum(held.used, used)
            held.reserved = (
                max(0, held.reserved[0] - used[0]),
                max(0, held.reserved[1] - used[1]),
            )
            # Only what was used beyond what was held may push a budget over its limit.
            for key, spent in self._spent_by_model(work).items():
                self._excuse(*key, spent - before[key])
            if charge.renews:
                missing = (
                    held.bound[0] - held.reserved[0],
                    held.bound[1] - held.reserved[1],
                )
                if self.model.fits(work.scopes, work.windows, missing):
                    held.reserved = held.bound
                else:
                    expected.add(charge.lease)
            if charge.closes:
                held.open, held.reserved = False, (0, 0)
        if closes:
            work.open = False
            for held in work.leases.values():
                held.open, held.reserved = False, (0, 0)
        assert refused == expected

    def _excuse(self, scope: str, dimension: Dimension, window: str, excess: int) -> None:
        self.excused[scope, dimension, window] += max(0, excess)

    def _spent_by_model(self, work: Work) -> dict[tuple[str, Dimension, str], int]:
        return {
            (scope, dimension, dimension.window(work.windows)): self.model.spent(
                scope, dimension, work.windows
            )
            for scope, dimension in self.model.limits(work.scopes)
            if dimension in BUDGETS
        }

    def _reservations(self, scope: str) -> Any:
        kind, _, name = scope.partition(":")
        named = {"key": {"key_public": name}, "pipeline": {"pipeline": name}}.get(kind, {})
        return Reservation.objects.in_workspace(self.home).filter(**named)

    def _spent_by_window(self, scope: str, dimension: Dimension) -> dict[str, int]:
        """Settled and reserved, read from the leases."""
        month = dimension is Dimension.COST_PER_MONTH
        spent: dict[str, int] = defaultdict(int)
        for lease in Lease.objects.filter(reservation__in=self._reservations(scope)).select_related(
            "reservation"
        ):
            window = lease.reservation.month if month else lease.reservation.day
            spent[window] += (
                lease.tokens + lease.reserved_tokens
                if dimension is Dimension.TOKENS_PER_DAY
                else lease.cost_micro_usd + lease.reserved_micro_usd
            )
        return spent

    def _waiting_is_enough(self, refused: QuotaExceeded, scopes: list[str], offer: Offer) -> None:
        """Where all that is in the way renews with time, it has after ``retry_after_s``; where no
        waiting is said to help, the emptiest books would not do."""
        after_s = refused.refusal.retry_after_s
        if after_s is None:
            empty = Ledger(quotas=self.model.quotas)
            windows = windows_at(self.now, self.home.time_zone)
            assert not empty.admits(scopes, windows, offer, self.now)
        elif not any(each.open for each in self.model.works):
            later = self.now + timedelta(seconds=after_s)
            windows = windows_at(later, self.home.time_zone)
            assert self.model.admits(scopes, windows, offer, later)

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Not one number of the books changes."""
        before = self._books()
        yield
        assert self._books() == before

    def _books(self) -> list[Any]:
        # Counters that say nothing yet may be made by anybody who looks.
        return [
            list(Reservation.objects.in_workspace(self.home).order_by("pk").values()),
            list(Lease.objects.filter(reservation__workspace=self.home).order_by("pk").values()),
            list(Counter.objects.in_workspace(self.home).order_by("scope", "window").values()),
        ]


def _sum(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]


@pytest.mark.django_db
def test_whatever_happens_in_whatever_order_the_books_are_right() -> None:
    run_state_machine_as_test(
        Books,
        settings=settings(
            max_examples=30,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
