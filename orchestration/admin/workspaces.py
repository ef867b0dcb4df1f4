"""Workspaces with what is known of runs: their number, where they are, and deleting all of them."""

from collections.abc import Iterable
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from orchestration.actions.delete_workspace import delete_workspace
from orchestration.domain.pipelines import PIPELINES
from orchestration.fanout.client import FanoutUnavailable
from orchestration.models import Run
from workspaces.admin.confirm import Given, NotNow, Plan, Step, confirm
from workspaces.admin.console import Page, acting_in, console_url, looking_at
from workspaces.admin.quotas import QuotaForm, QuotaInline
from workspaces.admin.workspace import WorkspaceAdmin
from workspaces.models import ApiKey, Membership, Reservation, Workspace


class RexQuotaForm(QuotaForm):
    pipelines = tuple(PIPELINES)


class RexQuotaInline(QuotaInline):
    form = RexQuotaForm


class DeleteForm(forms.Form):
    slug = forms.CharField(label="Its short name, once more", max_length=60)

    def __init__(self, *args: Any, workspace: Workspace, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.workspace = workspace
        self.fields["slug"].help_text = f"Type “{workspace.slug}”."

    def clean_slug(self) -> str:
        if self.cleaned_data["slug"] != self.workspace.slug:
            raise ValidationError("This is not its short name.")
        return self.workspace.slug


@admin.register(Workspace)
class RexWorkspaceAdmin(WorkspaceAdmin):
    inlines = (RexQuotaInline,)

    def pages(self) -> tuple[tuple[str, str, Page, str], ...]:
        return (
            *super().pages(),
            ("<uuid:pk>/delete/", "delete_all", self.delete_page, "workspaces.delete_workspace"),
        )

    def tools(self, request: HttpRequest, row: Workspace) -> Iterable[tuple[str, str]]:
        yield from super().tools(request, row)
        if request.user.has_perm("orchestration.view_run"):
            yield "Runs", console_url(Run, workspace=row.pk)
        if looking_at(request) == row:
            yield "Runs on the site", reverse("run-list")
            yield "Usage", reverse("usage")
        if request.user.is_superuser:
            yield "Delete", console_url(Workspace, "delete_all", row.pk)

    def delete_page(self, request: HttpRequest, pk: Any) -> HttpResponse:
        """For superusers: it takes everything of a workspace with it."""
        if not request.user.is_superuser:
            raise PermissionDenied
        workspace: Workspace = self.found(pk)

        def plan(_: Given) -> Plan:
            if workspace.paused_at is None:
                raise NotNow("Pause the workspace first, so that nothing new begins in it.")
            rows = (
                ("Runs, with questions and answers", Run.objects.in_workspace(workspace).count()),
                ("Reservations", Reservation.objects.in_workspace(workspace).count()),
                ("Keys", ApiKey.objects.in_workspace(workspace).count()),
                ("Memberships", Membership.objects.in_workspace(workspace).count()),
            )
            return Plan(
                (
                    "All of this is deleted, and the answers of it that are cached. It cannot be "
                    "undone. The users stay, and so does the audit log.",
                ),
                tuple((what, f"{number:,}", "0") for what, number in rows),
            )

        def do(_: Given) -> str | HttpResponse:
            try:
                delete_workspace(
                    workspace=workspace,
                    by=acting_in(request, workspace),
                    request_id=getattr(request, "request_id", ""),
                )
            except FanoutUnavailable as error:
                raise NotNow(
                    f"Its cached answers could not be forgotten, so nothing was deleted: {error}. "
                    "Try again when the fan-out service and Redis answer."
                ) from None
            self.message_user(request, f"{workspace} is deleted.")
            return HttpResponseRedirect(console_url(Workspace))

        return confirm(
            request,
            self.admin_site,
            Step(
                title=f"Delete {workspace}",
                button="Delete all of it",
                back=console_url(Workspace, "change", pk),
                plan=plan,
                do=do,
                form=lambda data=None: DeleteForm(data, workspace=workspace),
                danger=True,
                in_transaction=False,
            ),
        )
