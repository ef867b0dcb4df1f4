"""The page behind an invitation's link."""

from typing import Any

from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_http_methods

from workspaces.actions.accept_invitation import accept_invitation, register_and_accept
from workspaces.actions.choose_workspace import choose_workspace
from workspaces.forms import RegisterForm
from workspaces.invitations import find_invitation
from workspaces.models import Invitation, Membership, Workspace
from workspaces.refused import InvitationGone
from workspaces.views.asking import request_id_of
from workspaces.words import RIGHTS, ROLES


@never_cache
@sensitive_post_parameters()
@sensitive_variables("token", "form")
@require_http_methods(["GET", "HEAD", "POST"])
def join(request: HttpRequest, token: str) -> HttpResponse:
    """Who is signed in joins with a press; anyone else signs in first, or becomes a new user."""
    invitation = find_invitation(token)
    if invitation is None:
        return _gone(request)
    if isinstance(request.user, User):
        return _join_as(request, request.user, invitation, token)
    return _register(request, invitation, token)


def _join_as(request: HttpRequest, user: User, invitation: Invitation, token: str) -> HttpResponse:
    members = Membership.objects.in_workspace(invitation.workspace)
    if request.method == "POST":
        try:
            workspace = accept_invitation(token=token, user=user, request_id=request_id_of(request))
        except InvitationGone:
            return _gone(request)
        return _welcome(request, user, workspace)
    already = members.filter(user_id=user.pk).exists()
    return _page(request, invitation, {"already": already})


def _register(request: HttpRequest, invitation: Invitation, token: str) -> HttpResponse:
    form = RegisterForm(request.POST or None)
    if request.method != "POST":
        return _page(request, invitation, {"form": form})
    if form.is_valid():
        try:
            user = register_and_accept(
                token=token,
                username=form.cleaned_data["username"],
                password=form.cleaned_data["password1"],
                request_id=request_id_of(request),
            )
        except InvitationGone:
            return _gone(request)
        except ValidationError as error:
            for field, problems in error.error_dict.items():
                form.add_error("password2" if field == "password" else field, problems)
        else:
            login(request, user)
            return _welcome(request, user, invitation.workspace)
    return _page(request, invitation, {"form": form}, status=400)


def _welcome(request: HttpRequest, user: User, workspace: Workspace) -> HttpResponse:
    choose_workspace(request.session, user, workspace.pk)
    messages.success(request, _("You are in %(name)s now.") % {"name": workspace.name})
    return redirect("start")


def _page(
    request: HttpRequest, invitation: Invitation, more: dict[str, Any], status: int = 200
) -> HttpResponse:
    role = Membership.Role(invitation.role)
    context = {"invitation": invitation, "role": ROLES[role], "rights": RIGHTS[role], **more}
    return render(request, "workspaces/join.html", context, status=status)


def _gone(request: HttpRequest) -> HttpResponse:
    """Used, withdrawn, expired and never there are one answer."""
    return render(request, "workspaces/join_gone.html", {"problem": InvitationGone()}, status=404)
