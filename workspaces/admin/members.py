"""Who is in a workspace, as far as operators have a hand in it: the first owner, and repairs."""

from typing import Any

from django import forms
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse

from workspaces.actions.change_role import change_role
from workspaces.actions.record_change import state_of
from workspaces.actions.remove_member import remove_member
from workspaces.admin.confirm import Given, NotNow, Plan, Step, confirm
from workspaces.admin.console import Page, acting_in, console_url, note
from workspaces.counting import lock_workspace
from workspaces.models import Membership, Workspace


class MemberForm(forms.Form):
    username = forms.CharField(label="User name", max_length=150)
    role = forms.ChoiceField(choices=Membership.Role.choices, initial=Membership.Role.MEMBER)

    def clean_username(self) -> Any:
        found = get_user_model().objects.filter(username=self.cleaned_data["username"]).first()
        if found is None:
            raise ValidationError("There is no user of that name. An owner can invite new ones.")
        return found


class RoleForm(forms.Form):
    role = forms.ChoiceField(choices=Membership.Role.choices)


class MemberPages:
    """Pages of ``WorkspaceAdmin``."""

    admin_site: Any
    found: Any

    def member_pages(self) -> tuple[tuple[str, str, Page, str], ...]:
        return (
            ("<uuid:pk>/members/add/", "add_member", self.add_page, "workspaces.add_membership"),
            (
                "members/<int:pk>/role/",
                "role",
                self.role_page,
                "workspaces.change_membership",
            ),
            (
                "members/<int:pk>/remove/",
                "remove_member",
                self.remove_page,
                "workspaces.delete_membership",
            ),
        )

    def add_page(self, request: HttpRequest, pk: Any) -> HttpResponse:
        row: Workspace = self.found(pk)

        def check(user: Any) -> None:
            if Membership.objects.in_workspace(row).filter(user=user).exists():
                raise NotNow(f"{user} is a member already.")

        def plan(given: Given) -> Plan:
            check(given["username"])
            return Plan((), ((str(given["username"]), "no member", given["role"]),))

        def do(given: Given) -> str:
            lock_workspace(row)
            check(given["username"])
            made = Membership.objects.create(
                workspace=row, user=given["username"], role=given["role"]
            )
            note(request, "member.joined", made, after=state_of(made))
            return f"{made.user} is a member now."

        return confirm(
            request,
            self.admin_site,
            Step(
                title=f"Add a member to {row}",
                button="Add them",
                back=console_url(Workspace, "change", pk),
                plan=plan,
                do=do,
                form=MemberForm,
            ),
        )

    def role_page(self, request: HttpRequest, pk: int) -> HttpResponse:
        membership = _membership(pk)

        def do(given: Given) -> str:
            change_role(
                membership=membership,
                role=given["role"],
                by=acting_in(request, membership.workspace),
                request_id=getattr(request, "request_id", ""),
            )
            return "The role is changed."

        return confirm(
            request,
            self.admin_site,
            Step(
                title=f"Another role for {membership.user}",
                button="Change the role",
                back=console_url(Workspace, "change", membership.workspace_id),
                plan=lambda given: Plan((), (("Role", membership.role, given["role"]),)),
                do=do,
                # As it is, until another is chosen: a slip makes nobody an owner.
                form=lambda data=None: RoleForm(data, initial={"role": membership.role}),
            ),
        )

    def remove_page(self, request: HttpRequest, pk: int) -> HttpResponse:
        membership = _membership(pk)

        def do(_: Given) -> str:
            remove_member(
                membership=membership,
                by=acting_in(request, membership.workspace),
                request_id=getattr(request, "request_id", ""),
            )
            return f"{membership.user} is no longer a member."

        return confirm(
            request,
            self.admin_site,
            Step(
                title=f"Take {membership.user} out of {membership.workspace}",
                button="Take them out",
                back=console_url(Workspace, "change", membership.workspace_id),
                plan=lambda _: Plan(
                    ("They are out at once. What they asked stays, and so do keys they made.",),
                    ((str(membership.user), membership.role, "no member"),),
                ),
                do=do,
                danger=True,
            ),
        )


def _membership(pk: int) -> Membership:
    rows = Membership.objects.everywhere().select_related("workspace", "user")
    found = rows.filter(pk=pk).first()
    if found is None:
        raise Http404
    return found
