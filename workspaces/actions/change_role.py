"""Give a member another role."""

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from workspaces.access import Actor
from workspaces.actions.record_change import record_change, state_of
from workspaces.actions.withdraw_invitation import withdraw_invitations_by
from workspaces.managing import lock_to_manage, name_of
from workspaces.members import keep_an_owner
from workspaces.models import Membership
from workspaces.refused import InvalidRole


@transaction.atomic
def change_role(
    *, membership: Membership, role: str, by: Actor | None, request_id: str = ""
) -> None:
    """Invitations of one who is no owner any more go with the role. Raises LastOwner, InvalidRole,
    NotAllowed; Membership.DoesNotExist where they have left."""
    workspace = lock_to_manage(membership.workspace, by)
    if role not in Membership.Role.values:
        raise InvalidRole(_("A role is owner, member or viewer."))
    row = Membership.objects.in_workspace(workspace).select_related("user").get(pk=membership.pk)
    if row.role == role:
        return
    if role != Membership.Role.OWNER:
        keep_an_owner(row)
        withdraw_invitations_by(
            name=row.user.get_username(), workspace=workspace, by=by, request_id=request_id
        )
    before = state_of(row)
    row.role = role
    row.save(update_fields=["role"])
    record_change(
        actor=name_of(by),
        action="member.role_changed",
        row=row,
        before=before,
        after=state_of(row),
        workspace=workspace,
        user_id=by.user_id if by else None,
        request_id=request_id,
    )
