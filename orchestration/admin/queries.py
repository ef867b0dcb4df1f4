"""What operators see across workspaces: states, times and counts, never what was asked or said."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Prefetch, QuerySet, Sum

from orchestration.domain.run import CallState, RunStatus
from orchestration.models import Call, Run

UNDER_WAY = (RunStatus.QUEUED.value, RunStatus.RUNNING.value)

# Prompts and answers are long, and not for operators: they are not even read.
CONTENT = ("prompt", "answer", "overlap", "settings", "body_sha256", "seed")


def without_content(runs: QuerySet[Any]) -> QuerySet[Any]:
    return runs.defer(*CONTENT).select_related("workspace")


def runs_under_way(at_most: int = 200) -> Sequence[Any]:
    """The oldest first, with ``tokens`` (output so far of calls that ended) and their calls. Two
    queries."""
    rows = without_content(Run.objects.everywhere().filter(status__in=UNDER_WAY))
    calls = Call.objects.order_by("label").only("run_id", "label", "model", "state", "attempt")
    return list(
        rows.annotate(tokens=Sum("calls__output_tokens"))
        .prefetch_related(Prefetch("calls", calls))
        .order_by("created_at", "pk")[:at_most]
    )


def counts_under_way() -> dict[str, int]:
    """Status → how many."""
    rows = Run.objects.everywhere().filter(status__in=UNDER_WAY)
    found = dict(rows.values_list("status").annotate(Count("pk")).order_by())
    return {status: found.get(status, 0) for status in UNDER_WAY}


def failed_lately(at_most: int = 8) -> Sequence[Run]:
    rows = Run.objects.everywhere().filter(status=RunStatus.FAILED)
    return list(without_content(rows).order_by("-created_at", "-pk")[:at_most])


def errors_since(now: datetime, span: timedelta) -> list[tuple[str, str, int]]:
    """(provider, error kind, calls) of the runs begun within ``span``, the most frequent first."""
    rows = (
        Call.objects.filter(run__created_at__gte=now - span, reason__isnull=False)
        # Who stops a model, needs it no more, or never asked it, has met no trouble.
        .exclude(reason__startswith="stop.")
        .exclude(state=CallState.SKIPPED)
        .values_list("provider", "reason")
        .annotate(hit=Count("pk"))
        .order_by("-hit", "provider", "reason")[:200]
    )
    return list(rows)
