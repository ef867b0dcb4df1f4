"""The JSON API of runs. Each view reads: parse, authorise, one call, render."""

import re
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any
from uuid import UUID

from django.db import DatabaseError
from django.urls import reverse
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from orchestration.actions.cancel_run import cancel_call, cancel_run
from orchestration.actions.start_run import RunRequest, start_run
from orchestration.domain.pipelines import PIPELINES
from orchestration.fanout.select import offered_models
from orchestration.models import Run
from orchestration.pauses import pause_of, pauses
from orchestration.problems import ApiError
from orchestration.queries import RunNotFound, run_of, snapshot_of
from orchestration.rate_headers import rate_headers
from orchestration.run_filter import PARAMETERS, BadFilter, RunFilter, read_filter
from orchestration.run_list import BadCursor, list_runs
from workspaces.access import Actor
from workspaces.models import ApiKey
from workspaces.standing import uses_of

_FIELDS = frozenset({"prompt", "pipeline", "models", "replay_of", "cache"})
_KEY = re.compile(r"[\x21-\x7e]{1,200}\Z")


def actor_of(request: Request) -> Actor:
    """Whoever WorkspaceAuthentication let in."""
    assert isinstance(request.auth, Actor), "every view here asks for authentication"
    return request.auth


def actor_who_reads(request: Request) -> Actor:
    return _actor_with(ApiKey.Scope.RUNS_READ, request)


def actor_who_writes(request: Request) -> Actor:
    return _actor_with(ApiKey.Scope.RUNS_WRITE, request)


def actor_who_sees_usage(request: Request) -> Actor:
    return _actor_with(ApiKey.Scope.USAGE_READ, request)


def _actor_with(scope: ApiKey.Scope, request: Request) -> Actor:
    """Before anything is looked up: who may not read learns of no run whether it is there."""
    actor = actor_of(request)
    if why_not := actor.why_not(scope):
        raise ApiError("forbidden", why_not)
    return actor


def run_or_404(actor: Actor, run_id: UUID) -> Run:
    try:
        return run_of(actor.workspace, run_id)
    except RunNotFound:
        raise ApiError("not_found") from None


class StartRun(APIView):
    """``POST /api/run``: accept a question; 202 with the run's address."""

    def post(self, request: Request) -> Response:
        actor = actor_who_writes(request)
        asked = run_request_from(dict(request.data), request.headers.get("Idempotency-Key"))
        run = start_run(
            actor=actor, request=asked, request_id=getattr(request._request, "request_id", "")
        )
        address = reverse("api-run", args=[run.pk])
        return Response(
            {
                "id": str(run.pk),
                "status": run.status,
                "url": reverse("run-detail", args=[run.pk]),
                "api_url": address,
                "events_url": reverse("api-events", args=[run.pk]),
                "socket_url": f"/ws/runs/{run.pk}/",
            },
            status=202,
            headers={"Location": address} | _limit_headers(actor, run.pipeline),
        )


def _limit_headers(actor: Actor, pipeline: str) -> dict[str, str]:
    now = timezone.now()
    try:
        return rate_headers(uses_of(actor.workspace, actor.counted_in(pipeline), now), now)
    except DatabaseError:
        # The run is accepted by now, and that is what has to be told.
        return {}


class Runs(APIView):
    """``GET /api/runs``: the newest runs a filter asks for, ``?cursor=`` for the page after."""

    def get(self, request: Request) -> Response:
        actor = actor_who_reads(request)
        wanted = filter_from(request, PARAMETERS, "cursor")
        try:
            runs, following = list_runs(
                actor.workspace, wanted, cursor=request.query_params.get("cursor", "")
            )
        except BadCursor:
            raise ApiError(
                "bad_request", "cursor takes the next_cursor of a page of this list.", "cursor"
            ) from None
        return Response({"data": [run.as_json() for run in runs], "next_cursor": following})


