"""Runs in the admin console: to look at, not to edit."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from orchestration.models import Call, Run, RunEvent, Synthesis


class ReadOnly:
    """A record: shown, never changed by hand."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class CallInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = Call
    fields = (
        "label", "model", "state", "reason", "attempt", "cached_age_s", "first_token_ms",
        "duration_ms",
    )  # fmt: skip


class SynthesisInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = Synthesis
    fields = ("version", "kind", "trigger", "state", "reason", "duration_ms")


class RunEventInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = RunEvent
    fields = ("seq", "at_ms", "type", "body")


@admin.register(Run)
class RunAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("id", "workspace", "status", "reason", "pipeline", "created_at", "duration_ms")
    list_filter = ("status", "pipeline", "workspace")
    date_hierarchy = "created_at"
    show_full_result_count = False
    inlines = (CallInline, SynthesisInline, RunEventInline)
