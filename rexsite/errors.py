"""Errors outside any view: JSON under /api/, a page everywhere else, in the documented shapes."""

import sys

from django.core.exceptions import BadRequest, PermissionDenied
from django.db import DataError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string

from orchestration.problems import STORE_ERRORS, log_store_error, problem_response
from rexsite.request_id import request_id_of

API_PREFIX = "/api/"


def _answer(
    request: HttpRequest, status: int, code: str, template: str, reason: str = ""
) -> HttpResponse:
    if request.path.startswith(API_PREFIX):
        return problem_response(request, code)
    return render(request, template, {"reason": reason}, status=status)


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    reason = str(exception) if type(exception) is BadRequest else ""
    return _answer(request, 400, "bad_request", "400.html", reason)


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    # What our views say to a reader; of anything else nobody wrote the words for one.
    reason = str(exception) if type(exception) is PermissionDenied else ""
    return _answer(request, 403, "forbidden", "403.html", reason)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _answer(request, 404, "not_found", "404.html")


def server_error(request: HttpRequest) -> HttpResponse:
    """The answer to the exception that is being handled."""
    error = sys.exc_info()[1]
    if isinstance(error, DataError):
        # Text that no row can hold, such as a NUL in a cookie. Elsewhere forms refuse it.
        return _plain(request, 400, "bad_request")
    if isinstance(error, STORE_ERRORS):
        log_store_error(error)
        response = _plain(request, 503, "store_unavailable")
        response["Retry-After"] = "1"
        return response
    return _plain(request, 500, "internal")


def _plain(request: HttpRequest, status: int, code: str) -> HttpResponse:
    if request.path.startswith(API_PREFIX):
        return problem_response(request, code)
    # Without the request's reader, who would be asked of the database: it may be what failed.
    known = {"request_id": request_id_of(request), "COOKIES": request.COOKIES}
    context = {"request": known, "reading": getattr(request, "reading", None)}
    return HttpResponse(render_to_string(f"{status}.html", context), status=status)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return _answer(request, 403, "csrf_failed", "403.html")
