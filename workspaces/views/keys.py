"""The API keys of a workspace: members see them, owners manage them, viewers see none.

A viewer only looks at runs; what programs may do in the workspace is no part of that.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from workspaces.access import Actor
from workspaces.actions.issue_key import issue_key
from workspaces.actions.revoke_key import revoke_key
from workspaces.actions.rotate_key import rotate_key
from workspaces.actions.set_key_quota import set_key_quota
from workspaces.domain.quotas import BUDGETS, Dimension, Use, key_scope
from workspaces.forms import IssueForm, QuotasForm, RotateForm
from workspaces.models import ApiKey, Quota
from workspaces.refused import AlreadyMade, Refused
from workspaces.standing import uses_of
from workspaces.views.asking import made_already, member, owner, page_of, request_id_of
from workspaces.words import DIMENSIONS, SCOPES, STATES, amount, state_of_key

_ENDED = ("expired", "revoked")


def _seer(request: HttpRequest) -> Actor:
    actor = member(request)
    if not actor.may_write:
        raise PermissionDenied(_("Viewers do not see the API keys of the workspace."))
    return actor


def _key(actor: Actor, public: str) -> ApiKey:
    """Foreign and unknown ones are one answer."""
    rows = ApiKey.objects.in_workspace(actor.workspace)
    found = rows.select_related("workspace", "replaced_by").filter(public=public).first()
    if found is None:
        raise Http404
    return found


def _shown(key: ApiKey, now: datetime) -> dict[str, Any]:
    state = state_of_key(key, now)
    return {
        "public": key.public,
        "name": key.name,
        "state": state,
        "state_word": STATES[state],
        "ended": state in _ENDED,
        "rights": _rights(key),
        "created_by": key.created_by,
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "successor": key.replaced_by,
    }


def _rights(key: ApiKey) -> list[Any]:
    """What the key may, in words."""
    if set(key.scopes) >= set(SCOPES):
        return [_("everything")]
    return [word for scope, word in SCOPES.items() if scope in key.scopes]


@login_required
@require_safe
def show_all(request: HttpRequest) -> HttpResponse:
    """Those that open something first, each sort newest first."""
    actor = _seer(request)
    now = timezone.now()
    rows = ApiKey.objects.in_workspace(actor.workspace).select_related("replaced_by")
    keys = [_shown(key, now) for key in rows.order_by("-created_at", "-pk")]
    context = {
        "live": [key for key in keys if not key["ended"]],
        "ended": [key for key in keys if key["ended"]],
        "may_manage": actor.may_manage,
    }
    return page_of(request, actor, "workspaces/keys.html", context)


@never_cache
@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def issue(request: HttpRequest) -> HttpResponse:
    """The form; POST answers with the key, whole, once."""
    actor = owner(request)
    if request.method != "POST":
        return page_of(request, actor, "workspaces/key_new.html", {"form": IssueForm()})
    form = IssueForm(request.POST)
    if form.is_valid():
        lives = form.cleaned_data["expires"]
        try:
            whole = issue_key(
                workspace=actor.workspace,
                name=form.cleaned_data["name"],
                scopes=form.cleaned_data["scopes"],
                expires_at=timezone.now() + lives if lives else None,
                by=actor,
                request_id=request_id_of(request),
                mark=form.cleaned_data["mark"],
            )
        except AlreadyMade:
            return made_already(request, actor, "key")
        except Refused as refused:
            form.add_error(None, str(refused))
        else:
            return _once(request, actor, whole)
    return page_of(request, actor, "workspaces/key_new.html", {"form": form}, status=400)


def _once(
    request: HttpRequest, actor: Actor, whole: str, replaced: ApiKey | None = None
) -> HttpResponse:
    """The only page that ever holds a key; no cache keeps it."""
    key = _key(actor, whole.split("-")[2])
    if replaced is not None:
        replaced.refresh_from_db()
    context = {
        "whole": whole,
        "key": key,
        "replaced": replaced,
        "example": _example(request, whole, key.scopes),
    }
    return page_of(request, actor, "workspaces/key_once.html", context)


def _example(request: HttpRequest, whole: str, scopes: Sequence[str]) -> str:
    """A line for a terminal that works with this key."""
    header = f'-H "Authorization: Bearer {whole}"'
    if ApiKey.Scope.RUNS_WRITE in scopes:
        address = request.build_absolute_uri("/api/run")
        body = """-H "Content-Type: application/json" -d '{"prompt": "Why is the sky blue?"}'"""
        return f"curl {address} {header} {body}"
    path = "/api/runs" if ApiKey.Scope.RUNS_READ in scopes else "/api/quotas"
    return f"curl {request.build_absolute_uri(path)} {header}"


@login_required
@require_safe
def show(request: HttpRequest, public: str) -> HttpResponse:
    actor = _seer(request)
    return _page(request, actor, _key(actor, public))


def _page(
    request: HttpRequest,
    actor: Actor,
    key: ApiKey,
    *,
    quotas: QuotasForm | None = None,
    problem: str = "",
    status: int = 200,
) -> HttpResponse:
    now = timezone.now()
    shown = _shown(key, now)
    uses = uses_of(actor.workspace, {key_scope(key.lineage)}, now)
    may_change = actor.may_manage and key.is_live(now)
    context = {
        "key": shown,
        "uses": [_shown_use(use) for use in uses],
        "may_change": may_change,
        "may_follow": may_change and key.replaced_by is None,
        "quotas": quotas or QuotasForm(_current(key)),
        "rotate": RotateForm(),
        "problem": problem,
    }
    return page_of(request, actor, "workspaces/key.html", context, status=status)


def _current(key: ApiKey) -> dict[Dimension, int]:
    rows = Quota.objects.in_workspace(key.workspace).filter(api_key=key)
    return {Dimension(row.dimension): row.limit for row in rows}


def _shown_use(use: Use) -> dict[str, Any]:
    dimension = use.limit.dimension
    taken = use.used + use.reserved
    return {
        "name": DIMENSIONS[dimension],
        "is_bound": dimension is Dimension.FANOUT_WIDTH,
        "taken": amount(dimension, taken),
        "limit": amount(dimension, use.limit.value),
        "percent": min(100, taken * 100 // use.limit.value) if use.limit.value else 100,
        "renews_at": use.renews_at if dimension in BUDGETS else None,
    }


@login_required
@require_POST
def set_quotas(request: HttpRequest, public: str) -> HttpResponse:
    """All limits of the key, or none where one of them cannot be."""
    actor = owner(request)
    key = _key(actor, public)
    current = _current(key)
    form = QuotasForm(current, request.POST)
    if not form.is_valid():
        return _page(request, actor, key, quotas=form, status=400)
    try:
        with transaction.atomic():
            for dimension, limit in form.limits.items():
                if limit != current.get(dimension):
                    set_key_quota(
                        key=key,
                        dimension=dimension,
                        limit=limit,
                        by=actor,
                        request_id=request_id_of(request),
                    )
    except Refused as refused:
        return _page(request, actor, key, quotas=form, problem=str(refused), status=409)
    messages.success(request, _("The limits of this key are set."))
    return redirect("key", public=public)


@never_cache
@login_required
@require_POST
def rotate(request: HttpRequest, public: str) -> HttpResponse:
    """Answers with the new key, whole, once."""
    actor = owner(request)
    key = _key(actor, public)
    form = RotateForm(request.POST)
    if not form.is_valid():
        problem = _("Choose one of the times that are offered.")
        return _page(request, actor, key, problem=problem, status=400)
    try:
        whole = rotate_key(
            key=key,
            grace=form.cleaned_data["grace"],
            by=actor,
            request_id=request_id_of(request),
            mark=form.cleaned_data["mark"],
        )
    except AlreadyMade:
        return made_already(request, actor, "key")
    except Refused as refused:
        return _page(request, actor, key, problem=str(refused), status=409)
    return _once(request, actor, whole, replaced=key)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def revoke(request: HttpRequest, public: str) -> HttpResponse:
    """Asks once more, then revokes."""
    actor = owner(request)
    key = _key(actor, public)
    if request.method != "POST":
        if key.revoked_at is not None:
            return redirect("key", public=public)
        context = {"key": _shown(key, timezone.now())}
        return page_of(request, actor, "workspaces/key_revoke.html", context)
    revoke_key(key=key, by=actor, request_id=request_id_of(request))
    messages.success(request, _("The key “%(name)s” is revoked.") % {"name": key.name})
    return redirect("keys")
