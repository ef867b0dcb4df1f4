"""The list of runs, page by page. Everything is scoped to one workspace."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from django.db.models import Count, Q
from django.urls import reverse

from orchestration.domain.run import CALL_ANSWERED
from orchestration.models import Call, Run, Synthesis
from orchestration.run_filter import RunFilter, runs_of, wanted_calls, wanted_drafts
from orchestration.usage_sums import (
    Sums,
    from_cache,
    read_sums,
    sums_of_cached,
    sums_of_calls,
    sums_of_drafts,
)
from workspaces.models import Workspace

PAGE_SIZE: Final = 30

EVERY_RUN: Final = RunFilter()
NOTHING: Final = Sums()


class BadCursor(ValueError):
    """A cursor that no page of the list gave."""


@dataclass(frozen=True, slots=True)
class RunRow:
    """One line of the list of runs. ``used`` is of the parts the filter asks for."""

    id: UUID
    url: str
    prompt_preview: str
    status: str
    reason: str | None
    pipeline: str
    started_by: str
    created_at: datetime
    duration_ms: int | None
    answers: str
    cost_micro_usd: int | None
    used: Sums = NOTHING

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"used": self.used.as_json()}


def list_runs(
    workspace: Workspace,
    wanted: RunFilter = EVERY_RUN,
    *,
    cursor: str = "",
    limit: int = PAGE_SIZE,
) -> tuple[list[RunRow], str | None]:
    """Newest first, and the cursor of the next page or None; raises BadCursor. Five queries."""
    rows = runs_of(workspace, wanted)
    if cursor:
        created_at, pk = _read_cursor(cursor)
        rows = rows.filter(Q(created_at__lt=created_at) | Q(created_at=created_at, pk__lt=pk))
    page = list(rows.order_by("-created_at", "-pk")[: limit + 1])
    following = None
    if len(page) > limit:
        page.pop()
        following = f"{page[-1].created_at.isoformat()}~{page[-1].pk}"
    return _rows(wanted, page), following


def _rows(wanted: RunFilter, page: list[Run]) -> list[RunRow]:
    # Sums are asked for by the ids of one page: joined to the list, every run would be summed up
    # before the first thirty are shown.
    ids = [run.pk for run in page]
    answers = {
        row["run_id"]: f"{row['answered']}/{row['asked']}"
        for row in Call.objects.filter(run__in=ids)
        .order_by()
        .values("run_id")
        .annotate(asked=Count("pk"), answered=Count("pk", filter=Q(state__in=CALL_ANSWERED)))
    }
    calls = wanted_calls(Call.objects.filter(run__in=ids), wanted)
    drafts = wanted_drafts(Synthesis.objects.filter(run__in=ids), wanted)
    used: dict[UUID, Sums] = {}
    for rows, sums in (
        (calls, sums_of_calls()),
        (from_cache(calls), sums_of_cached()),
        (drafts, sums_of_drafts()),
    ):
        for row in rows.order_by().values("run_id").annotate(**sums):
            used[row["run_id"]] = used.get(row["run_id"], NOTHING) + read_sums(row)
    return [
        RunRow(
            id=run.pk,
            url=reverse("run-detail", args=[run.pk]),
            prompt_preview=" ".join(run.prompt[:400].split())[:160],
            status=run.status,
            reason=run.reason,
            pipeline=run.pipeline,
            started_by=run.started_by,
            created_at=run.created_at,
            duration_ms=run.duration_ms,
            answers=answers.get(run.pk, "0/0"),
            cost_micro_usd=run.cost_micro_usd,
            used=used.get(run.pk, NOTHING),
        )
        for run in page
    ]


def _read_cursor(cursor: str) -> tuple[datetime, UUID]:
    created, _, pk = cursor.partition("~")
    try:
        moment = datetime.fromisoformat(created)
        if moment.tzinfo is None:
            raise BadCursor
        # In UTC at once: an offset can carry the first or last day there is out of all time.
        return moment.astimezone(UTC), UUID(pk)
    except (ValueError, OverflowError):
        raise BadCursor from None
