"""Choose which of one's workspaces the pages are about."""

from uuid import UUID

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.contrib.sessions.backends.base import SessionBase

from workspaces.access import CHOSEN, workspaces_of


def choose_workspace(
    session: SessionBase, user: AbstractBaseUser | AnonymousUser, workspace_id: UUID | str
) -> None:
    """Remember it in ``session``. Raises LookupError for one the user is no member of, or that does
    not exist: the two are not told apart. Each request looks again whether they still are."""
    if str(workspace_id) not in {str(workspace.pk) for workspace, _ in workspaces_of(user)}:
        raise LookupError("There is no such workspace.")
    session[CHOSEN] = str(workspace_id)
