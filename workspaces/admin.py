"""Workspaces in the admin console."""

from django.contrib import admin

from workspaces.models import ApiKey, Membership, Workspace


class MembershipInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Membership
    extra = 0
    autocomplete_fields = ("user",)


@admin.register(Workspace)
class WorkspaceAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("name", "slug", "created_at")
    search_fields = ("name", "slug")
    prepopulated_fields = {"slug": ("name",)}
    inlines = (MembershipInline,)


@admin.register(ApiKey)
class ApiKeyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Keys are made by ``manage.py issue_key``, which shows them once; here they are revoked."""

    list_display = ("public", "name", "workspace", "created_at", "revoked_at")
    list_filter = ("workspace",)
    readonly_fields = ("workspace", "public", "created_at")
    exclude = ("secret_sha256",)

    def has_add_permission(self, request: object) -> bool:
        return False
