"""Delete a workspace with everything that was asked and answered in it."""

from django.db import transaction

from orchestration.domain.run import RUN_ENDED
from orchestration.fanout.operations import purge
from orchestration.models import Run
from workspaces.access import Actor
from workspaces.actions.record_change import record_change, state_of
from workspaces.counting import lock_workspace
from workspaces.models import Workspace
from workspaces.refused import Refused


class WorkspaceInUse(Refused):
    """Something may still be written in it; the sentence says what to do first."""


def delete_workspace(*, workspace: Workspace, by: Actor, request_id: str = "") -> None:
    """Raises WorkspaceInUse unless it is paused and nothing is under way, and FanoutUnavailable
    where its cached answers cannot be forgotten; then it is whole.

    To go on without the cache would call deleted what can still be read in Redis. Paused and idle,
    it gets no new answers between the purge and the deletion; so the purge, which may take seconds,
    holds no lock, and a deletion that fails after it has lost only copies.
    """
    _check_idle(workspace)
    purge(workspace.pk)
    with transaction.atomic():
        locked, _ = lock_workspace(workspace)
        _check_idle(locked)
        record_change(
            actor=by.name,
            action="workspace.deleted",
            row=locked,
            before=state_of(locked),
            # Its name stays with the entry when the row goes.
            workspace=locked,
            user_id=by.user_id,
            request_id=request_id,
        )
        locked.delete()


def _check_idle(workspace: Workspace) -> None:
    if workspace.paused_at is None:
        raise WorkspaceInUse("Pause the workspace first, so that nothing new begins in it.")
    if Run.objects.in_workspace(workspace).exclude(status__in=RUN_ENDED).exists():
        raise WorkspaceInUse("Runs are under way in it. Stop them, or wait until they have ended.")
