"""Who asks for a page, and what they are told who may not have it."""

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.utils.translation import gettext as _

from workspaces.access import Actor
from workspaces.authentication import reader_of


def user_of(request: HttpRequest) -> User:
    """Of a view that takes only those who are signed in."""
    assert isinstance(request.user, User)
    return request.user


def member(request: HttpRequest) -> Actor:
    """Whoever is signed in, in the workspace they chose. Raises PermissionDenied with the reason
    where they are in none."""
    actor = reader_of(request)
    if actor is None:
        raise PermissionDenied(_("You are not a member of any workspace."))
    return actor


def owner(request: HttpRequest) -> Actor:
    """As ``member``; raises PermissionDenied for one who does not own the workspace."""
    actor = member(request)
    if not actor.may_manage:
        raise PermissionDenied(_("Only an owner of the workspace may do this."))
    return actor


def request_id_of(request: HttpRequest) -> str:
    """For the log of who did what: the id that also stands in the answer's header."""
    return str(getattr(request, "request_id", ""))
