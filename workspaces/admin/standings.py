"""How many workspaces stand against their quotas, in few queries: for lists and the first page."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import F, Prefetch

from workspaces.counting import standings_of
from workspaces.domain.quotas import WORKSPACE, Dimension, Standing, Use, use_of
from workspaces.domain.windows import NOW, windows_at
from workspaces.limits import limit_of
from workspaces.models import Counter, Quota, QuotaOverride, Workspace

NEAR = 0.8
"""The share of a quota from which on an operator should know."""

_CANDIDATES = 200


@dataclass(frozen=True, slots=True)
class Stand:
    """One workspace: its own quotas, not those of its keys and pipelines."""

    uses: Sequence[Use] = field(default=())
    runs: int = 0
    today: Standing = field(default_factory=Standing)
    month: Standing = field(default_factory=Standing)

    @property
    def fullest(self) -> float:
        return max((share(use) for use in self.uses), default=0.0)


def share(use: Use) -> float:
    """How much of a limit is gone, 1.0 for all of it. A limit of 0 is not used up: it is shut."""
    return (use.used + use.reserved) / use.limit.capacity if use.limit.value else 0.0


def stands_of(workspaces: Collection[Workspace], now: datetime) -> Mapping[UUID, Stand]:
    """Every workspace of ``workspaces``. Three queries, however many there are.

    A counter of a workspace as a whole is made with the first admission of its window, so one that
    is missing says that nothing was used.
    """
    windows = {each.pk: windows_at(now, each.time_zone) for each in workspaces}
    spans = {span for each in windows.values() for span in (NOW, each.day, each.month)}
    counters: dict[UUID, dict[tuple[str, str], Counter]] = {each: {} for each in windows}
    for counter in Counter.objects.everywhere().filter(
        workspace__in=windows, scope=WORKSPACE, window__in=spans
    ):
        counters[counter.workspace_id][counter.scope, counter.window] = counter
    quotas: dict[UUID, list[Quota]] = {each: [] for each in windows}
    live = QuotaOverride.objects.filter(expires_at__gt=now, ended_at__isnull=True).order_by("pk")
    for quota in (
        Quota.objects.everywhere()
        .filter(workspace__in=windows, api_key__isnull=True, pipeline="")
        .prefetch_related(Prefetch("overrides", live, to_attr="live_overrides"))
        .order_by("pk")
    ):
        quotas[quota.workspace_id].append(quota)
    found = {}
    for pk, spans_of in windows.items():
        standings = standings_of(counters[pk])
        limits = [limit_of(quota, quota.live_overrides) for quota in quotas[pk]]  # type: ignore[attr-defined]
        found[pk] = Stand(
            uses=tuple(use_of(limit, standings, now, spans_of) for limit in limits),
            runs=standings.get((WORKSPACE, NOW), Standing()).runs,
            today=standings.get((WORKSPACE, spans_of.day), Standing()),
            month=standings.get((WORKSPACE, spans_of.month), Standing()),
        )
    return found


def near_a_quota(now: datetime, at_most: int = 10) -> list[tuple[Workspace, Stand]]:
    """The workspaces that have used most of a quota of their own, the fullest first.

    The database finds candidates by the limits themselves; of those, and of the workspaces with a
    live override, the exact standing is looked at. A handful of queries.
    """
    candidates = set(_near_by_the_rows(now))
    candidates.update(
        QuotaOverride.objects.filter(expires_at__gt=now, ended_at__isnull=True)
        .order_by("-pk")
        .values_list("quota__workspace_id", flat=True)[:_CANDIDATES]
    )
    rows = list(Workspace.objects.filter(pk__in=candidates))
    stands = stands_of(rows, now)
    near = [(row, stands[row.pk]) for row in rows if stands[row.pk].fullest >= NEAR]
    near.sort(key=lambda pair: (-pair[1].fullest, pair[0].name))
    return near[:at_most]


def _near_by_the_rows(now: datetime) -> Iterable[UUID]:
    # Every day and month that it is somewhere on Earth: of the wrong one nothing follows, for the
    # exact standing decides.
    moments = [now + timedelta(hours=hours) for hours in (-12, 0, 14)]
    days = {f"{each:%Y-%m-%d}" for each in moments}
    months = {f"{each:%Y-%m}" for each in moments}
    tokens = F("tokens") + F("tokens_reserved")
    cost = F("cost_micro_usd") + F("cost_reserved_micro_usd")
    for dimension, spans, used in (
        (Dimension.CONCURRENT_RUNS, {NOW}, F("runs") + 0),
        (Dimension.TOKENS_PER_DAY, days, tokens),
        (Dimension.COST_PER_DAY, days, cost),
        (Dimension.COST_PER_MONTH, months, cost),
    ):
        yield from (
            Counter.objects.everywhere()
            .filter(
                scope=WORKSPACE,
                window__in=spans,
                workspace__quotas__api_key__isnull=True,
                workspace__quotas__pipeline="",
                workspace__quotas__dimension=dimension.value,
                workspace__quotas__limit__gt=0,
                workspace__quotas__limit__lte=used * 5 / 4,  # 1 / NEAR, in whole numbers
            )
            .values_list("workspace_id", flat=True)[:_CANDIDATES]
        )
