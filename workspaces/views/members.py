"""The members of a workspace, for all of them to see and for its owners to manage."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from workspaces.access import Actor
from workspaces.actions.change_role import change_role
from workspaces.actions.invite import VALID_FOR, invite
from workspaces.actions.remove_member import remove_member
from workspaces.actions.withdraw_invitation import withdraw_invitation
from workspaces.forms import InviteForm, RoleForm
from workspaces.models import Invitation, Membership
from workspaces.refused import AlreadyMade, Refused
from workspaces.views.asking import made_already, member, owner, page_of, request_id_of
from workspaces.words import RIGHTS, ROLES


@never_cache
@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def show(request: HttpRequest) -> HttpResponse:
    """The list; POST makes an invitation, whose link is shown in the answer and never again."""
    if request.method != "POST":
        return _page(request, member(request), InviteForm())
    actor = owner(request)
    form = InviteForm(request.POST)
    if not form.is_valid():
        return _page(request, actor, form, status=400)
    try:
        token = invite(
            workspace=actor.workspace,
            role=form.cleaned_data["role"],
            note=form.cleaned_data["note"],
            by=actor,
            request_id=request_id_of(request),
            mark=form.cleaned_data["mark"],
        )
    except AlreadyMade:
        return made_already(request, actor, "invitation")
    context = {
        "link": request.build_absolute_uri(reverse("join", args=[token])),
        "role": ROLES[Membership.Role(form.cleaned_data["role"])],
        "note": form.cleaned_data["note"],
        "expires_at": timezone.now() + VALID_FOR,
    }
    return page_of(request, actor, "workspaces/invited.html", context)


def _page(
    request: HttpRequest, actor: Actor, form: InviteForm, status: int = 200, problem: str = ""
) -> HttpResponse:
    rows = Membership.objects.in_workspace(actor.workspace).select_related("user")
    members = [
        {
            "id": each.pk,
            "name": each.user.get_username(),
            "own": each.user_id == actor.user_id,
            "role": ROLES[Membership.Role(each.role)],
            "rights": RIGHTS[Membership.Role(each.role)],
            "since": each.created_at,
            "form": RoleForm(initial={"role": each.role}, auto_id=f"id_%s_{each.pk}"),
        }
        for each in rows.order_by("created_at", "pk")
    ]
    context: dict[str, Any] = {
        "members": members,
        "may_manage": actor.may_manage,
        "form": form,
        "problem": problem,
        "workspace_id": actor.workspace.pk,
    }
    if actor.may_manage:
        context["invitations"] = _open_invitations(actor)
    return page_of(request, actor, "workspaces/members.html", context, status=status)


def _open_invitations(actor: Actor) -> list[dict[str, Any]]:
    rows = Invitation.objects.in_workspace(actor.workspace).filter(
        accepted_at__isnull=True, withdrawn_at__isnull=True, expires_at__gt=timezone.now()
    )
    return [
        {
            "id": each.pk,
            "note": each.note,
            "role": ROLES[Membership.Role(each.role)],
            "created_by": each.created_by,
            "expires_at": each.expires_at,
        }
        for each in rows.order_by("-created_at", "-pk")
    ]


def _membership(actor: Actor, membership_id: int) -> Membership:
    rows = Membership.objects.in_workspace(actor.workspace)
    found = rows.select_related("user", "workspace").filter(pk=membership_id).first()
    if found is None:
        raise Http404
    return found


@login_required
@require_POST
def set_role(request: HttpRequest, membership_id: int) -> HttpResponse:
    actor = owner(request)
    membership = _membership(actor, membership_id)
    form = RoleForm(request.POST)
    if not form.is_valid():
        return _page(request, actor, InviteForm(), 400, _("There is no such role."))
    try:
        change_role(
            membership=membership,
            role=form.cleaned_data["role"],
            by=actor,
            request_id=request_id_of(request),
        )
    except Membership.DoesNotExist:
        raise Http404 from None
    except Refused as refused:
        return _page(request, actor, InviteForm(), 409, str(refused))
    role = ROLES[Membership.Role(form.cleaned_data["role"])]
    messages.success(
        request,
        _("Role of %(name)s: %(role)s.") % {"name": membership.user.get_username(), "role": role},
    )
    return redirect("members")


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def remove(request: HttpRequest, membership_id: int) -> HttpResponse:
    """Asks once more, then removes. Of oneself it is leaving, which has a page of its own."""
    actor = owner(request)
    membership = _membership(actor, membership_id)
    if membership.user_id == actor.user_id:
        return redirect("leave-workspace", workspace_id=actor.workspace.pk)
    if request.method != "POST":
        return page_of(request, actor, "workspaces/member_remove.html", {"member": membership})
    try:
        remove_member(membership=membership, by=actor, request_id=request_id_of(request))
    except Refused as refused:
        return _page(request, actor, InviteForm(), 409, str(refused))
    messages.success(
        request, _("%(name)s is no longer a member.") % {"name": membership.user.get_username()}
    )
    return redirect("members")


@login_required
@require_POST
def withdraw(request: HttpRequest, invitation_id: int) -> HttpResponse:
    actor = owner(request)
    rows = Invitation.objects.in_workspace(actor.workspace).select_related("workspace")
    invitation = rows.filter(pk=invitation_id).first()
    if invitation is None:
        raise Http404
    withdraw_invitation(invitation=invitation, by=actor, request_id=request_id_of(request))
    messages.success(request, _("The invitation is withdrawn. Its link is worthless now."))
    return redirect("members")
