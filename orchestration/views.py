"""The pages: start a run, look at one, list them."""

import uuid
from typing import Any
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from orchestration.actions.cancel_run import cancel_run
from orchestration.actions.start_run import InvalidRun, RunRequest, start_run
from orchestration.catalogue import answering_models
from orchestration.domain.errors import ERROR_ROWS
from orchestration.domain.pipelines import PIPELINES
from orchestration.domain.run import RunStatus
from orchestration.forms import StartForm
from orchestration.models import Run
from orchestration.pauses import pause_of, pauses
from orchestration.problems import PROBLEMS
from orchestration.queries import RunNotFound, run_of, snapshot_of
from orchestration.quota_words import pause_sentence, refusal_sentence
from orchestration.run_filter import calls_of, drafts_of, read_what_can_be_read, runs_of
from orchestration.run_list import BadCursor, list_runs
from orchestration.usage_sums import total_of
from workspaces.access import Actor
from workspaces.actions.reserve import QuotaExceeded, WorkspacePaused
from workspaces.authentication import reader_of

RECENT = 6


def _actor(request: HttpRequest) -> Actor:
    """The signed-in actor; a user without a workspace is told so rather than shown someone's."""
    actor = reader_of(request)
    if actor is None:
        raise PermissionDenied(_("You are not a member of any workspace."))
    return actor


def _writer(request: HttpRequest) -> Actor:
    actor = _actor(request)
    if not actor.may_write:
        raise PermissionDenied(_("You may look at this workspace but not change it."))
    return actor


def _run(actor: Actor, run_id: UUID) -> Run:
    try:
        return run_of(actor.workspace, run_id)
    except RunNotFound:
        raise Http404 from None


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def start(request: HttpRequest) -> HttpResponse:
    """The first page. A refused question comes back with its text and the reason; operators who are
    members nowhere have their first page in the console."""
    if request.user.is_staff and reader_of(request) is None:
        return redirect("admin:index")
    if request.method != "POST":
        form = StartForm(initial={"idempotency_key": uuid.uuid4().hex})
        return _start_page(request, form, _actor(request))
    actor = _writer(request)
    form = StartForm(request.POST)
    if form.is_valid():
        try:
            run = start_run(
                actor=actor,
                request=form.run_request(),
                request_id=getattr(request, "request_id", ""),
            )
            return redirect("run-detail", run_id=run.pk)
        except InvalidRun as error:
            form.refuse(error)
        except (QuotaExceeded, WorkspacePaused) as error:
            form.add_error(None, _sentence(error))
            return _not_now(error, _start_page(request, form, actor))
    return _start_page(request, form, actor, 400)


def _sentence(error: QuotaExceeded | WorkspacePaused) -> str:
    if isinstance(error, QuotaExceeded):
        return refusal_sentence(error.refusal)
    return pause_sentence(error.reason)


def _not_now(error: QuotaExceeded | WorkspacePaused, response: HttpResponse) -> HttpResponse:
    """``response`` says so in words; this, in its status and headers."""
    response.status_code = 403
    if isinstance(error, QuotaExceeded):
        response.status_code = 429
        if error.refusal.retry_after_s is not None:
            response["Retry-After"] = str(error.refusal.retry_after_s)
    return response


def _start_page(
    request: HttpRequest, form: StartForm, actor: Actor, status: int = 200
) -> HttpResponse:
    workspace = actor.workspace
    paused = pauses()
    recent, _ = list_runs(workspace, limit=RECENT)
    context = {
        "form": form,
        "pipelines": list(PIPELINES.values()),
        "models": [(model, pause_of(model.id, paused)) for model in answering_models()],
        "recent": recent,
        "may_write": actor.may_write,
        "pause": pause_sentence(workspace.paused_reason) if workspace.paused_at else "",
    }
    return render(request, "orchestration/start.html", context, status=status)


@login_required
@require_safe
def run_list(request: HttpRequest) -> HttpResponse:
    """The newest runs a filter asks for; with one, also what they add up to."""
    workspace = _actor(request).workspace
    wanted, wrong = read_what_can_be_read(request.GET)
    try:
        runs, following = list_runs(workspace, wanted, cursor=request.GET.get("cursor", ""))
    except BadCursor:
        # An address someone mistyped or kept: the newest runs serve them better than an error.
        runs, following = list_runs(workspace, wanted)
    context: dict[str, Any] = {
        "runs": runs,
        "next_cursor": following,
        "wanted": wanted,
        "wrong": wrong,
        "zone": workspace.time_zone,
        "pipelines": list(PIPELINES),
        "statuses": list(RunStatus),
    }
    if wanted.query:
        context["count"] = runs_of(workspace, wanted).count()
        context["totals"] = total_of(calls_of(workspace, wanted), drafts_of(workspace, wanted))
    return render(request, "orchestration/run_list.html", context)


@login_required
@require_safe
def run_detail(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """The live page, and afterwards the permanent one: the same template, whole without scripts."""
    actor = _actor(request)
    return _run_page(request, actor, _run(actor, run_id))


def _run_page(request: HttpRequest, actor: Actor, run: Run, alarm: str = "") -> HttpResponse:
    context = {"snapshot": snapshot_of(run), "may_write": actor.may_write, "alarm": alarm}
    return render(request, "orchestration/run_detail.html", context)


@login_required
@require_POST
def stop(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """The stop button where scripts are off; the live page posts to the API instead."""
    actor = _writer(request)
    cancel_run(run=_run(actor, run_id))
    return redirect("run-detail", run_id=run_id)


@login_required
@require_POST
def replay(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """Play a stored run's answers again, with their real pacing and at no cost."""
    actor = _writer(request)
    original = _run(actor, run_id)
    try:
        run = start_run(
            actor=actor,
            request=RunRequest(replay_of=original.pk),
            request_id=getattr(request, "request_id", ""),
        )
    except InvalidRun:
        return redirect("run-detail", run_id=run_id)
    except (QuotaExceeded, WorkspacePaused) as error:
        return _not_now(error, _run_page(request, actor, original, _sentence(error)))
    return redirect("run-detail", run_id=run.pk)


@require_safe
def help_errors(request: HttpRequest) -> HttpResponse:
    """What every error kind and code means; the ``type`` of API errors points here."""
    return render(
        request,
        "orchestration/help_errors.html",
        {"kinds": ERROR_ROWS.values(), "problems": PROBLEMS},
    )
