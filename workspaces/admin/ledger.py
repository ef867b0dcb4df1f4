"""The ledger: what was reserved, what was used. Read-only; a counter can be made again from it."""

from typing import Any

from django.contrib import admin
from django.db.models import F, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.safestring import SafeString

from workspaces.admin.confirm import Plan, Step, confirm
from workspaces.admin.console import Console, Page, ReadOnly, console_url, note
from workspaces.admin.show import (
    NOTHING,
    WorkspaceFilter,
    link,
    mark,
    money,
    when,
    workspace_link,
)
from workspaces.counting import SUMS, lock_workspace, recount, save_counters
from workspaces.models import ApiKey, Counter, Lease, Reservation

OVER = Q(leases__tokens__gt=F("leases__bound_tokens")) | Q(
    leases__cost_micro_usd__gt=F("leases__bound_micro_usd")
)


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("open", "Open"), ("closed", "Closed"), ("over", "Used more than its bound")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case "open":
                return queryset.filter(closed_at__isnull=True)
            case "closed":
                return queryset.filter(closed_at__isnull=False)
            case "over":
                over = Reservation.objects.everywhere().filter(OVER).values("pk")
                return queryset.filter(pk__in=over)
        return queryset


class LeaseInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = Lease
    verbose_name_plural = "leases: one for each call, one for all drafts of the synthesis"
    fields = (
        "name", "bound_tokens", "reserved_tokens", "tokens", "bound", "reserved", "used",
        "closed_at",
    )  # fmt: skip
    readonly_fields = ("bound", "reserved", "used")
    ordering = ("name",)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("workspaces.view_reservation")

    @admin.display(description="Bound in dollars")
    def bound(self, lease: Lease) -> str:
        return money(lease.bound_micro_usd)

    @admin.display(description="Reserved in dollars")
    def reserved(self, lease: Lease) -> str:
        return money(lease.reserved_micro_usd)

    @admin.display(description="Used in dollars")
    def used(self, lease: Lease) -> str:
        return money(lease.cost_micro_usd)


