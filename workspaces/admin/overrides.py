"""Another limit for a while: "raise for 24 h", with its reason and an end."""

from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from workspaces.actions.record_change import state_of
from workspaces.admin.confirm import Given, NotNow, Plan, Step, confirm
from workspaces.admin.console import Console, Page, ReadOnly, console_url, note
from workspaces.admin.quotas import is_live
from workspaces.admin.show import WorkspaceFilter, mark, when, workspace_link
from workspaces.admin.units import caption, limit_of_text, shown
from workspaces.counting import lock_workspace
from workspaces.domain.windows import windows_at
from workspaces.limits import limit_of
from workspaces.models import Quota, QuotaOverride, Workspace

DURATIONS = (
    ("1h", "1 hour"),
    ("24h", "24 hours"),
    ("7d", "7 days"),
    ("month", "Until the end of the month"),
)


class OverrideForm(forms.Form):
    limit = forms.CharField(label="New limit", max_length=30)
    lasts = forms.ChoiceField(label="For", choices=DURATIONS, initial="24h")
    reason = forms.CharField(
        label="Reason", max_length=200, help_text="For the audit log and for the next operator."
    )

    def __init__(self, *args: Any, quota: Quota, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.quota = quota
        self.fields["limit"].label = f"New limit: {caption(quota.dimension).lower()}"

    def clean_limit(self) -> int:
        return limit_of_text(self.quota.dimension, self.cleaned_data["limit"])


class LiveFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("live", "In force"), ("over", "Expired or ended")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        now = timezone.now()
        if self.value() == "live":
            return queryset.filter(expires_at__gt=now, ended_at__isnull=True)
        if self.value() == "over":
            return queryset.exclude(expires_at__gt=now, ended_at__isnull=True)
        return queryset


class OverrideWorkspaceFilter(WorkspaceFilter):
    path = "quota__workspace"


@admin.register(QuotaOverride)
class QuotaOverrideAdmin(ReadOnly, Console):
    """Made from a quota, ended early; never changed, so that the list says what was in force."""

    heading = "Limits for a while"
    list_display = (
        "created_at", "in_workspace", "what", "new_limit", "usual", "state", "expires_at",
        "reason", "created_by",
    )  # fmt: skip
    list_display_links = ("created_at",)
    list_filter = (LiveFilter, OverrideWorkspaceFilter)
    list_select_related = ("quota__workspace", "quota__api_key")
    search_fields = ("reason", "created_by", "quota__workspace__name")
    ordering = ("-pk",)
    sortable_by = ("created_at", "expires_at")
    fields = (
        "in_workspace", "what", "new_limit", "usual", "state", "reason", "created_by", "created_at",
        "expires_at", "ended_at",
    )  # fmt: skip

    def pages(self) -> tuple[tuple[str, str, Page, str], ...]:
        return (
            ("raise/<int:pk>/", "raise", self.raise_page, "workspaces.add_quotaoverride"),
            ("<int:pk>/end/", "end", self.end_page, "workspaces.change_quotaoverride"),
        )

    def called(self, row: QuotaOverride) -> str:
        return f"{self.what(row)}: {self.new_limit(row)} for a while"

    def tools(self, request: HttpRequest, row: QuotaOverride) -> list[tuple[str, str]]:
        if not self.may(request, "change") or not is_live(row, timezone.now()):
            return []
        return [("End it now", console_url(QuotaOverride, "end", row.pk))]

    def raise_page(self, request: HttpRequest, pk: int) -> HttpResponse:
        quota = (
            Quota.objects.everywhere()
            .select_related("workspace", "api_key")
            .filter(pk=pk)
            .first()
        )  # fmt: skip
        if quota is None:
            raise Http404
        back = console_url(Workspace, "change", quota.workspace_id)

        def plan(given: Given) -> Plan:
            now = timezone.now()
            in_force = limit_of(quota, _live_of(quota, now)).value
            ends = _ends(given["lasts"], now, quota.workspace.time_zone)
            return Plan(
                (f"From now until {when(ends)}; afterwards the usual limit holds again.",),
                (
                    (
                        caption(quota.dimension),
                        shown(quota.dimension, in_force),
                        shown(quota.dimension, given["limit"]),
                    ),
                ),
            )

        def do(given: Given) -> str:
            # Under the lock admissions take: each sees the old limit or the new one.
            locked, now = lock_workspace(quota.workspace)
            before = limit_of(quota, _live_of(quota, now)).value
            override = QuotaOverride.objects.create(
                quota=quota,
                limit=given["limit"],
                reason=given["reason"],
                created_by=request.user.get_username(),
                expires_at=_ends(given["lasts"], now, locked.time_zone),
            )
            note(
                request, "quota.overridden", quota,
                before={"limit": before},
                after={
                    "limit": override.limit,
                    "expires_at": override.expires_at.isoformat(),
                    "reason": override.reason,
                },
            )  # fmt: skip
            said = shown(quota.dimension, override.limit)
            return f"The limit is {said} until {when(override.expires_at)}."

        whose = f" of {quota.scope.replace(':', ' ', 1)}" if quota.scope else ""
        return confirm(
            request,
            self.admin_site,
            Step(
                title=f"{quota.workspace}: another limit for a while",
                intro=(
                    f"{caption(quota.dimension)}{whose}: "
                    f"the usual limit is {shown(quota.dimension, quota.limit)}."
                ),
                button="Set the limit",
                back=back,
                plan=plan,
                do=do,
                form=lambda data=None: OverrideForm(data, quota=quota),
            ),
        )

    def end_page(self, request: HttpRequest, pk: int) -> HttpResponse:
        override = self.found(pk)
        quota = override.quota

        def plan(_: Given) -> Plan:
            now = timezone.now()
            if not is_live(override, now):
                raise NotNow("It has ended already.")
            live = _live_of(quota, now)
            rest = [each for each in live if each.pk != override.pk]
            return Plan(
                ("It ends at once. Runs under way keep what they have.",),
                (
                    (
                        caption(quota.dimension),
                        shown(quota.dimension, limit_of(quota, live).value),
                        shown(quota.dimension, limit_of(quota, rest).value),
                    ),
                ),
            )

        def do(_: Given) -> str:
            _locked, now = lock_workspace(quota.workspace)
            row = QuotaOverride.objects.get(pk=pk)
            if not is_live(row, now):
                raise NotNow("It has ended already.")
            before = state_of(row)
            row.ended_at = now
            row.save(update_fields=["ended_at"])
            note(request, "quota.override_ended", quota, before=before, after=state_of(row))
            return "The override has ended."

        return confirm(
            request,
            self.admin_site,
            Step(
                title="End an override",
                button="End it now",
                back=console_url(QuotaOverride, "change", pk),
                plan=plan,
                do=do,
            ),
        )

    @admin.display(description="Workspace")
    def in_workspace(self, row: QuotaOverride) -> SafeString | str:
        return workspace_link(row.quota.workspace)

    @admin.display(description="What")
    def what(self, row: QuotaOverride) -> str:
        scope = row.quota.scope
        return caption(row.quota.dimension) + (f", {scope.replace(':', ' ', 1)}" if scope else "")

    @admin.display(description="Limit")
    def new_limit(self, row: QuotaOverride) -> str:
        return shown(row.quota.dimension, row.limit)

    @admin.display(description="Usual limit")
    def usual(self, row: QuotaOverride) -> str:
        return shown(row.quota.dimension, row.quota.limit)

    @admin.display(description="State")
    def state(self, row: QuotaOverride) -> SafeString:
        if row.ended_at is not None:
            return format_html("{} {}", mark("quiet", "ended"), when(row.ended_at))
        return (
            mark("good", "in force") if is_live(row, timezone.now()) else mark("quiet", "expired")
        )


def _live_of(quota: Quota, now: datetime) -> list[QuotaOverride]:
    rows = quota.overrides.filter(expires_at__gt=now, ended_at__isnull=True)
    return list(rows.order_by("pk"))


def _ends(lasts: str, now: datetime, zone: str) -> datetime:
    match lasts:
        case "1h":
            return now + timedelta(hours=1)
        case "24h":
            return now + timedelta(hours=24)
        case "7d":
            return now + timedelta(days=7)
    return windows_at(now, zone).month_ends