class RunDetail(APIView):
    """``GET /api/runs/{id}``: the whole run at seq N."""

    def get(self, request: Request, run_id: UUID) -> Response:
        return Response(snapshot_of(run_or_404(actor_who_reads(request), run_id)))


class StopRun(APIView):
    """``POST /api/runs/{id}/stop``: 202 whether or not it was already stopping or ended."""

    def post(self, request: Request, run_id: UUID) -> Response:
        run = run_or_404(actor_who_writes(request), run_id)
        return Response({"stopping": cancel_run(run=run)}, status=202)


class StopCall(APIView):
    """``POST /api/runs/{id}/calls/{label}/stop``: stop one model; the rest goes on."""

    def post(self, request: Request, run_id: UUID, label: str) -> Response:
        run = run_or_404(actor_who_writes(request), run_id)
        # Compared here: some text that an address can hold is none to a database.
        if label not in run.calls.values_list("label", flat=True):
            raise ApiError("not_found")
        return Response({"stopping": cancel_call(run_id=run.pk, label=label)}, status=202)


class Models(APIView):
    """``GET /api/models``: the models and pipelines a run may name."""

    def get(self, request: Request) -> Response:
        actor_who_reads(request)
        paused = pauses()
        return Response(
            {
                "models": [
                    # null where it may be asked, else the operator's reason, which may be empty.
                    {**asdict(model), "paused": pause_of(model.id, paused)}
                    for model in offered_models()
                ],
                "pipelines": [asdict(pipeline) for pipeline in PIPELINES.values()],
            }
        )


def filter_from(request: Request, parameters: Iterable[str], *others: str) -> RunFilter:
    """The filter of a query that has ``parameters`` and ``others`` alone; raises ApiError."""
    known = [*parameters, *others]
    for name, values in request.query_params.lists():
        if name not in known:
            told = f"Parameters that are known: {', '.join(known)}."
            raise ApiError("unknown_field", told, _shown(name))
        if len(values) > 1:
            raise ApiError("bad_request", f"{name} is given more than once.", name)
    try:
        return read_filter(request.query_params, parameters)
    except BadFilter as bad:
        raise ApiError("bad_request", bad.message, bad.name) from None


def run_request_from(data: dict[str, Any], idempotency_key: str | None) -> RunRequest:
    """The body of ``POST /api/run`` as a RunRequest; raises ApiError for unknown fields and types.

    What the values mean is for ``start_run`` to judge.
    """
    for name in data:
        if name not in _FIELDS:
            known = ", ".join(sorted(_FIELDS))
            raise ApiError("unknown_field", f"Fields that are known: {known}.", _shown(name))
    if idempotency_key is not None and not _KEY.match(idempotency_key):
        raise ApiError(
            "wrong_type",
            "Idempotency-Key takes 1 to 200 printable ASCII characters.",
            "Idempotency-Key",
        )
    return RunRequest(
        prompt=_string(data, "prompt"),
        pipeline=_string(data, "pipeline"),
        models=_strings(data, "models"),
        replay_of=_run_id(data),
        cache=_string(data, "cache"),
        idempotency_key=idempotency_key,
    )


def _shown(name: str) -> str:
    """A field's name as it may be repeated: short, and without what JSON could not carry."""
    return name[:60].encode("utf-8", "replace").decode()


def _string(data: dict[str, Any], name: str) -> str | None:
    """The field's value, or None where it is absent; null is of the wrong type."""
    value = data.get(name)
    if name in data and not isinstance(value, str):
        raise ApiError("wrong_type", f"{name} takes a string.", name)
    return value


def _strings(data: dict[str, Any], name: str) -> tuple[str, ...] | None:
    value = data.get(name)
    if name not in data:
        return None
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ApiError("wrong_type", f"{name} takes a list of strings.", name)
    return tuple(value)


def _run_id(data: dict[str, Any]) -> UUID | None:
    value = data.get("replay_of")
    if value is None:
        return None
    try:
        return UUID(value)
    except (ValueError, AttributeError, TypeError):
        raise ApiError("wrong_type", "replay_of takes the id of a run.", "replay_of") from None
