"""Take runs that nobody drives, and keep them."""

from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import F, Q

from orchestration.domain.run import RunStatus
from orchestration.models import Run

LEASE_S = 15
RENEW_EVERY_S = 5


def claim_runs(
    *, owner: str, limit: int, now: datetime, besides: Collection[UUID] = ()
) -> list[tuple[UUID, int]]:
    """Lease up to ``limit`` unfinished runs that have no live lease, oldest first.

    ``besides`` are the runs this process drives: it may have slept through a lease of its own, and
    must renew it rather than take the run from itself. Returns (run id, fence) pairs.

    The update repeats the condition, so of two drivers that saw the same run only one gets it; the
    other finds that someone was faster and moves on.
    """
    free = Q(status__in=(RunStatus.QUEUED, RunStatus.RUNNING)) & (
        Q(lease_until__isnull=True) | Q(lease_until__lt=now)
    )
    runs = Run.objects.everywhere()
    claimed = []
    waiting = runs.filter(free).exclude(pk__in=besides)
    for pk, fence in waiting.order_by("created_at").values_list("pk", "fence")[:limit]:
        taken = runs.filter(free, pk=pk, fence=fence).update(
            lease_owner=owner, lease_until=now + timedelta(seconds=LEASE_S), fence=F("fence") + 1
        )
        if taken == 1:
            claimed.append((pk, fence + 1))
    return claimed


def renew_lease(*, run_id: UUID, fence: int, now: datetime) -> bool:
    """Hold the run for another ``LEASE_S``; False when it is no longer ours."""
    until = now + timedelta(seconds=LEASE_S)
    held = Run.objects.everywhere().filter(pk=run_id, fence=fence)
    return held.update(lease_until=until) == 1


def release_lease(*, run_id: UUID, fence: int) -> None:
    """Let another driver have the run at once instead of after the lease."""
    Run.objects.everywhere().filter(pk=run_id, fence=fence).update(lease_until=None)
