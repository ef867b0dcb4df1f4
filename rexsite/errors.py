"""Errors outside any view: JSON under /api/, a page everywhere else, in the documented shapes."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from orchestration.problems import problem_response

API_PREFIX = "/api/"


def _answer(request: HttpRequest, status: int, code: str, template: str) -> HttpResponse:
    if request.path.startswith(API_PREFIX):
        return problem_response(request, code)
    return render(request, template, status=status)


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _answer(request, 400, "bad_request", "400.html")


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _answer(request, 403, "forbidden", "403.html")


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _answer(request, 404, "not_found", "404.html")


def server_error(request: HttpRequest) -> HttpResponse:
    return _answer(request, 500, "internal", "500.html")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return _answer(request, 403, "csrf_failed", "403.html")
