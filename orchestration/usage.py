"""What a workspace used in a span of days: by model, pipeline, member, day; how long it took.

Each number comes with the filter whose list of runs adds up to it. A breakdown by model counts the
model that was named: an answer that came from its fallback is on its line, at what it cost.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, TypeVar

from django.db.models import Case, Count, F, IntegerField, Q, QuerySet, Value, When, Window
from django.db.models.expressions import Combinable
from django.db.models.functions import RowNumber

from orchestration.domain.errors import sentence_for
from orchestration.domain.run import CallState, RunStatus
from orchestration.domain.spans import Span, begin_of
from orchestration.run_filter import ANSWERS, SYNTHESIS, RunFilter, calls_of, drafts_of, runs_of
from orchestration.usage_sums import (
    REPLAYS,
    Sums,
    asked_model,
    from_cache,
    read_sums,
    sums_of_cached,
    sums_of_calls,
    sums_of_drafts,
)
from workspaces.models import Workspace

PERCENTS: Final = (50, 95)

Key = TypeVar("Key")
Percentiles = tuple[int, int] | tuple[None, None]
"""p50 and p95."""

_UNMEASURED: Final = (None, None)


@dataclass(frozen=True, slots=True)
class Cell:
    """A part of what one member's runs of one pipeline used of one model; several add up to it."""

    pipeline: str
    member: str
    model: str
    part: str
    sums: Sums


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a table. ``runs`` is None in the breakdown by model, where a run is in several."""

    name: str
    wanted: RunFilter
    sums: Sums
    runs: int | None = None


@dataclass(frozen=True, slots=True)
class Failures:
    """What an error kind ended: ``runs`` that it ended or that had a part it ended."""

    kind: str
    sentence: str
    wanted: RunFilter
    runs: int
    calls: int
    drafts: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Exact p50 and p95 in milliseconds by nearest rank: the smallest value that at least so many
    percent do not exceed; None where none has one. ``count`` runs or calls were measured."""

    name: str
    wanted: RunFilter
    count: int
    first_ms: Percentiles
    whole_ms: Percentiles


@dataclass(frozen=True, slots=True)
class Usage:
    """``wanted`` has the span as its ``since`` and ``until``."""

    span: Span
    wanted: RunFilter
    runs: int
    totals: Sums
    by_status: list[Line]
    by_day: list[Line]
    by_model: list[Line]
    by_pipeline: list[Line]
    by_member: list[Line]
    failures: list[Failures]
    of_runs: list[Latency]
    of_models: list[Latency]


def usage_of(workspace: Workspace, span: Span, wanted: RunFilter) -> Usage:
    """About a dozen queries; what is loaded grows with days, models, pipelines and members, not
    with runs."""
    wanted = wanted.but(since=span.first, until=span.last)
    cells = list(cells_of(workspace, span, wanted))
    runs = _runs_by(workspace, span, wanted)
    members = _sums_by(cells, lambda cell: cell.member)
    pipelines = _sums_by(cells, lambda cell: cell.pipeline)
    days = _sums_by_day(workspace, span, wanted)
    return Usage(
        span=span,
        wanted=wanted,
        runs=runs["day"].total(),
        totals=sum(days.values(), Sums()),
        by_status=_lines_of_statuses(wanted, runs["status"]),
        by_day=_lines_of_days(wanted, span, days, runs["day"]),
        by_model=_lines_of_models(wanted, cells),
        by_pipeline=_lines(wanted, pipelines, runs["pipeline"], "pipeline"),
        by_member=_lines(wanted, members, runs["member"], "member"),
        failures=_failures(workspace, wanted),
        of_runs=_latencies_of_runs(workspace, wanted),
        of_models=_latencies_of_models(workspace, wanted),
    )


def cells_of(workspace: Workspace, span: Span, wanted: RunFilter) -> Iterator[Cell]:
    """Three queries: of the calls, of what the cache saved, of the drafts."""
    keys = {
        "pipeline": F("run__pipeline"),
        "member": F("run__started_by"),
        "asked": asked_model(),
    }
    for part, row in _grouped(workspace, span, wanted, keys):
        yield Cell(row["pipeline"], row["member"], row["asked"], part, read_sums(row))


