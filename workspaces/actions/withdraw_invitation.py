"""Make an invitation's link worthless."""

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from workspaces.access import Actor
from workspaces.actions.record_change import record_change, state_of
from workspaces.managing import lock_to_manage, name_of
from workspaces.models import Invitation, Workspace


@transaction.atomic
def withdraw_invitation(*, invitation: Invitation, by: Actor | None, request_id: str = "") -> None:
    """Once is enough; one that was accepted meanwhile stays accepted. Raises NotAllowed."""
    workspace = lock_to_manage(invitation.workspace, by)
    row = _open_ones(workspace).filter(pk=invitation.pk).first()
    if row is not None:
        _withdraw(row, by, request_id)


def withdraw_invitations_by(
    *, name: str, workspace: Workspace, by: Actor | None, request_id: str
) -> None:
    """Those that the owner called ``name`` made and nobody has accepted: an owner who is sent away
    would else come back by a link of their own. The workspace is locked."""
    for row in _open_ones(workspace).filter(created_by=name):
        _withdraw(row, by, request_id)


def _open_ones(workspace: Workspace) -> QuerySet[Invitation]:
    return Invitation.objects.in_workspace(workspace).filter(
        withdrawn_at__isnull=True, accepted_at__isnull=True
    )


def _withdraw(row: Invitation, by: Actor | None, request_id: str) -> None:
    before = state_of(row)
    row.withdrawn_at = timezone.now()
    row.save(update_fields=["withdrawn_at"])
    record_change(
        actor=name_of(by),
        action="invitation.withdrawn",
        row=row,
        before=before,
        after=state_of(row),
        workspace=row.workspace,
        user_id=by.user_id if by else None,
        request_id=request_id,
    )
