"""What every page of the console has in common.

No page of it has a script: the site's policy knows no inline script, style or untyped HTML, and
Django's own scripts for the admin need those. What they would add is done by pages instead.

There is one log of changes, ``AuditEntry``. Whatever is saved here goes through ``Console``, which
writes what differs in the transaction of the change; Django's own admin log is not kept beside it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.admin.widgets import RelatedFieldWidgetWrapper
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.text import capfirst

from workspaces.access import CHOSEN, Actor, actor_from_user, operator
from workspaces.actions.record_change import record_change, state_of
from workspaces.admin.meanwhile import GoneMeanwhile
from workspaces.models import Workspace

Page = Callable[..., HttpResponseBase]


def name_of(request: HttpRequest) -> str:
    """How the log calls who is signed in: an operator, who need not be a member."""
    return f"operator {request.user.get_username()}"


def acting_in(request: HttpRequest, workspace: Workspace) -> Actor:
    """The operator as the actions of workspaces want it. The page that asks has checked Django's
    permissions."""
    assert isinstance(request.user, AbstractBaseUser)
    return replace(operator(request.user, workspace), name=name_of(request))


def looking_at(request: HttpRequest) -> Workspace | None:
    """The workspace whose product pages the operator sees, as one of its members."""
    actor = actor_from_user(request.user, request.session.get(CHOSEN))
    return actor.workspace if actor else None


def note(
    request: HttpRequest,
    action: str,
    row: Model,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    """Log ``action`` of the operator, in the transaction of the change."""
    record_change(
        actor=name_of(request),
        user_id=request.user.pk,
        action=action,
        row=row,
        before=before,
        after=after,
        workspace=workspace_of(row),
        request_id=getattr(request, "request_id", ""),
    )


def workspace_of(row: Any) -> Workspace | None:
    """The workspace ``row`` belongs to, if it belongs to one."""
    if isinstance(row, Workspace):
        return row
    found = getattr(row, "workspace", None)
    return found if isinstance(found, Workspace) else None


def console_url(
    model: type[Model] | Model, page: str = "changelist", *args: Any, **query: Any
) -> str:
    """The address of a page of the console, with ``query`` behind it."""
    meta = model._meta
    address = reverse(f"admin:{meta.app_label}_{meta.model_name}_{page}", args=args)
    return f"{address}?{urlencode(query)}" if query else address


class Console(admin.ModelAdmin):  # type: ignore[type-arg]
    """A model's pages. ``noun`` begins the names of its actions in the log ("quota.changed");
    ``labels`` are the words for fields whose names say too little.

    Nothing is deleted here unless a subclass says so.
    """

    noun: ClassVar[str] = ""
    labels: ClassVar[dict[str, str]] = {}
    heading: ClassVar[str] = ""
    list_per_page = 50
    list_max_show_all = 0
    show_full_result_count = False

    def pages(self) -> Sequence[tuple[str, str, Page, str]]:
        """Pages of its own: (route, name, view, the permission it takes)."""
        return ()

    def called(self, row: Any) -> str:
        """What its page is headed with."""
        return str(row)

    def tools(self, request: HttpRequest, row: Any) -> Iterable[tuple[str, str]]:
        """What can be done with ``row``, or where it leads: (words, address)."""
        return ()

    def list_tools(self, request: HttpRequest) -> Iterable[tuple[str, str]]:
        return ()

    def may(self, request: HttpRequest, verb: str) -> bool:
        """Whether Django's permissions let the operator ``verb`` (view, change …) this model."""
        label, name = self.opts.app_label, self.opts.model_name
        return request.user.has_perm(f"{label}.{verb}_{name}")

    def found(self, pk: Any) -> Any:
        """The row, or 404."""
        row = self.model._default_manager.filter(pk=pk).first()
        if row is None:
            raise Http404
        return row

    def get_urls(self) -> list[URLPattern]:
        label, name = self.opts.app_label, self.opts.model_name
        own = [
            path(
                route,
                self.admin_site.admin_view(self._guarded(view, verb)),
                name=f"{label}_{name}_{page}",
            )
            for route, page, view, verb in self.pages()
        ]
        return own + super().get_urls()

    def _guarded(self, view: Page, permission: str) -> Page:
        def guarded(request: HttpRequest, **given: Any) -> HttpResponseBase:
            if not request.user.has_perm(permission):
                raise PermissionDenied
            return view(request, **given)

        return guarded

    # --- how forms look ---------------------------------------------------------------------------

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None and db_field.name in self.labels:
            field.label = self.labels[db_field.name]
        if field is not None and isinstance(field.widget, RelatedFieldWidgetWrapper):
            # Its buttons open windows by script.
            field.widget = field.widget.widget
        return field

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        if request.method != "POST":
            return super().changeform_view(request, object_id, *args, **kwargs)
        try:
            with transaction.atomic():
                self._lock(object_id)
                return super().changeform_view(request, object_id, *args, **kwargs)
        except IntegrityError:
            # Checked before and refused by the database all the same: two were at it at once.
            words = "Someone else changed this at the same moment. Look again."
        except GoneMeanwhile:
            words = "Some of it was taken away meanwhile, and nothing was saved. Look again."
        self.message_user(request, words, messages.ERROR)
        return HttpResponseRedirect(request.get_full_path())

    def _lock(self, object_id: str | None) -> None:
        """Hold the row before it is read: what is compared with the form is what is written to."""
        try:
            pk = self.opts.pk.to_python(unquote(object_id or ""))
        except ValidationError:
            return  # Not an address of anything, which Django says better.
        self.model._default_manager.select_for_update(no_key=True).filter(pk=pk).first()

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        row = kwargs.get("obj")
        if row is not None:
            context |= {
                "tools": list(self.tools(request, row)),
                "title": self.called(row),
                "subtitle": "",
            }
        context["show_save_and_add_another"] = False
        return super().render_change_form(request, context, *args, **kwargs)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        known = {
            "tools": list(self.list_tools(request)),
            "title": self.heading or capfirst(str(self.opts.verbose_name_plural)),
        }
        return super().changelist_view(request, {**known, **(extra_context or {})})

    # --- rights -----------------------------------------------------------------------------------

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    # --- the log ----------------------------------------------------------------------------------

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if not change:
            super().save_model(request, obj, form, change)
            note(request, f"{self.noun}.created", obj, after=state_of(obj))
            return
        before = state_of(self.found(obj.pk))
        # Only what was written on the form: a pause that came meanwhile stays.
        columns = {field.name for field in self.opts.concrete_fields}
        obj.save(update_fields=[name for name in form.changed_data if name in columns])
        after = state_of(self.found(obj.pk))
        if before != after:
            note(request, f"{self.noun}.changed", obj, before=before, after=after)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        note(request, f"{self.noun}.deleted", obj, before=state_of(obj))
        super().delete_model(request, obj)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """What was done to a row stands in the audit log."""
        query = urlencode({"object_type": self.opts.label, "object_id": object_id})
        return HttpResponseRedirect(f"{reverse('admin:workspaces_auditentry_changelist')}?{query}")

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> None:  # type: ignore[override]
        """Django's own log is not kept: ``save_model`` and its like have written ours."""

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> None:  # type: ignore[override]
        """As ``log_addition``."""

    def log_deletions(self, request: HttpRequest, queryset: Any) -> None:  # type: ignore[override]
        """As ``log_addition``."""


class ReadOnly:
    """A record: shown to whoever may view it, never written by hand."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
