"""API keys: looked at, revoked, rotated. Their secrets are nowhere, for there are only digests."""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString

from workspaces.actions.revoke_key import revoke_key
from workspaces.actions.rotate_key import rotate_key
from workspaces.admin.confirm import Given, Plan, Step, confirm
from workspaces.admin.console import Console, Page, ReadOnly, acting_in, console_url
from workspaces.admin.show import NOTHING, WorkspaceFilter, bars, link, mark, when, workspace_link
from workspaces.domain.quotas import key_scope
from workspaces.models import ApiKey, Reservation
from workspaces.standing import uses_of
from workspaces.words import state_of_key

UNUSED_DAYS = 90
_MARKS = {
    "active": ("good", "live"),
    "replaced": ("near", "being replaced"),
    "expired": ("quiet", "expired"),
    "revoked": ("bad", "revoked"),
}
GRACES = {
    "0": ("Ends at once", timedelta(0)),
    "1h": ("1 hour", timedelta(hours=1)),
    "24h": ("24 hours", timedelta(hours=24)),
    "7d": ("7 days", timedelta(days=7)),
}


class RotateForm(forms.Form):
    grace = forms.ChoiceField(
        label="The old key goes on for",
        choices=[(name, words) for name, (words, _) in GRACES.items()],
        initial="24h",
    )


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("live", "Live"),
            ("expired", "Expired"),
            ("revoked", "Revoked"),
            ("unused", f"Live and unused for {UNUSED_DAYS} days"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        now = timezone.now()
        live = Q(revoked_at__isnull=True) & (Q(expires_at__isnull=True) | Q(expires_at__gt=now))
        ago = now - timedelta(days=UNUSED_DAYS)
        match self.value():
            case "live":
                return queryset.filter(live)
            case "expired":
                return queryset.filter(revoked_at__isnull=True, expires_at__lte=now)
            case "revoked":
                return queryset.filter(revoked_at__isnull=False)
            case "unused":
                never = Q(last_used_at__isnull=True, created_at__lte=ago)
                return queryset.filter(live).filter(Q(last_used_at__lte=ago) | never)
        return queryset


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnly, Console):
    heading = "Keys"
    list_display = (
        "public", "name", "in_workspace", "state", "scopes_of", "last_used_at", "expires_at",
        "created_at",
    )  # fmt: skip
    list_filter = (StateFilter, WorkspaceFilter)
    list_select_related = ("workspace",)
    search_fields = ("public", "lineage", "name", "workspace__name")
    search_help_text = "By public part, name or workspace."
    ordering = ("-created_at", "-pk")
    sortable_by = ("created_at", "last_used_at", "expires_at")
    fields = (
        "public", "name", "in_workspace", "state", "scopes_of", "created_at", "created_by",
        "expires_at", "last_used_at", "revoked_at", "successor", "lineage", "usage", "ledger",
    )  # fmt: skip
    readonly_fields = ("lineage",)

    def pages(self) -> tuple[tuple[str, str, Page, str], ...]:
        return (
            ("<int:pk>/revoke/", "revoke", self.revoke_page, "workspaces.change_apikey"),
            ("<int:pk>/rotate/", "rotate", self.rotate_page, "workspaces.change_apikey"),
        )

    def tools(self, request: HttpRequest, row: ApiKey) -> list[tuple[str, str]]:
        if row.revoked_at is not None or not self.may(request, "change"):
            return []
        found = [("Revoke", console_url(ApiKey, "revoke", row.pk))]
        if row.is_live(timezone.now()) and row.replaced_by_id is None:
            found.insert(0, ("Rotate", console_url(ApiKey, "rotate", row.pk)))
        return found

    def revoke_page(self, request: HttpRequest, pk: int) -> HttpResponse:
        key: ApiKey = self.found(pk)

        def do(_: Given) -> str:
            revoke_key(
                key=key,
                by=acting_in(request, key.workspace),
                request_id=getattr(request, "request_id", ""),
            )
            return "The key is revoked."

        return confirm(
            request,
            self.admin_site,
            Step(
                title=f"Revoke {key}",
                button="Revoke it",
                back=console_url(ApiKey, "change", pk),
                plan=lambda _: Plan(
                    (
                        f"Programs of {key.workspace} that use it are refused from now on, and "
                        "what they have open is closed within seconds. It cannot be undone.",
                        _last_use(key),
                    )
                ),
                do=do,
                danger=True,
            ),
        )

    def rotate_page(self, request: HttpRequest, pk: int) -> HttpResponse:
        key: ApiKey = self.found(pk)

        def plan(given: Given) -> Plan:
            words, grace = GRACES[given["grace"]]
            ends = f"is accepted until {when(timezone.now() + grace)}" if grace else words.lower()
            return Plan(
                (
                    "A new key with the same name, scopes and quotas is made and shown once.",
                    f"The old one {ends}.",
                    _last_use(key),
                )
            )

        def do(given: Given) -> HttpResponse:
            whole = rotate_key(
                key=key,
                grace=GRACES[given["grace"]][1],
                by=acting_in(request, key.workspace),
                request_id=getattr(request, "request_id", ""),
            )
            context = {
                **self.admin_site.each_context(request),
                "title": "The new key",
                "key": whole,
                "workspace_name": key.workspace.name,
                "back": console_url(ApiKey, "change", pk),
            }
            response = TemplateResponse(request, "admin/new_key.html", context)
            # Once: no cache, and no "back" of the browser, shows it again.
            response["Cache-Control"] = "no-store"
            return response

        return confirm(
            request,
            self.admin_site,
            Step(
                title=f"Rotate {key}",
                button="Make the new key",
                back=console_url(ApiKey, "change", pk),
                plan=plan,
                do=do,
                form=RotateForm,
            ),
        )

    @admin.display(description="Workspace")
    def in_workspace(self, key: ApiKey) -> SafeString | str:
        return workspace_link(key.workspace)

    @admin.display(description="State")
    def state(self, key: ApiKey) -> SafeString:
        return mark(*_MARKS[state_of_key(key, timezone.now())])

    @admin.display(description="Scopes")
    def scopes_of(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @admin.display(description="Replaced by")
    def successor(self, key: ApiKey) -> SafeString | str:
        if key.replaced_by is None:
            return NOTHING
        return link(console_url(ApiKey, "change", key.replaced_by.pk), key.replaced_by)

    @admin.display(description="Its own quotas")
    def usage(self, key: ApiKey) -> SafeString | str:
        return bars(uses_of(key.workspace, [key_scope(key.lineage)]))

    @admin.display(description="Ledger")
    def ledger(self, key: ApiKey) -> SafeString:
        address = reverse("admin:workspaces_reservation_changelist")
        rows = Reservation.objects.in_workspace(key.workspace).filter(key_public=key.lineage)
        return link(f"{address}?q={key.lineage}", f"{rows.count():,} reservations")


def _last_use(key: ApiKey) -> str:
    if key.last_used_at is None:
        return "It was never used."
    return f"It was last used {when(key.last_used_at)}."
