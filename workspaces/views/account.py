"""A user's own page: how they read, which workspaces they are in, their password."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import PasswordChangeView
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse_lazy
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from workspaces.access import actor_from_user, workspaces_of
from workspaces.actions.choose_workspace import choose_workspace
from workspaces.actions.remove_member import remove_member
from workspaces.authentication import reader_of
from workspaces.models import Membership
from workspaces.refused import Refused
from workspaces.views.asking import request_id_of, user_of
from workspaces.words import RIGHTS, ROLES


@login_required
@require_safe
def show(request: HttpRequest) -> HttpResponse:
    """Also for one who is in no workspace."""
    reader = reader_of(request)
    memberships = [
        {
            "workspace": workspace,
            "role": ROLES[Membership.Role(role)],
            "rights": RIGHTS[Membership.Role(role)],
            "chosen": reader is not None and workspace == reader.workspace,
        }
        for workspace, role in workspaces_of(request.user)
    ]
    return render(request, "workspaces/account.html", {"memberships": memberships})


@login_required
@require_POST
def choose(request: HttpRequest) -> HttpResponse:
    """POST workspace=<id>. Goes to the start: the page they were on may be another workspace's."""
    try:
        choose_workspace(request.session, request.user, request.POST.get("workspace", ""))
    except LookupError:
        raise Http404 from None
    return redirect("start")


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def leave(request: HttpRequest, workspace_id: UUID) -> HttpResponse:
    """Asks once more, then leaves."""
    actor = actor_from_user(request.user, workspace_id)
    if actor is None or actor.workspace.pk != workspace_id:
        raise Http404
    problem, status = "", 200
    if request.method == "POST":
        membership = (
            Membership.objects.in_workspace(actor.workspace).filter(user=user_of(request)).first()
        )
        try:
            if membership is not None:
                remove_member(membership=membership, by=actor, request_id=request_id_of(request))
        except Refused as refused:
            problem, status = str(refused), 409
        else:
            messages.success(request, _("You have left %(name)s.") % {"name": actor.workspace.name})
            return redirect("account")
    reader = reader_of(request)
    context = {
        "leaving": actor.workspace,
        "problem": problem,
        # The members' page is about the workspace that is chosen.
        "chosen": reader is not None and reader.workspace == actor.workspace,
    }
    return render(request, "workspaces/leave.html", context, status=status)


class ChangePassword(PasswordChangeView):
    """This session goes on; all others of the user end, since they hold the old password's mark."""

    template_name = "registration/password_change.html"
    success_url = reverse_lazy("account")

    def form_valid(self, form: Any) -> HttpResponse:
        response = super().form_valid(form)
        messages.success(
            self.request, _("Your password is changed. You are signed out everywhere else.")
        )
        return response