@admin.register(Reservation)
class ReservationAdmin(ReadOnly, Console):
    heading = "Ledger"
    list_display = (
        "created_at", "in_workspace", "state", "pipeline", "key", "held_tokens",
        "held_money", "used_tokens", "used_money", "work",
    )  # fmt: skip
    list_display_links = ("created_at",)
    list_filter = (StateFilter, WorkspaceFilter, "pipeline")
    list_select_related = ("workspace",)
    search_fields = ("=subject", "=key_public", "workspace__name")
    search_help_text = "By the id of the run, the public part of the key, or the workspace."
    date_hierarchy = "created_at"
    ordering = ("-created_at", "-pk")
    sortable_by = ("created_at",)
    fields = (
        "in_workspace", "work", "state", "pipeline", "key", "day", "month", "created_at",
        "closed_at", "held_tokens", "held_money", "used_tokens", "used_money",
    )  # fmt: skip
    inlines = (LeaseInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # Summed for the rows of a page, rather than for all there are.
        return super().get_queryset(request).prefetch_related("leases")

    @admin.display(description="Workspace")
    def in_workspace(self, row: Reservation) -> SafeString | str:
        return workspace_link(row.workspace)

    @admin.display(description="State")
    def state(self, row: Reservation) -> SafeString:
        return mark("running", "open") if row.closed_at is None else mark("quiet", "closed")

    def called(self, row: Reservation) -> str:
        return f"Reservation for {row.subject}"

    @admin.display(description="Key")
    def key(self, row: Reservation) -> SafeString | str:
        if not row.key_public:
            return NOTHING
        return link(console_url(ApiKey, q=row.key_public), row.key_public)

    @admin.display(description="Tokens held")
    def held_tokens(self, row: Reservation) -> str:
        return f"{sum(each.reserved_tokens for each in row.leases.all()):,}"

    @admin.display(description="Money held")
    def held_money(self, row: Reservation) -> str:
        return money(sum(each.reserved_micro_usd for each in row.leases.all()))

    @admin.display(description="Tokens used")
    def used_tokens(self, row: Reservation) -> str:
        return f"{sum(each.tokens for each in row.leases.all()):,}"

    @admin.display(description="Money used")
    def used_money(self, row: Reservation) -> str:
        return money(sum(each.cost_micro_usd for each in row.leases.all()))

    @admin.display(description="Run")
    def work(self, row: Reservation) -> SafeString:
        # By name: what a subject is, is known a layer above.
        return link(reverse("admin:orchestration_run_change", args=[row.subject]), row.subject)


@admin.register(Counter)
class CounterAdmin(ReadOnly, Console):
    list_display = (
        "__str__", "in_workspace", "runs", "tokens", "tokens_reserved", "used", "reserved",
    )  # fmt: skip
    list_filter = (WorkspaceFilter,)
    list_select_related = ("workspace",)
    search_fields = ("scope", "=window", "workspace__name")
    search_help_text = "By scope (key:…, pipeline:…), day or month (2026-11-23), or workspace."
    ordering = ("-window", "workspace", "scope")
    sortable_by = ()
    fields = (
        "in_workspace", "counts", "during", "runs", "rate_is_full", "tokens", "tokens_reserved",
        "used", "reserved",
    )  # fmt: skip

    def pages(self) -> tuple[tuple[str, str, Page, str], ...]:
        return (
            ("<int:pk>/recount/", "recount", self.recount_page, "workspaces.change_counter"),
        )  # fmt: skip

    def called(self, row: Counter) -> str:
        return f"Counter of {row.workspace}"

    def tools(self, request: HttpRequest, row: Counter) -> list[tuple[str, str]]:
        if not self.may(request, "change"):
            return []
        return [("Recount from the ledger", console_url(Counter, "recount", row.pk))]

    def recount_page(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Make a counter again from the ledger, under the lock admissions take."""
        counter: Counter = self.found(pk)

        def plan(_: Any) -> Plan:
            fresh = Counter.objects.in_workspace(counter.workspace).get(pk=pk)
            before = _sums(fresh)
            recount(fresh)
            after = _sums(fresh)
            changes = tuple(
                (name, before[name], after[name]) for name in before if before[name] != after[name]
            )
            said = "It differs from the ledger:" if changes else "It says what the ledger says."
            return Plan((said,), changes)

        def do(_: Any) -> str:
            lock_workspace(counter.workspace)
            fresh = Counter.objects.in_workspace(counter.workspace).get(pk=pk)
            before = _raw(fresh)
            recount(fresh)
            save_counters([fresh])
            note(request, "counter.recounted", fresh, before=before, after=_raw(fresh))
            return "The counter says what the ledger says."

        return confirm(
            request,
            self.admin_site,
            Step(
                title=f"Recount {counter}",
                button="Recount",
                back=console_url(Counter, "change", pk),
                plan=plan,
                do=do,
            ),
        )

    @admin.display(description="Workspace")
    def in_workspace(self, row: Counter) -> SafeString | str:
        return workspace_link(row.workspace)

    @admin.display(description="Counts")
    def counts(self, row: Counter) -> str:
        return row.scope.replace(":", " ", 1) or "the whole workspace"

    @admin.display(description="During")
    def during(self, row: Counter) -> str:
        return row.window or "now: runs under way, and the rate of requests"

    @admin.display(description="Rate is whole again at")
    def rate_is_full(self, row: Counter) -> str:
        return NOTHING if row.tat is None else when(row.tat)

    @admin.display(description="Money used")
    def used(self, row: Counter) -> str:
        return money(row.cost_micro_usd)

    @admin.display(description="Money reserved")
    def reserved(self, row: Counter) -> str:
        return money(row.cost_reserved_micro_usd)


def _raw(counter: Counter) -> dict[str, int]:
    return {name: getattr(counter, name) for name in ("runs", *SUMS)}


def _sums(counter: Counter) -> dict[str, str]:
    return {
        name: money(value) if name.startswith("cost") else f"{value:,}"
        for name, value in _raw(counter).items()
    }
