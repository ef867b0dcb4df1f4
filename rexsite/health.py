"""Liveness and readiness, open to anyone and saying nothing a stranger could use."""

from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe


@never_cache
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """The process answers. No I/O: a slow database must not get a live process killed."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """Ready to take runs: the database answers and its migrations are applied; else 503."""
    try:
        executor = MigrationExecutor(connection)
        behind = bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    except Error:
        return _unready("database")
    return _unready("migrations") if behind else JsonResponse({"status": "ok"})


def _unready(part: str) -> HttpResponse:
    return JsonResponse(
        {"status": "unavailable", "part": part}, status=503, headers={"Retry-After": "1"}
    )
