"""Errors of the API: one table of codes, one shape (RFC 9457), one function that writes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import structlog
from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.db import DataError, InterfaceError, InternalError, OperationalError
from django.http import Http404, HttpRequest, JsonResponse
from django.utils import timezone
from rest_framework import exceptions
from rest_framework.response import Response

from orchestration.actions.start_run import InvalidRun
from orchestration.quota_words import pause_sentence, refusal_json, refusal_sentence
from orchestration.rate_headers import refusal_headers
from workspaces.actions.reserve import QuotaExceeded, WorkspacePaused
from workspaces.models import Workspace

log = structlog.get_logger("rex.api")


@dataclass(frozen=True, slots=True)
class Problem:
    """One documented error: HTTP status, and the sentence used where there is no better one."""

    status: int
    detail: str


PROBLEMS: Mapping[str, Problem] = {
    "bad_request": Problem(400, "The request could not be understood."),
    "invalid_json": Problem(400, "The body is not valid JSON."),
    "json_too_deep": Problem(400, "The JSON is nested too deeply."),
    "not_an_object": Problem(400, "The body must be a JSON object."),
    "unknown_field": Problem(400, "There is a field that is not known."),
    "wrong_type": Problem(400, "A field has the wrong type."),
    "empty_prompt": Problem(400, "Write a question first."),
    "invalid_text": Problem(400, "The text holds a NUL or half of a surrogate pair."),
    "unknown_pipeline": Problem(400, "There is no such pipeline."),
    "unknown_cache": Problem(400, "cache takes use, refresh or off."),
    "no_models": Problem(400, "Choose at least one model."),
    "unknown_model": Problem(400, "There is no such model."),
    "provider_not_configured": Problem(400, "The model's provider is not configured."),
    # Not 409: the clients of OpenAI's API send a 409 again by themselves, at once and in vain.
    "model_paused": Problem(400, "The model is paused: an operator does not let it be asked now."),
    "unpriced_model": Problem(400, "Nobody knows what the model costs, so it is not asked."),
    "too_many_models": Problem(400, "More models were named than a run may ask."),
    "unknown_run": Problem(400, "There is no such run."),
    "run_not_ended": Problem(400, "The run has not ended."),
    "replay_takes_nothing_else": Problem(400, "A replay takes nothing but the run to replay."),
    "idempotency_conflict": Problem(422, "The idempotency key was used for another request."),
    "prompt_too_long": Problem(413, "The prompt is too long."),
    "body_too_large": Problem(413, "The body is too large."),
    "not_authenticated": Problem(401, "Sign in, or send a valid API key as a bearer token."),
    "forbidden": Problem(403, "You may look at this workspace but not change it."),
    "workspace_paused": Problem(403, "The workspace is paused; nothing new is started in it."),
    "csrf_failed": Problem(403, "The CSRF token is missing or wrong; reload the page."),
    "not_found": Problem(404, "There is nothing here."),
    "method_not_allowed": Problem(405, "This method is not allowed here."),
    "not_acceptable": Problem(406, "No form of the answer is acceptable to the client."),
    "unsupported_media_type": Problem(415, "Send JSON: Content-Type: application/json."),
    "quota_exceeded": Problem(429, "The request does not fit into a quota of the workspace."),
    "store_unavailable": Problem(503, "The database does not answer; try again in a moment."),
    "internal": Problem(500, "Something failed on our side; the request id finds it in the logs."),
}


# What the database raises for reasons of its own: away, frozen, locked, full, read-only.
STORE_ERRORS = (OperationalError, InterfaceError, InternalError)


def problem_body(
    request: HttpRequest,
    code: str,
    detail: str = "",
    field: str = "",
    members: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """The documented JSON of an error; ``request`` gives its id, ``members`` what this code has
    besides."""
    problem = PROBLEMS[code]
    body: dict[str, Any] = {
        "type": f"/docs/errors#{code}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "code": code,
        "detail": detail or problem.detail,
        "request_id": getattr(request, "request_id", ""),
    }
    if field:
        body["errors"] = [{"field": field, "message": detail or problem.detail}]
    return body | dict(members)


def problem_response(
    request: HttpRequest, code: str, detail: str = "", field: str = ""
) -> JsonResponse:
    response = JsonResponse(
        problem_body(request, code, detail, field),
        status=PROBLEMS[code].status,
        content_type="application/problem+json",
    )
    for name, value in _HEADERS.get(code, {}).items():
        response[name] = value
    return response


_HEADERS: Mapping[str, Mapping[str, str]] = {
    "not_authenticated": {"WWW-Authenticate": "Bearer"},
    "store_unavailable": {"Retry-After": "1"},
}


class ApiError(exceptions.APIException):
    """Raised by API code to answer with the problem called ``code``."""

    def __init__(self, code: str, detail: str = "", field: str = "") -> None:
        super().__init__(detail or PROBLEMS[code].detail, code)
        self.status_code = PROBLEMS[code].status
        self.code, self.sentence, self.field = code, detail, field


_BY_TYPE: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.NotAuthenticated, "not_authenticated"),
    (exceptions.AuthenticationFailed, "not_authenticated"),
    (exceptions.NotFound, "not_found"),
    (Http404, "not_found"),
    # It was deleted after the caller was let in; the next time they are not.
    (Workspace.DoesNotExist, "not_authenticated"),
    (exceptions.MethodNotAllowed, "method_not_allowed"),
    (exceptions.NotAcceptable, "not_acceptable"),
    (exceptions.UnsupportedMediaType, "unsupported_media_type"),
    (RequestDataTooBig, "body_too_large"),
    (PermissionDenied, "forbidden"),
    # Text or a number that no row could hold, so there is none to find.
    (DataError, "bad_request"),
    *((error, "store_unavailable") for error in STORE_ERRORS),
)


def exception_handler(error: Exception, context: dict[str, Any]) -> Response:
    """REST framework's handler: every exception of an API view comes out as a problem."""
    request: HttpRequest = context["request"]._request
    code, detail, field = _read(error)
    if code == "internal":
        log.exception("api_error", exc_info=error)
    if code == "store_unavailable":
        log_store_error(error)
    headers, members = dict(_HEADERS.get(code, {})), {}
    if isinstance(error, exceptions.MethodNotAllowed):
        headers["Allow"] = ", ".join(context["view"].allowed_methods)
    if isinstance(error, QuotaExceeded):
        headers |= refusal_headers(error.refusal, error.uses, timezone.now())
        members = {"quota": refusal_json(error.refusal)}
    return Response(
        problem_body(request, code, detail, field, members),
        status=PROBLEMS[code].status,
        headers=headers,
        content_type="application/problem+json",
    )


def log_store_error(error: BaseException) -> None:
    """One line, without the traceback: an outage fails every request in the same way."""
    log.error("store_unavailable", error=type(error).__name__, said=str(error).partition("\n")[0])


def _read(error: Exception) -> tuple[str, str, str]:
    """(code, detail, field) of an exception."""
    if isinstance(error, ApiError):
        return error.code, error.sentence, error.field
    if isinstance(error, InvalidRun):
        return error.code, error.message, error.field
    if isinstance(error, QuotaExceeded):
        return "quota_exceeded", refusal_sentence(error.refusal), ""
    if isinstance(error, WorkspacePaused):
        return "workspace_paused", pause_sentence(error.reason), ""
    if isinstance(error, exceptions.PermissionDenied):
        codes = error.get_codes()
        return ("csrf_failed" if codes == "csrf_failed" else "forbidden"), "", ""
    for kind, code in _BY_TYPE:
        if isinstance(error, kind):
            return code, "", ""
    if isinstance(error, exceptions.ParseError):
        return "bad_request", "", ""
    return "internal", "", ""
