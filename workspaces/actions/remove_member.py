"""Take a user out of a workspace; of oneself: leave it."""

from django.db import transaction

from workspaces.access import Actor
from workspaces.actions.record_change import record_change, state_of
from workspaces.actions.withdraw_invitation import withdraw_invitations_by
from workspaces.counting import lock_workspace
from workspaces.managing import lock_to_manage, name_of
from workspaces.members import keep_an_owner
from workspaces.models import Membership


@transaction.atomic
def remove_member(*, membership: Membership, by: Actor | None, request_id: str = "") -> None:
    """They are out at once, pages that they have open within seconds; their invitations go with
    them. What they asked stays, and so do keys they made: those are the workspace's. Anyone may
    leave. Once is enough: whoever has left already is left alone. Raises LastOwner, NotAllowed.
    """
    if by is not None and by.user_id == membership.user_id:
        workspace, _ = lock_workspace(membership.workspace)
    else:
        workspace = lock_to_manage(membership.workspace, by)
    rows = Membership.objects.in_workspace(workspace).select_related("user")
    row = rows.filter(pk=membership.pk).first()
    if row is None:
        return
    keep_an_owner(row)
    withdraw_invitations_by(
        name=row.user.get_username(), workspace=workspace, by=by, request_id=request_id
    )
    record_change(
        actor=name_of(by),
        action="member.removed",
        row=row,
        before=state_of(row),
        workspace=workspace,
        user_id=by.user_id if by else None,
        request_id=request_id,
    )
    row.delete()
