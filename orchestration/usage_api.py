"""``GET /api/usage``: the numbers of the usage page."""

from typing import Any

from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from orchestration.api import actor_who_sees_usage, filter_from
from orchestration.domain.spans import today_in
from orchestration.problems import ApiError
from orchestration.run_filter import PARAMETERS, BadFilter, read_span
from orchestration.usage import Failures, Latency, Line, usage_of


class Usage(APIView):
    """``GET /api/usage?period=7d``, or ``from`` and ``to``, and the filters of ``GET /api/runs``:
    what the runs of those days used. ``query`` of a line asks ``/api/runs`` for the runs it sums.
    """

    def get(self, request: Request) -> Response:
        workspace = actor_who_sees_usage(request).workspace
        wanted = filter_from(request, PARAMETERS, "period")
        today = today_in(workspace.time_zone, timezone.now())
        try:
            span = read_span(request.query_params, today)
        except BadFilter as bad:
            raise ApiError("bad_request", bad.message, bad.name) from None
        usage = usage_of(workspace, span, wanted)
        return Response(
            {
                "from": span.first.isoformat(),
                "to": span.last.isoformat(),
                "time_zone": workspace.time_zone,
                "query": usage.wanted.query,
                "totals": {"runs": usage.runs} | usage.totals.as_json(),
                "by_status": [
                    {"status": each.name, "runs": each.runs, "query": each.wanted.query}
                    for each in usage.by_status
                ],
                "by_day": [_line("day", each) for each in usage.by_day],
                "by_model": [
                    {"part": each.wanted.part} | _line("model", each) for each in usage.by_model
                ],
                "by_pipeline": [_line("pipeline", each) for each in usage.by_pipeline],
                "by_member": [_line("member", each) for each in usage.by_member],
                "failures": [_failures(each) for each in usage.failures],
                "latency_of_runs": [_latency("status", each) for each in usage.of_runs],
                "latency_of_models": [_latency("model", each) for each in usage.of_models],
            },
            headers={"Cache-Control": "no-store"},
        )


def _line(called: str, line: Line) -> dict[str, Any]:
    runs = {} if line.runs is None else {"runs": line.runs}
    return {called: line.name} | runs | line.sums.as_json() | {"query": line.wanted.query}


def _failures(each: Failures) -> dict[str, Any]:
    return {
        "reason": each.kind,
        "runs": each.runs,
        "calls": each.calls,
        "drafts": each.drafts,
        "query": each.wanted.query,
    }


def _latency(called: str, each: Latency) -> dict[str, Any]:
    return {
        called: each.name,
        "count": each.count,
        "first_text_ms": dict(zip(("p50", "p95"), each.first_ms, strict=True)),
        "whole_ms": dict(zip(("p50", "p95"), each.whole_ms, strict=True)),
        "query": each.wanted.query,
    }
