"""Changes to who and what may act in a workspace: one after another, each by someone who may."""

from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from workspaces.access import OPERATOR, Actor
from workspaces.counting import lock_workspace
from workspaces.models import ApiKey, Invitation, Membership, Workspace
from workspaces.refused import AlreadyMade, NotAllowed

COMMAND_LINE = "command line"


def name_of(by: Actor | None) -> str:
    """What the audit log calls them; None is whoever runs Rex's commands."""
    return by.name if by else COMMAND_LINE


def lock_to_manage(workspace: Workspace, by: Actor | None) -> Workspace:
    """The workspace's row, locked until the transaction ends, for ``by`` to manage.

    Raises NotAllowed unless they are an owner of it now: one that another owner removed a moment
    ago changes nothing more.
    """
    assert transaction.get_connection().in_atomic_block, "a lock lasts as long as its transaction"
    locked, _ = lock_workspace(workspace)
    if by is not None and not _manages(by, locked):
        raise NotAllowed
    return locked


def use_once(mark: UUID | None, rows: QuerySet[ApiKey] | QuerySet[Invitation]) -> None:
    """Raises AlreadyMade where one of the workspace's ``rows`` was made with the same mark: the
    page it was shown on was loaded again, or its form sent twice at once. The workspace must be
    locked, so that the second waits for what the first makes."""
    if mark is not None and rows.filter(mark=mark).exists():
        raise AlreadyMade


def _manages(by: Actor, workspace: Workspace) -> bool:
    if by.workspace != workspace or not by.may_manage or by.user_id is None:
        return False
    if by.role == OPERATOR:
        return True
    owners = Membership.objects.in_workspace(workspace).filter(role=Membership.Role.OWNER)
    return owners.filter(user_id=by.user_id, user__is_active=True).exists()
