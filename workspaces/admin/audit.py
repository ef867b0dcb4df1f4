"""The audit log: who changed what, before and after. Nobody changes or deletes an entry here."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from workspaces.admin.console import Console, ReadOnly
from workspaces.admin.show import ShortList, WorkspaceFilter, differences, workspace_link
from workspaces.models import AuditEntry


class ActionFilter(ShortList):
    title = "action"
    parameter_name = "action"
    column = "action"
    at_most = 60

    def offered(self, model_admin: Any) -> list[tuple[str, str]]:
        rows = AuditEntry.objects.everywhere().order_by(self.column)
        values = rows.values_list(self.column, flat=True).distinct()[: self.at_most]
        return [(value, value) for value in values]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        return queryset.filter(**{self.column: value}) if value else queryset


class ActorFilter(ActionFilter):
    title = "actor"
    parameter_name = "actor"
    column = "actor"
    at_most = 30


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnly, Console):
    heading = "Audit log"
    list_display = ("at", "actor", "action", "object_name", "in_workspace", "changed")
    list_display_links = ("at",)
    list_filter = (ActionFilter, ActorFilter, WorkspaceFilter)
    list_select_related = ("workspace",)
    search_fields = ("actor", "action", "object_name", "object_id", "workspace_name", "request_id")
    search_help_text = "By actor, action, name or id of the object, workspace, or request id."
    date_hierarchy = "at"
    ordering = ("-at", "-pk")
    sortable_by = ("at",)
    fields = (
        "at", "actor", "action", "object_type", "object_name", "object_id", "in_workspace",
        "request_id", "side_by_side",
    )  # fmt: skip

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        # What the history of a row links to.
        return lookup in ("object_type", "object_id") or super().lookup_allowed(
            lookup, value, request
        )

    @admin.display(description="Workspace", ordering="workspace__name")
    def in_workspace(self, entry: AuditEntry) -> SafeString | str:
        # Of one that was deleted the name is left.
        return workspace_link(entry.workspace) if entry.workspace else entry.workspace_name

    @admin.display(description="Changed")
    def changed(self, entry: AuditEntry) -> str:
        return ", ".join(sorted(entry.before | entry.after))

    @admin.display(description="Before and after")
    def side_by_side(self, entry: AuditEntry) -> SafeString | str:
        return differences(entry.before, entry.after)
