"""Make a link that lets whoever holds it join a workspace, once."""

import secrets
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from workspaces.access import Actor
from workspaces.actions.record_change import record_change, state_of
from workspaces.invitations import digest_of
from workspaces.managing import lock_to_manage, name_of, use_once
from workspaces.models import Invitation, Membership, Workspace
from workspaces.refused import InvalidRole

VALID_FOR: Final = timedelta(days=7)


@transaction.atomic
def invite(
    *,
    workspace: Workspace,
    role: str,
    note: str,
    by: Actor | None,
    request_id: str = "",
    mark: UUID | None = None,
) -> str:
    """Store an invitation and return its token: the only time anyone sees it.

    ``note`` is for the owners, to know their invitations apart. With a ``mark``, only
    the first time. Raises AlreadyMade, InvalidRole, NotAllowed.
    """
    lock_to_manage(workspace, by)
    use_once(mark, Invitation.objects.in_workspace(workspace))
    if role not in Membership.Role.values:
        raise InvalidRole(_("A role is owner, member or viewer."))
    token = secrets.token_urlsafe(32)
    row = Invitation.objects.create(
        workspace=workspace,
        role=role,
        note=note.strip()[:120],
        token_sha256=digest_of(token),
        mark=mark,
        created_by=name_of(by),
        expires_at=timezone.now() + VALID_FOR,
    )
    record_change(
        actor=name_of(by),
        action="invitation.made",
        row=row,
        after=state_of(row),
        workspace=workspace,
        user_id=by.user_id if by else None,
        request_id=request_id,
    )
    return token
