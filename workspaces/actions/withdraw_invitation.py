"""Make an invitation's link worthless."""

from django.db import transaction
from django.utils import timezone

from workspaces.access import Actor
from workspaces.actions.record_change import record_change, state_of
from workspaces.managing import lock_to_manage, name_of
from workspaces.models import Invitation


@transaction.atomic
def withdraw_invitation(*, invitation: Invitation, by: Actor | None, request_id: str = "") -> None:
    """Once is enough; one that was accepted meanwhile stays accepted. Raises NotAllowed."""
    workspace = lock_to_manage(invitation.workspace, by)
    row = Invitation.objects.in_workspace(workspace).get(pk=invitation.pk)
    if row.withdrawn_at is not None or row.accepted_at is not None:
        return
    before = state_of(row)
    row.withdrawn_at = timezone.now()
    row.save(update_fields=["withdrawn_at"])
    record_change(
        actor=name_of(by),
        action="invitation.withdrawn",
        row=row,
        before=before,
        after=state_of(row),
        workspace=workspace,
        user_id=by.user_id if by else None,
        request_id=request_id,
    )
