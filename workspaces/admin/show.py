"""Pieces of HTML that lists and pages of the console share; every value is escaped."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from workspaces.admin.console import console_url
from workspaces.admin.standings import NEAR, share
from workspaces.admin.units import caption, dollars, shown
from workspaces.domain.quotas import Dimension, Use
from workspaces.models import Workspace

NOTHING = "—"
# Their windows say nothing that lasts: a rate is full again within a minute, a width is never used.
UNSHOWN = frozenset({Dimension.REQUESTS_PER_MINUTE, Dimension.FANOUT_WIDTH})


def money(micro_usd: int | None) -> str:
    return NOTHING if micro_usd is None else f"${dollars(micro_usd)}"


def link(address: str, words: object) -> SafeString:
    return format_html('<a href="{}">{}</a>', address, words)


def workspace_link(workspace: Workspace | None) -> SafeString | str:
    if workspace is None:
        return NOTHING
    return link(console_url(Workspace, "change", workspace.pk), workspace.name)


def mark(kind: str, words: str) -> SafeString:
    """A state in words, with a colour that says no more than they do."""
    return format_html('<span class="mark-{}">{}</span>', kind, words)


def bar(use: Use) -> SafeString:
    """One limit as a bar with its numbers beside it."""
    dimension, most = use.limit.dimension, use.limit.capacity
    name = caption(dimension)
    if use.limit.scope:
        name = f"{name}, {use.limit.scope.replace(':', ' ', 1)}"
    if dimension is Dimension.FANOUT_WIDTH:
        return format_html(
            '<span class="use"><span>{}</span> <span class="num">at most {}</span></span>',
            name, shown(dimension, most),
        )  # fmt: skip
    if most != use.limit.value:
        name = f"{name} ({use.limit.value:,}), at once"
    spent = use.used + use.reserved
    return format_html(
        '<span class="use"><span>{}</span> <meter min="0" max="{}" low="{}" high="{}" optimum="0" '
        'value="{}" aria-label="{}"></meter> <span class="num">{} of {}</span></span>',
        name, max(most, 1), max(most, 1) * NEAR, max(most, 1) * 0.999,
        min(spent, most) if most else 1, name, shown(dimension, spent), shown(dimension, most),
    )  # fmt: skip


def bars(uses: Any, *, lasting: bool = False) -> SafeString | str:
    """Bars below each other; with ``lasting`` only of what does not pass within a minute."""
    kept = [use for use in uses if not (lasting and use.limit.dimension in UNSHOWN)]
    kept.sort(key=lambda use: (use.limit.scope, -share(use)))
    return format_html_join("", "{}", ((bar(use),) for use in kept)) or NOTHING


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> SafeString | str:
    """What differs, side by side."""
    names = sorted({*before, *after})
    if not names:
        return NOTHING
    rows = ((name, _value(before, name), _value(after, name)) for name in names)
    return format_html(
        '<table class="differences"><thead><tr><th scope="col">What</th><th scope="col">Before</th>'
        '<th scope="col">After</th></tr></thead><tbody>{}</tbody></table>',
        format_html_join(
            "", '<tr><th scope="row">{}</th><td>{}</td><td>{}</td></tr>', rows
        ),
    )  # fmt: skip


def _value(state: Mapping[str, Any], name: str) -> str:
    value = state.get(name)
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def when(moment: datetime) -> str:
    """A moment in the site's zone: "23 Nov 2026, 18:04"."""
    return date_format(timezone.localtime(moment), "j M Y, H:i")


def since(moment: datetime) -> str:
    """How long ago, in its largest unit: "12 s", "3 min", "5 h", "2 days"."""
    seconds = max(0, int((timezone.now() - moment).total_seconds()))
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size or (seconds >= size and size < 86_400):
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


class ShortList(admin.SimpleListFilter):
    """A filter over a column of many values: it offers the first few; the search finds the rest."""

    at_most = 30

    def offered(self, model_admin: Any) -> list[tuple[str, str]]:
        raise NotImplementedError

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        rows = self.offered(model_admin)
        chosen = request.GET.get(self.parameter_name or "")
        if chosen and chosen not in dict(rows):
            rows.insert(0, (chosen, self.named(chosen)))
        return rows

    def named(self, value: str) -> str:
        return value

    def has_output(self) -> bool:
        return bool(self.lookup_choices)


class WorkspaceFilter(ShortList):
    title = "workspace"
    parameter_name = "workspace"
    path = "workspace"

    def offered(self, model_admin: Any) -> list[tuple[str, str]]:
        rows = Workspace.objects.order_by("name").values_list("pk", "name")[: self.at_most]
        return [(str(pk), name) for pk, name in rows]

    def named(self, value: str) -> str:
        found = Workspace.objects.filter(pk=value).first() if _is_uuid(value) else None
        return found.name if found else value

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if not value:
            return queryset
        known = Workspace.objects.filter(pk=value) if _is_uuid(value) else Workspace.objects.none()
        return queryset.filter(**{f"{self.path}__in": known})


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
