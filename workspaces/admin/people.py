"""Users and groups: superusers' business, since whoever changes a user can become one."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.forms import UserChangeForm
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.http import HttpRequest, HttpResponse

from workspaces.admin.console import Console, note
from workspaces.admin.meanwhile import SinceOpened
from workspaces.members import is_last_owner

admin.site.unregister(User)
admin.site.unregister(Group)

MANY = ("groups", "user_permissions", "permissions")


class ForSuperusers(Console):
    """Pages for superusers alone, whatever permissions another one was given."""

    filter_horizontal = ()

    def has_module_permission(self, request: HttpRequest) -> bool:
        return request.user.is_superuser

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.is_superuser

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # Not oneself: the last superuser would be gone by one click.
        return request.user.is_superuser and obj != request.user

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        before = _many(form.instance)
        super().save_related(request, form, formsets, change)
        after = _many(form.instance)
        if before != after:
            note(request, f"{self.noun}.rights_changed", form.instance, before=before, after=after)


def _many(row: Any) -> dict[str, Any]:
    """What ``row`` is given through other tables, by name."""
    return {
        name: sorted(str(each) for each in getattr(row, name).all())
        for name in MANY
        if hasattr(row, name)
    }


class UserForm(SinceOpened, UserChangeForm):  # type: ignore[type-arg]
    """Rights that another superuser took away do not come back with an older form."""


@admin.register(User)
class RexUserAdmin(ForSuperusers, UserAdmin):  # type: ignore[type-arg]
    noun = "user"
    form = UserForm
    list_display = ("username", "is_active", "is_staff", "is_superuser", "last_login")
    list_filter = ("is_active", "is_staff", "is_superuser", "groups")
    search_fields = ("username",)
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Rights", {"fields": ("is_active", "is_staff", "is_superuser", "groups")}),
        ("Single permissions", {"fields": ("user_permissions",), "classes": ("collapse",)}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    # Without the choice of a user who has no password: there is no other way to sign in.
    add_fieldsets = ((None, {"fields": ("username", "password1", "password2")}),)
    readonly_fields = ("last_login", "date_joined")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        # One's own rights are another superuser's to take: the last one could not be undone here.
        own = ("is_active", "is_staff", "is_superuser") if obj == request.user else ()
        return (*super().get_readonly_fields(request, obj), *own)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # A workspace whose last owner is gone has nobody to manage its keys, which go on.
        return super().has_delete_permission(request, obj) and not (obj and is_last_owner(obj))

    def user_change_password(
        self, request: HttpRequest, id: str, form_url: str = ""
    ) -> HttpResponse:
        # One transaction with what log_change writes.
        with transaction.atomic():
            return super().user_change_password(request, id, form_url)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> None:  # type: ignore[override]
        if (
            request.resolver_match
            and request.resolver_match.url_name == "auth_user_password_change"
        ):
            note(request, "user.password_set", obj)


@admin.register(Group)
class RexGroupAdmin(ForSuperusers, GroupAdmin):
    noun = "group"
    form = SinceOpened
