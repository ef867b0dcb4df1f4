"""Every request has an id: the caller's where it is sound, else a new one; it is always answered.

The id is bound to the logging context, so each line written while the request is served carries it,
and ``start_run`` stores it on the run, which takes it on to the fan-out service.
"""

import re
import time
import uuid
from collections.abc import Awaitable, Callable

import structlog
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase

log = structlog.get_logger("rex.http")

# Anything else could forge a log line or a header; a stranger's odd id is replaced, not refused.
_SOUND = re.compile(r"[A-Za-z0-9._-]{8,64}\Z")


def request_id_of(request: HttpRequest) -> str:
    """The id of this request; set by the middleware before any view runs."""
    return str(getattr(request, "request_id", ""))


class RequestIdMiddleware:
    """First in the chain, so that its one log line covers everything below it."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async:
            return self._serve_async(request)
        started = self._begin(request)
        response = self.get_response(request)
        return self._end(request, response, started)

    async def _serve_async(self, request: HttpRequest) -> HttpResponseBase:
        started = self._begin(request)
        response = await self.get_response(request)  # type: ignore[misc]
        return self._end(request, response, started)

    def _begin(self, request: HttpRequest) -> float:
        given = request.headers.get("X-Request-Id", "")
        request_id = given if _SOUND.match(given) else uuid.uuid4().hex
        request.request_id = request_id  # type: ignore[attr-defined]
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        return time.perf_counter()

    def _end(
        self, request: HttpRequest, response: HttpResponseBase, started: float
    ) -> HttpResponseBase:
        response["X-Request-Id"] = request_id_of(request)
        # The route, not the path: a path may hold an id of another workspace, or a stray secret.
        match = request.resolver_match
        log.info(
            "request",
            method=request.method,
            route=match.route if match else "(none)",
            status=response.status_code,
            duration_ms=round((time.perf_counter() - started) * 1000, 1),
        )
        return response
