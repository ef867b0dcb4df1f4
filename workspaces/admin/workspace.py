"""Workspaces: what they may spend and how they stand, who is in them, and pausing them.

``WorkspaceAdmin`` knows no runs; ``orchestration.admin`` adds what it takes to speak of them, and
registers it.
"""

from collections.abc import Iterable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.safestring import SafeString

from workspaces.actions.record_change import state_of
from workspaces.admin.confirm import Given, NotNow, Plan, Step, confirm
from workspaces.admin.console import Console, Page, console_url, note
from workspaces.admin.meanwhile import SinceOpened
from workspaces.admin.members import MemberPages
from workspaces.admin.quotas import QuotaInline, consequence_of
from workspaces.admin.show import bars, mark, money, when
from workspaces.admin.standings import Stand, near_a_quota, stands_of
from workspaces.counting import lock_workspace
from workspaces.models import (
    ApiKey,
    AuditEntry,
    Counter,
    Invitation,
    Membership,
    Quota,
    QuotaOverride,
    Reservation,
    Workspace,
)
from workspaces.standing import uses_of

MEMBERS_SHOWN = 100


class PauseForm(forms.Form):
    reason = forms.CharField(
        max_length=200, help_text="Members read it with every question that is refused."
    )


class PausedFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("paused", "Paused"), ("open", "Not paused"), ("near", "Near a quota")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case "paused":
                return queryset.filter(paused_at__isnull=False)
            case "open":
                return queryset.filter(paused_at__isnull=True)
            case "near":
                near = near_a_quota(timezone.now(), at_most=500)
                return queryset.filter(pk__in=[workspace.pk for workspace, _ in near])
        return queryset


