"""The usage page, and runs and use as CSV."""

from collections.abc import AsyncIterator, Mapping
from datetime import date

from django.contrib.auth.decorators import login_required
from django.core.exceptions import BadRequest, PermissionDenied
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from orchestration.domain.spans import DEFAULT_PERIOD, PERIODS, Span, span_of, today_in
from orchestration.models import Run
from orchestration.quota_bars import held_in, quota_bars
from orchestration.run_filter import (
    PARAMETERS,
    BadFilter,
    RunFilter,
    read_filter,
    read_span,
    read_what_can_be_read,
)
from orchestration.usage import usage_of
from orchestration.usage_csv import runs_csv, usage_csv
from workspaces.access import Actor
from workspaces.authentication import reader_of
from workspaces.models import ApiKey, Workspace

# The span is read by itself.
_PARAMETERS = [name for name in PARAMETERS if name not in ("from", "to")]


def _actor(request: HttpRequest) -> Actor:
    actor = reader_of(request)
    if actor is None:
        raise PermissionDenied(_("You are not a member of any workspace."))
    if not actor.may_see_usage:
        raise PermissionDenied(_("You may not see what this workspace uses."))
    return actor


@login_required
@require_safe
def usage(request: HttpRequest) -> HttpResponse:
    """What the workspace used, and how it stands against its quotas."""
    workspace = _actor(request).workspace
    now = timezone.now()
    today = today_in(workspace.time_zone, now)
    wanted, wrong = read_what_can_be_read(request.GET, _PARAMETERS)
    span, bad = _span(request.GET, today)
    used = usage_of(workspace, span, wanted)
    context = {
        "usage": used,
        "wanted": wanted,
        "wrong": [*wrong, *bad],
        "zone": workspace.time_zone,
        "today": today,
        "now": now,
        "periods": PERIODS.items(),
        "period": next((name for name in PERIODS if span_of(name, today) == span), ""),
        "span_query": RunFilter(since=span.first, until=span.last).params,
        "bars": quota_bars(workspace, now),
        "held": held_in(workspace),
        "key_names": _key_names(workspace),
        "ever": bool(used.runs) or Run.objects.in_workspace(workspace).exists(),
    }
    return render(request, "orchestration/usage.html", context)


def _key_names(workspace: Workspace) -> dict[str, str]:
    """What keys are called, by the name under which they start runs."""
    keys = ApiKey.objects.in_workspace(workspace).values_list("public", "name")
    return {f"key {public}": name for public, name in keys}


def _span(params: Mapping[str, str], today: date) -> tuple[Span, list[BadFilter]]:
    try:
        return read_span(params, today), []
    except BadFilter as bad:
        return span_of(DEFAULT_PERIOD, today), [bad]


@login_required
@require_safe
def usage_as_csv(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    workspace = _actor(request).workspace
    try:
        wanted = read_filter(request.GET)
        span = read_span(request.GET, today_in(workspace.time_zone, timezone.now()))
    except BadFilter as bad:
        # Not left out as on the page: a file cannot say that there is more in it than was asked.
        raise BadRequest(bad.message) from None
    return _csv(request, "rex-usage.csv", usage_csv(workspace, span, wanted))


@login_required
@require_safe
def runs_as_csv(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    workspace = _actor(request).workspace
    try:
        wanted = read_filter(request.GET)
    except BadFilter as bad:
        raise BadRequest(bad.message) from None
    return _csv(request, "rex-runs.csv", runs_csv(workspace, wanted))


def _csv(
    request: HttpRequest, name: str, pieces: AsyncIterator[bytes]
) -> HttpResponse | StreamingHttpResponse:
    kind = "text/csv; charset=utf-8"
    # A question for the headers alone reads no runs.
    read = request.method == "GET"
    response = StreamingHttpResponse(pieces, content_type=kind) if read else HttpResponse(b"", kind)
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["Cache-Control"] = "no-store"
    return response
