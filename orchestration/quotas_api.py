"""``GET /api/quotas``: the limits that hold for whoever asks, and how they stand."""

from datetime import datetime
from typing import Any, Final

from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from orchestration.api import actor_who_sees_usage
from orchestration.problems import ApiError
from orchestration.quota_words import quota_json
from workspaces.domain.quotas import Dimension, Use
from workspaces.models import Quota
from workspaces.standing import uses_of

_UNITS: Final = {
    Dimension.REQUESTS_PER_MINUTE: "requests",
    Dimension.CONCURRENT_RUNS: "runs",
    Dimension.FANOUT_WIDTH: "models",
    Dimension.TOKENS_PER_DAY: "tokens",
    Dimension.COST_PER_DAY: "micro_usd",
    Dimension.COST_PER_MONTH: "micro_usd",
}
_WINDOWS: Final = {
    Dimension.REQUESTS_PER_MINUTE: "minute",
    Dimension.TOKENS_PER_DAY: "day",
    Dimension.COST_PER_DAY: "day",
    Dimension.COST_PER_MONTH: "month",
}


class Quotas(APIView):
    """``GET /api/quotas``: the workspace's limits, its pipelines', and those of the key that asks;
    never another key's."""

    def get(self, request: Request) -> Response:
        actor = actor_who_sees_usage(request)
        for name in request.query_params:
            raise ApiError("unknown_field", "There are no parameters.", name[:60])
        now = timezone.now()
        # Not all that there are, less those of other keys: there may be a thousand keys.
        pipelines = Quota.objects.in_workspace(actor.workspace).values_list("pipeline", flat=True)
        scopes = {scope for name in pipelines.distinct() for scope in actor.counted_in(name)}
        uses = uses_of(actor.workspace, scopes, now)
        return Response(
            {"data": [_told(use) for use in uses], "time_zone": actor.workspace.time_zone},
            headers={"Cache-Control": "no-store"},
        )


def _told(use: Use) -> dict[str, Any]:
    limit = use.limit
    return quota_json(use) | {
        "remaining": use.remaining,
        "unit": _UNITS[limit.dimension],
        "window": _WINDOWS.get(limit.dimension),
        "override": {"usual_limit": limit.usual, "until": _time(limit.until)}
        if limit.until
        else None,
    }


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
