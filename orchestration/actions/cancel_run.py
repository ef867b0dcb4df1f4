"""Stop a run, or one call of it. The driver does the stopping; this asks it to, once."""

from uuid import UUID

from django.db import transaction
from django.utils import timezone

from orchestration.domain.run import CALL_ENDED, RUN_ENDED
from orchestration.models import Call, Run
from orchestration.queue import announce_command


@transaction.atomic
def cancel_run(*, run: Run) -> bool:
    """Ask that ``run`` stop, whoever drives it. False when it had ended or was asked already.

    ``run`` must come from ``queries.run_of``: its workspace is already the caller's.
    """
    asked = (
        Run.objects.in_workspace(run.workspace)
        .filter(pk=run.pk, stop_requested_at__isnull=True)
        .exclude(status__in=RUN_ENDED)
        .update(stop_requested_at=timezone.now())
    )
    if asked == 1:
        announce_command(run.pk)
    return asked == 1


@transaction.atomic
def cancel_call(*, run_id: UUID, label: str) -> bool:
    """Ask that one call stop; the others and the synthesis go on. False when it had ended."""
    asked = (
        Call.objects.filter(run_id=run_id, label=label, stop_requested_at__isnull=True)
        .exclude(state__in=CALL_ENDED)
        .update(stop_requested_at=timezone.now())
    )
    if asked == 1:
        announce_command(run_id)
    return asked == 1
