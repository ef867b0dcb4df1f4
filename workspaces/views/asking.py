"""Who asks for a page, and what they are told who may not have it."""

from typing import Any
from zoneinfo import ZoneInfo

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
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


def page_of(
    request: HttpRequest, actor: Actor, template: str, context: dict[str, Any], status: int = 200
) -> HttpResponse:
    """A page about the actor's workspace: its times are those of the workspace."""
    with timezone.override(ZoneInfo(actor.workspace.time_zone)):
        return render(request, template, context, status=status)


def made_already(request: HttpRequest, actor: Actor, what: str) -> HttpResponse:
    """For one who sent a form again: ``what`` it made ("key", "invitation") is not shown twice."""
    return page_of(request, actor, "workspaces/made_already.html", {"what": what}, status=409)


def request_id_of(request: HttpRequest) -> str:
    """For the log of who did what: the id that also stands in the answer's header."""
    return str(getattr(request, "request_id", ""))