class WorkspaceAdmin(MemberPages, Console):
    noun = "workspace"
    form = SinceOpened
    list_display = ("name", "state", "under_way", "cost_today", "cost_month", "quota_bars")
    list_filter = (PausedFilter,)
    labels = {
        "slug": "Short name",
        "on_excess": "More models than there is room for",
        "allow_unpriced": "Models without a price",
    }
    search_fields = ("name", "slug", "id")
    search_help_text = "By name, short name or id."
    ordering = ("name", "pk")
    sortable_by = ("name",)
    fieldsets = (
        (None, {"fields": ("name", "slug", "time_zone")}),
        ("Where a question does not fit", {"fields": ("on_excess", "allow_unpriced")}),
    )
    inlines = (QuotaInline,)

    def pages(self) -> tuple[tuple[str, str, Page, str], ...]:
        return (
            ("<uuid:pk>/pause/", "pause", self.pause_page, "workspaces.change_workspace"),
            ("<uuid:pk>/resume/", "resume", self.resume_page, "workspaces.change_workspace"),
            *self.member_pages(),
        )

    # --- the list ---------------------------------------------------------------------------------

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """The page's rows with their standing: one look at the ledger for all of them."""
        found = super().get_changelist_instance(request)
        rows = list(found.result_list)
        stands = stands_of(rows, timezone.now())
        for row in rows:
            row.stand = stands[row.pk]
        found.result_list = rows
        return found

    @admin.display(description="State")
    def state(self, row: Workspace) -> SafeString:
        return mark("bad", "paused") if row.paused_at else mark("quiet", "open")

    @admin.display(description="Under way")
    def under_way(self, row: Any) -> int:
        stand: Stand = row.stand
        return stand.runs

    @admin.display(description="Cost today")
    def cost_today(self, row: Any) -> str:
        return money(row.stand.today.cost_micro_usd)

    @admin.display(description="This month")
    def cost_month(self, row: Any) -> str:
        return money(row.stand.month.cost_micro_usd)

    @admin.display(description="Quotas")
    def quota_bars(self, row: Any) -> SafeString | str:
        return bars(row.stand.uses, lasting=True)

    # --- one workspace ----------------------------------------------------------------------------

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if db_field.name == "slug":
            field.error_messages |= {
                "invalid": "A short name has letters, digits, hyphens and underscores alone.",
                "unique": "There is a workspace of this short name already.",
            }
        return field

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        row = self.get_object(request, object_id)
        known = self._known(request, row) if isinstance(row, Workspace) else {}
        return super().change_view(request, object_id, form_url, {**known, **(extra_context or {})})

    def _known(self, request: HttpRequest, row: Workspace) -> dict[str, Any]:
        """What the page of a workspace shows beside its form."""
        now = timezone.now()
        members = Membership.objects.in_workspace(row).select_related("user").order_by("pk")
        keys = ApiKey.objects.in_workspace(row)
        live = keys.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=now), revoked_at=None)
        return {
            "workspace_row": row,
            "stand": stands_of([row], now)[row.pk],
            "bars": bars(uses_of(row)),
            "members": members[:MEMBERS_SHOWN],
            "members_in_all": members.count(),
            "open_invitations": Invitation.objects.in_workspace(row)
            .filter(accepted_at=None, withdrawn_at=None, expires_at__gt=now)
            .count(),
            "live_keys": live.count(),
            "all_keys": keys.count(),
            "may_add_member": request.user.has_perm("workspaces.add_membership"),
            "may_change_member": request.user.has_perm("workspaces.change_membership"),
            "may_remove_member": request.user.has_perm("workspaces.delete_membership"),
            "paused_since": when(row.paused_at) if row.paused_at else "",
        }

    def tools(self, request: HttpRequest, row: Workspace) -> Iterable[tuple[str, str]]:
        if self.may(request, "change"):
            page, words = ("resume", "Resume") if row.paused_at else ("pause", "Pause")
            yield words, console_url(Workspace, page, row.pk)
        for model, words in (
            (ApiKey, "Keys"),
            (Reservation, "Ledger"),
            (Counter, "Counters"),
            (QuotaOverride, "Overrides"),
            (AuditEntry, "Audit log"),
        ):
            if request.user.has_perm(f"workspaces.view_{model._meta.model_name}"):
                yield words, console_url(model, workspace=row.pk)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Save the quotas, and log each."""
        if formset.model is not Quota:
            super().save_formset(request, form, formset, change)
            return
        rows = Quota.objects.in_workspace(form.instance).select_related("workspace")
        before = {row.pk: state_of(row) for row in rows}
        for each in formset.deleted_forms:
            if each.instance.pk is not None:
                note(request, "quota.removed", each.instance, before=before.get(each.instance.pk))
        super().save_formset(request, form, formset, change)
        changed = [row for row, _ in formset.changed_objects]
        uses = uses_of(form.instance)
        for row in [*formset.new_objects, *changed]:
            old, new = before.get(row.pk, {}), state_of(row)
            if old != new:
                note(request, "quota.set", row, before=old, after=new)
                if words := consequence_of(row, uses):
                    self.message_user(request, words, messages.WARNING)

    # --- pausing ----------------------------------------------------------------------------------

    def pause_page(self, request: HttpRequest, pk: Any) -> HttpResponse:
        row: Workspace = self.found(pk)

        def plan(given: Given) -> Plan:
            if row.paused_at is not None:
                raise NotNow("It is paused already.")
            return Plan(
                (
                    "Nothing new is started in it until it is resumed; runs under way go on.",
                    "Its members can still read everything.",
                ),
                (("State", "open", f"paused: {given['reason']}"),),
            )

        def do(given: Given) -> str:
            locked, now = lock_workspace(row)
            if locked.paused_at is not None:
                raise NotNow("It is paused already.")
            return self._set_pause(request, locked, now, given["reason"])

        return confirm(
            request,
            self.admin_site,
            Step(
                title=f"Pause {row}",
                button="Pause it",
                back=console_url(Workspace, "change", pk),
                plan=plan,
                do=do,
                form=PauseForm,
            ),
        )

    def resume_page(self, request: HttpRequest, pk: Any) -> HttpResponse:
        row: Workspace = self.found(pk)

        def plan(_: Given) -> Plan:
            if row.paused_at is None:
                raise NotNow("It is not paused.")
            return Plan((), (("State", f"paused: {row.paused_reason}", "open"),))

        def do(_: Given) -> str:
            locked, _now = lock_workspace(row)
            return self._set_pause(request, locked, None, "")

        return confirm(
            request,
            self.admin_site,
            Step(
                title=f"Resume {row}",
                button="Resume it",
                back=console_url(Workspace, "change", pk),
                plan=plan,
                do=do,
            ),
        )

    def _set_pause(self, request: HttpRequest, locked: Workspace, at: Any, reason: str) -> str:
        before = state_of(locked)
        locked.paused_at, locked.paused_reason = at, reason
        locked.save(update_fields=["paused_at", "paused_reason"])
        verb = "paused" if at else "resumed"
        note(request, f"workspace.{verb}", locked, before=before, after=state_of(locked))
        return f"{locked} is {verb}."