def _sums_by_day(workspace: Workspace, span: Span, wanted: RunFilter) -> dict[date, Sums]:
    keys = {"day": _day_within(span, workspace.time_zone, "run__created_at")}
    days, sums = span.days, dict[date, Sums]()
    for _, row in _grouped(workspace, span, wanted, keys):
        day = days[row["day"]]
        sums[day] = sums.get(day, Sums()) + read_sums(row)
    return sums


def _grouped(
    workspace: Workspace, span: Span, wanted: RunFilter, keys: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(part, row of aggregates) for each of ``keys``."""
    wanted = wanted.but(since=span.first, until=span.last)
    calls, drafts = calls_of(workspace, wanted), drafts_of(workspace, wanted)
    sources: tuple[tuple[str, QuerySet[Any], dict[str, Any]], ...] = (
        (ANSWERS, calls, sums_of_calls()),
        (ANSWERS, from_cache(calls), sums_of_cached()),
        (SYNTHESIS, drafts, sums_of_drafts()),
    )
    for part, rows, sums in sources:
        for row in rows.order_by().annotate(**keys).values(*keys).annotate(**sums):
            yield part, row


def _day_within(span: Span, zone: str, field: str) -> Combinable:
    """Which day of ``span`` a moment lies in, counted from 0. Compared with the days' beginnings,
    the very moments a link to that day asks for, in a zone that the database need not know."""
    begins = [begin_of(day, zone) for day in span.days]

    def between(low: int, high: int) -> Combinable:
        # By halves: nine comparisons find a day of a year, one by one they would be hundreds.
        if high - low == 1:
            return Value(low)
        middle = (low + high) // 2
        later = When(**{f"{field}__gte": begins[middle]}, then=between(middle, high))
        return Case(later, default=between(low, middle), output_field=IntegerField())

    return between(0, len(begins))


def _runs_by(workspace: Workspace, span: Span, wanted: RunFilter) -> Mapping[str, Counter[Any]]:
    """How many runs there are, by each of what a run has one of. One query."""
    keys = {
        "day": _day_within(span, workspace.time_zone, "created_at"),
        "member": F("started_by"),
    }
    names = (*keys, "pipeline", "status")
    rows = runs_of(workspace, wanted).order_by().annotate(**keys).values(*names)
    counts: dict[str, Counter[Any]] = {name: Counter() for name in names}
    days = span.days
    for row in rows.annotate(count=Count("pk")):
        for name in names:
            counts[name][days[row[name]] if name == "day" else row[name]] += row["count"]
    return counts


def _lines(
    wanted: RunFilter, sums: Mapping[str, Sums], runs: Mapping[str, int], field: str
) -> list[Line]:
    names = sums.keys() | runs.keys()
    return _by_cost(
        Line(name, wanted.but(**{field: name}), sums.get(name, Sums()), runs.get(name, 0))
        for name in names
    )


def _lines_of_days(
    wanted: RunFilter, span: Span, sums: Mapping[date, Sums], runs: Mapping[date, int]
) -> list[Line]:
    """Every day, also those on which nothing was asked; the newest first."""
    return [
        Line(
            day.isoformat(),
            wanted.but(since=day, until=day),
            sums.get(day, Sums()),
            runs.get(day, 0),
        )
        for day in reversed(span.days)
    ]


def _lines_of_models(wanted: RunFilter, cells: Iterable[Cell]) -> list[Line]:
    """The models that answered, then those that wrote the synthesis: their sum is the total."""
    sums = _sums_by(cells, lambda cell: (cell.part, cell.model))
    return [
        line
        for part in (ANSWERS, SYNTHESIS)
        for line in _by_cost(
            Line(model, wanted.but(model=_narrowest(wanted, model), part=part), sums[of, model])
            for of, model in sums
            if of == part
        )
    ]


def _narrowest(wanted: RunFilter, model: str) -> str:
    """All recordings are one line, but where one of them is asked for, it is of that one."""
    return wanted.model or model if model == REPLAYS else model


def _lines_of_statuses(wanted: RunFilter, runs: Mapping[str, int]) -> list[Line]:
    return [
        Line(status, wanted.but(status=str(status)), Sums(), runs[status])
        for status in RunStatus
        if status in runs
    ]


def _sums_by(cells: Iterable[Cell], key: Callable[[Cell], Key]) -> dict[Key, Sums]:
    sums: dict[Key, Sums] = {}
    for cell in cells:
        sums[key(cell)] = sums.get(key(cell), Sums()) + cell.sums
    return sums


def _by_cost(lines: Iterable[Line]) -> list[Line]:
    def weight(line: Line) -> tuple[int, int, int, str]:
        sums = line.sums
        tokens = sums.input_tokens + sums.output_tokens
        return -sums.known_micro_usd, -tokens, -sums.calls - sums.drafts, line.name

    return sorted(lines, key=weight)


def _failures(workspace: Workspace, wanted: RunFilter) -> list[Failures]:
    calls, drafts, runs = (
        dict(
            rows.filter(reason__isnull=False)
            .order_by()
            .values_list("reason")
            .annotate(count=Count("pk"))
        )
        for rows in (
            calls_of(workspace, wanted),
            drafts_of(workspace, wanted),
            runs_of(workspace, wanted),
        )
    )
    kinds = calls.keys() | drafts.keys() | runs.keys()
    found = []
    for kind in {wanted.reason} & kinds if wanted.reason else kinds:
        touched = wanted.but(reason=kind)
        count = runs_of(workspace, touched).count()
        found.append(
            Failures(
                kind, sentence_for(kind), touched, count, calls.get(kind, 0), drafts.get(kind, 0)
            )
        )
    return sorted(found, key=lambda each: (-each.runs, each.kind))


def _latencies_of_runs(workspace: Workspace, wanted: RunFilter) -> list[Latency]:
    """Of runs that ended with an answer, by how they ended."""
    rows = runs_of(workspace, wanted).filter(status__in=(RunStatus.DONE, RunStatus.DEGRADED))
    return _latencies(
        rows, "status", ("ttfs_ms", "duration_ms"), lambda status: wanted.but(status=status)
    )


def _latencies_of_models(workspace: Workspace, wanted: RunFilter) -> list[Latency]:
    """Of complete answers. How fast one came out of the cache says nothing about its model."""
    done = wanted.but(part=ANSWERS, state=str(CallState.DONE), cached=False)
    rows = calls_of(workspace, done)
    if wanted.part == SYNTHESIS or wanted.cached or wanted.state not in ("", CallState.DONE):
        return []
    return _latencies(
        rows.annotate(asked=asked_model()),
        "asked",
        ("first_token_ms", "duration_ms"),
        lambda model: done.but(model=_narrowest(wanted, model)),
    )


def _latencies(
    rows: QuerySet[Any], key: str, fields: tuple[str, str], wanted: Callable[[str], RunFilter]
) -> list[Latency]:
    counts = dict(rows.order_by().values_list(key).annotate(count=Count("pk")))
    first, whole = (_percentiles(rows, key, field) for field in fields)
    return [
        Latency(
            name,
            wanted(name),
            counts[name],
            first.get(name, _UNMEASURED),
            whole.get(name, _UNMEASURED),
        )
        for name in sorted(counts, key=lambda name: (-counts[name], name))
    ]


def _percentiles(rows: QuerySet[Any], key: str, field: str) -> dict[str, Percentiles]:
    """p50 and p95 of ``field`` for each ``key``, by nearest rank. One query, two rows a key."""
    ranks = [(F("of") * percent + 99) / 100 for percent in PERCENTS]
    ranked = (
        rows.filter(**{f"{field}__isnull": False})
        .order_by()
        .annotate(
            rank=Window(RowNumber(), partition_by=F(key), order_by=[F(field).asc(), F("pk").asc()]),
            of=Window(Count("pk"), partition_by=F(key)),
        )
        .filter(Q(rank=ranks[0]) | Q(rank=ranks[1]))
        .values_list(key, field)
    )
    values: dict[str, list[int]] = {}
    for name, value in ranked:
        values.setdefault(name, []).append(value)
    return {name: (min(each), max(each)) for name, each in values.items()}
