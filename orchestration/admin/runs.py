"""Runs, for operators: how they went, not what they say.

Whoever runs a machine needs to see what is slow, stuck or failing in every workspace. What was
asked and answered is of no use for that, and it is the members' own: so prompts, answers, drafts
and the bodies of events are not on these pages, not in their search, and not read from the
database. An operator who is a member of the workspace has the product's page of the run, to which
these link; for others that page is a 404, as for anyone else.
"""

from typing import Any

from django.contrib import admin
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString

from orchestration.actions.cancel_run import cancel_run
from orchestration.admin.queries import counts_under_way, runs_under_way, without_content
from orchestration.domain.errors import sentence_for
from orchestration.domain.run import RUN_ENDED
from orchestration.models import Call, Run, RunEvent, Synthesis
from orchestration.templatetags.console import run_state
from orchestration.templatetags.rex_format import duration, money
from workspaces.admin.confirm import Given, NotNow, Plan, Step, confirm
from workspaces.admin.console import Console, Page, ReadOnly, console_url, looking_at, note
from workspaces.admin.show import ShortList, WorkspaceFilter, since, workspace_link
from workspaces.models import AuditEntry, Reservation

REFRESH_S = 5


class PartInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    """Rows that hang off a run are seen by whoever may see the run."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("orchestration.view_run")

    @admin.display(description="Cost")
    def cost(self, row: Any) -> str:
        return money(row.cost_micro_usd)

    @admin.display(description="Price")
    def paid_by(self, row: Any) -> str:
        return str(row.price.get("version", "")) if row.price else "unknown"


class CallInline(PartInline):
    model = Call
    fields = (
        "label", "model", "state", "reason", "attempt", "cached_age_s", "first_token_ms",
        "duration_ms", "input_tokens", "output_tokens", "cost", "paid_by",
    )  # fmt: skip
    readonly_fields = ("cost", "paid_by")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("text", "pacing", "message")


class SynthesisInline(PartInline):
    model = Synthesis
    verbose_name_plural = "versions of the synthesis"
    fields = (
        "version", "kind", "trigger", "state", "reason", "duration_ms", "input_tokens",
        "output_tokens", "cost", "paid_by",
    )  # fmt: skip
    readonly_fields = ("cost", "paid_by")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("text", "pacing", "message", "blocks")


class RunEventInline(PartInline):
    model = RunEvent
    verbose_name_plural = "log, without what its events say"
    fields = ("seq", "at_ms", "type")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("body")


class CallErrorFilter(ShortList):
    """Runs in which a call ended so ("openai:rate_limited"); there once a link has asked for it."""

    title = "error of a call"
    parameter_name = "call_error"

    def offered(self, model_admin: Any) -> list[tuple[str, str]]:
        return []

    def named(self, value: str) -> str:
        return value.replace(":", " ", 1)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        provider, _, kind = (self.value() or "").partition(":")
        if not provider:
            return queryset
        calls = Call.objects.filter(run=OuterRef("pk"), provider=provider, reason=kind)
        return queryset.filter(Exists(calls))


@admin.register(Run)
class RunAdmin(ReadOnly, Console):
    list_display = (
        "id", "in_workspace", "state", "reason", "pipeline", "created_at", "took", "cost",
    )  # fmt: skip
    list_filter = ("status", "pipeline", "reason", WorkspaceFilter, CallErrorFilter)
    date_hierarchy = "created_at"
    ordering = ("-created_at", "-pk")
    sortable_by = ("created_at",)
    search_fields = ("=id", "=request_id", "=started_by", "workspace__name")
    search_help_text = "By run id, request id, who asked, or workspace."
    inlines = (CallInline, SynthesisInline, RunEventInline)
    fields = (
        "in_workspace", "state", "why", "pipeline", "synthesizer", "started_by", "request_id",
        "created_at", "started_at", "ended_at", "took", "began_after", "final_after", "ends_by",
        "input_tokens", "output_tokens", "cost", "lease_owner", "lease_until", "stop_requested_at",
    )  # fmt: skip

    def pages(self) -> tuple[tuple[str, str, Page, str], ...]:
        return (
            ("live/", "live", self.live_page, "orchestration.view_run"),
            ("<uuid:pk>/stop/", "stop", self.stop_page, "orchestration.change_run"),
        )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return without_content(super().get_queryset(request))

    def list_tools(self, request: HttpRequest) -> list[tuple[str, str]]:
        return [("Under way now", console_url(Run, "live"))]

    def called(self, row: Run) -> str:
        return f"Run {row.pk}"

    def tools(self, request: HttpRequest, row: Run) -> list[tuple[str, str]]:
        found = []
        if row.status not in RUN_ENDED and self.may(request, "change"):
            found.append(("Stop", console_url(Run, "stop", row.pk)))
        if looking_at(request) == row.workspace:
            found.append(("Product page", reverse("run-detail", args=[row.pk])))
        if request.user.has_perm("workspaces.view_reservation"):
            found.append(("Ledger", console_url(Reservation, q=row.pk)))
        if request.user.has_perm("workspaces.view_auditentry"):
            found.append(("Audit log", console_url(AuditEntry, q=row.pk)))
        return found

    def live_page(self, request: HttpRequest) -> HttpResponse:
        """What is under way now. It comes again every few seconds, by a header, unless it was
        asked to stand still."""
        still = "still" in request.GET
        rows = runs_under_way()
        context = {
            **self.admin_site.each_context(request),
            "title": "Under way now",
            "rows": rows,
            "left_out": max(0, sum(counts_under_way().values()) - len(rows)),
            "still": still,
            "refresh_s": REFRESH_S,
            "may_stop": self.may(request, "change"),
            "now": timezone.now(),
        }
        response = TemplateResponse(request, "admin/live_runs.html", context)
        if not still:
            response["Refresh"] = str(REFRESH_S)
        return response

    def stop_page(self, request: HttpRequest, pk: Any) -> HttpResponse:
        run: Run = self.found(pk)

        def plan(_: Given) -> Plan:
            if run.status in RUN_ENDED:
                raise NotNow("It has ended already.")
            return Plan(
                (
                    f"A run of {run.workspace}, begun {since(run.created_at)} ago.",
                    "Its models are stopped; what they have said so far is kept and paid.",
                )
            )

        def do(_: Given) -> str:
            if not cancel_run(run=run):
                raise NotNow("It has ended, or was asked to stop already.")
            note(request, "run.stopped", run, before={"stop_requested": False},
                 after={"stop_requested": True})  # fmt: skip
            return "The run was asked to stop."

        return confirm(
            request,
            self.admin_site,
            Step(
                title=f"Stop run {run.pk}",
                button="Stop it",
                back=console_url(Run, "live"),
                plan=plan,
                do=do,
                danger=True,
            ),
        )

    @admin.display(description="Workspace")
    def in_workspace(self, run: Run) -> SafeString | str:
        return workspace_link(run.workspace)

    @admin.display(description="State", ordering="status")
    def state(self, run: Run) -> SafeString:
        return run_state(run)

    @admin.display(description="Reason")
    def why(self, run: Run) -> str:
        return f"{run.reason}: {sentence_for(run.reason)}" if run.reason else "—"

    @admin.display(description="Took")
    def took(self, run: Run) -> str:
        return duration(run.duration_ms)

    @admin.display(description="Synthesis began after")
    def began_after(self, run: Run) -> str:
        return duration(run.ttfs_ms)

    @admin.display(description="Synthesis final after")
    def final_after(self, run: Run) -> str:
        return duration(run.ttf_ms)

    @admin.display(description="Deadline")
    def ends_by(self, run: Run) -> str:
        return duration(run.deadline_s * 1000)

    @admin.display(description="Cost")
    def cost(self, run: Run) -> str:
        return money(run.cost_micro_usd)
