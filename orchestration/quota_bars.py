"""The workspace's quotas as the usage page draws them: how each stands, and where it is going."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from django.db.models import Sum
from django.db.models.functions import TruncHour

from orchestration.domain.forecast import (
    HOUR,
    LEAST_DAYS,
    Forecast,
    forecast_at_pace,
    forecast_day,
)
from orchestration.domain.spans import begin_of, today_in
from orchestration.run_filter import RunFilter
from workspaces.domain.quotas import BUDGETS, MONEY, Dimension, Use, split_scope
from workspaces.models import ApiKey, Lease, Workspace
from workspaces.standing import uses_of

PAST_DAYS: Final = 7
_ORDER: Final = (
    Dimension.COST_PER_DAY,
    Dimension.COST_PER_MONTH,
    Dimension.TOKENS_PER_DAY,
    Dimension.CONCURRENT_RUNS,
    Dimension.REQUESTS_PER_MINUTE,
    Dimension.FANOUT_WIDTH,
)


@dataclass(frozen=True, slots=True)
class QuotaBar:
    """``wanted`` asks for the runs that used it, where a filter can. ``forecast`` is None where
    there is too little to tell by."""

    use: Use
    whose: str
    wanted: RunFilter | None
    forecast: Forecast | None

    @property
    def is_money(self) -> bool:
        return self.use.limit.dimension in MONEY

    @property
    def is_budget(self) -> bool:
        return self.use.limit.dimension in BUDGETS

    @property
    def percent(self) -> float:
        """How much of it is used or reserved; of nothing, all is."""
        limit = self.use.limit.capacity
        return 100 * (self.use.used + self.use.reserved) / limit if limit else 100.0


@dataclass(frozen=True, slots=True)
class Held:
    """What runs under way have reserved and not used."""

    tokens: int
    cost_micro_usd: int


def held_in(workspace: Workspace) -> Held:
    sums = Lease.objects.filter(
        reservation__workspace=workspace,
        reservation__closed_at__isnull=True,
        closed_at__isnull=True,
    ).aggregate(tokens=Sum("reserved_tokens"), cost=Sum("reserved_micro_usd"))
    return Held(sums["tokens"] or 0, sums["cost"] or 0)


def quota_bars(workspace: Workspace, now: datetime) -> list[QuotaBar]:
    """Every quota, as the ledger has it; the widest scopes first."""
    uses = sorted(uses_of(workspace, now=now), key=_order)
    keys = _keys_by_lineage(workspace) if any(use.limit.scope for use in uses) else {}
    past = _Past.of(workspace, now) if any(_foretold(use) for use in uses) else None
    return [
        QuotaBar(
            use=use,
            whose=_whose(use, keys),
            wanted=_wanted(use, keys, today_in(workspace.time_zone, now)),
            forecast=past.forecast(use, now) if past and _foretold(use) else None,
        )
        for use in uses
    ]


def _order(use: Use) -> tuple[str, int]:
    return use.limit.scope, _ORDER.index(use.limit.dimension)


def _foretold(use: Use) -> bool:
    return use.limit.dimension in BUDGETS and 0 < use.used < use.limit.value


def _keys_by_lineage(workspace: Workspace) -> Mapping[str, Sequence[ApiKey]]:
    """The keys that count together, the newest last: rotation replaces a key, not its quotas."""
    keys = defaultdict(list)
    for key in ApiKey.objects.in_workspace(workspace).order_by("pk"):
        keys[key.lineage].append(key)
    return keys


def _whose(use: Use, keys: Mapping[str, Sequence[ApiKey]]) -> str:
    kind, name = split_scope(use.limit.scope)
    if kind == "key":
        found = keys.get(name or "")
        return f"key {found[-1].name}" if found else "a key that is gone"
    return f"pipeline {name}" if kind == "pipeline" else ""


def _wanted(use: Use, keys: Mapping[str, Sequence[ApiKey]], today: date) -> RunFilter | None:
    if use.limit.dimension not in BUDGETS:
        return None
    month = use.limit.dimension is Dimension.COST_PER_MONTH
    wanted = RunFilter(since=today.replace(day=1) if month else today, until=today)
    kind, name = split_scope(use.limit.scope)
    if kind == "pipeline":
        return wanted.but(pipeline=name)
    if kind == "key":
        found = keys.get(name or "", [])
        # The list is of one member; runs of the key before a rotation are another's.
        return wanted.but(member=f"key {found[0].public}") if len(found) == 1 else None
    return wanted


@dataclass(frozen=True, slots=True)
class _Past:
    """The whole days before today, by the ledger: (hour, scope) → (tokens, micro-dollars)."""

    zone: str
    begin: datetime
    hours: Mapping[tuple[datetime, str], tuple[int, int]]

    @classmethod
    def of(cls, workspace: Workspace, now: datetime) -> "_Past":
        today = today_in(workspace.time_zone, now)
        begin = begin_of(today, workspace.time_zone)
        rows = (
            Lease.objects.filter(
                reservation__workspace=workspace,
                reservation__created_at__gte=begin_of(
                    today - timedelta(days=PAST_DAYS), workspace.time_zone
                ),
                reservation__created_at__lt=begin,
            )
            .annotate(hour=TruncHour("reservation__created_at", tzinfo=UTC))
            .values("hour", "reservation__key_public", "reservation__pipeline")
            .annotate(sum_tokens=Sum("tokens"), sum_cost=Sum("cost_micro_usd"))
        )
        hours: dict[tuple[datetime, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
        for row in rows:
            key, pipeline = row["reservation__key_public"], row["reservation__pipeline"]
            for scope in ("", f"pipeline:{pipeline}", *([f"key:{key}"] if key else [])):
                tokens, cost = hours[row["hour"], scope]
                hours[row["hour"], scope] = tokens + row["sum_tokens"], cost + row["sum_cost"]
        return cls(workspace.time_zone, begin, hours)

    def forecast(self, use: Use, now: datetime) -> Forecast | None:
        """Of a day, by how the days before were spread over their hours, evenly where there are too
        few of them; of a month, at the pace of those days."""
        place = ZoneInfo(self.zone)
        money = use.limit.dimension in MONEY
        amounts = [
            (hour.astimezone(place), pair[money])
            for (hour, scope), pair in self.hours.items()
            if scope == use.limit.scope and pair[money]
        ]
        days = {hour.date() for hour, _ in amounts}
        assert use.renews_at is not None, "a budget renews"
        if use.limit.dimension is Dimension.COST_PER_MONTH:
            return self._of_month(use, now, amounts, days)
        return forecast_day(
            used=use.used,
            limit=use.limit.value,
            begin=self.begin,
            now=now,
            weights=self._weights(use.renews_at, amounts if len(days) >= LEAST_DAYS else []),
        )

    def _weights(self, end: datetime, amounts: Iterable[tuple[datetime, int]]) -> Sequence[float]:
        """One for each hour of today, of which there are 23 or 25 where clocks change."""
        by_hour: dict[int, float] = defaultdict(float)
        for hour, amount in amounts:
            by_hour[hour.hour] += amount
        place = ZoneInfo(self.zone)
        hours = [self.begin + n * HOUR for n in range(round((end - self.begin) / HOUR))]
        return [by_hour[hour.astimezone(place).hour] if by_hour else 1.0 for hour in hours]

    def _of_month(
        self,
        use: Use,
        now: datetime,
        amounts: Sequence[tuple[datetime, int]],
        days: set[date],
    ) -> Forecast | None:
        if len(days) < LEAST_DAYS:
            return None
        # Days before the first that used anything were before its time, not quiet ones.
        counted = (today_in(self.zone, now) - min(days)).days
        assert use.renews_at is not None, "a budget renews"
        return forecast_at_pace(
            used=use.used,
            limit=use.limit.value,
            now=now,
            end=use.renews_at,
            per_day=sum(amount for _, amount in amounts) / counted,
        )
