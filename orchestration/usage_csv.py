"""Runs and use as CSV (RFC 4180, UTF-8), a piece at a time. No prompts and no answers are in it.

Numbers are exact: dollars have the six decimals of micro-dollars, so columns add up to the page.
"""

import csv
import io
from collections.abc import AsyncIterator, Iterable
from datetime import date, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from orchestration.bridge import in_database
from orchestration.domain.spans import Span
from orchestration.run_filter import RunFilter
from orchestration.run_list import RunRow, list_runs
from orchestration.usage import cells_of
from orchestration.usage_sums import Sums
from workspaces.models import Workspace

RUNS_AT_A_TIME: Final = 500

_SUMS: Final = (
    "calls",
    "drafts",
    "cached",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "unpriced",
    "saved_tokens",
    "saved_usd",
    "saved_unpriced",
)
USAGE_COLUMNS: Final = ("day", "model", "part", "pipeline", "member", *_SUMS)
RUN_COLUMNS: Final = (
    "id",
    "started",
    "pipeline",
    "member",
    "status",
    "reason",
    "duration_ms",
    *_SUMS,
)


async def usage_csv(workspace: Workspace, span: Span, wanted: RunFilter) -> AsyncIterator[bytes]:
    """One row for what each member's runs of a pipeline used of a model on a day, newest first."""
    yield _lines([USAGE_COLUMNS])
    for day in reversed(span.days):
        yield _lines(await in_database(_usage_rows, workspace, day, wanted))


def _usage_rows(workspace: Workspace, day: date, wanted: RunFilter) -> list[tuple[Any, ...]]:
    sums: dict[tuple[str, str, str, str], Sums] = {}
    for cell in cells_of(workspace, Span(day, day), wanted):
        key = cell.part, cell.model, cell.pipeline, cell.member
        sums[key] = sums.get(key, Sums()) + cell.sums
    return [
        (day, model, part, pipeline, member, *_sums(sums[part, model, pipeline, member]))
        for part, model, pipeline, member in sorted(sums)
    ]


async def runs_csv(workspace: Workspace, wanted: RunFilter) -> AsyncIterator[bytes]:
    """One row for each run of the list, newest first, with what the filter asks for of it."""
    zone = ZoneInfo(workspace.time_zone)
    yield _lines([RUN_COLUMNS])
    cursor: str | None = ""
    while cursor is not None:
        page, cursor = await in_database(
            list_runs, workspace, wanted, cursor=cursor, limit=RUNS_AT_A_TIME
        )
        yield _lines(_run_row(run, zone) for run in page)


def _run_row(run: RunRow, zone: ZoneInfo) -> tuple[Any, ...]:
    return (
        run.id,
        _seconds(run.created_at, zone),
        run.pipeline,
        run.started_by,
        run.status,
        run.reason,
        run.duration_ms,
        *_sums(run.used),
    )


def _seconds(moment: datetime, zone: ZoneInfo) -> str:
    return moment.astimezone(zone).isoformat(timespec="seconds")


def _sums(sums: Sums) -> tuple[Any, ...]:
    return (
        sums.calls,
        sums.drafts,
        sums.cached,
        sums.input_tokens,
        sums.output_tokens,
        _dollars(sums.cost_micro_usd),
        sums.unpriced,
        sums.saved_tokens,
        _dollars(sums.saved),
        sums.saved_unpriced,
    )


def _dollars(micro_usd: int | None) -> str:
    """Empty where it is not known; never a guess."""
    return "" if micro_usd is None else f"{micro_usd // 1_000_000}.{micro_usd % 1_000_000:06d}"


def _lines(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerows([_defused(cell) for cell in row] for row in rows)
    return text.getvalue().encode()


def _defused(cell: Any) -> Any:
    """A text that a spreadsheet would take for a formula gets an apostrophe in front: names are
    chosen by people, and ``=HYPERLINK(…)`` would run in the spreadsheet of whoever opens it."""
    if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{cell}"
    return cell
