"""The limits in force: quotas, and the overrides that are live."""

from collections.abc import Collection, Sequence
from datetime import datetime

from django.db.models import Prefetch

from workspaces.domain.quotas import Dimension, Limit
from workspaces.models import Quota, QuotaOverride, Workspace


def limits_of(workspace: Workspace, scopes: Collection[str] | None, now: datetime) -> list[Limit]:
    """Those of ``workspace`` that hold for work counted in ``scopes``; all of them for None. Two
    queries."""
    live = QuotaOverride.objects.filter(expires_at__gt=now, ended_at__isnull=True)
    quotas = (
        Quota.objects.in_workspace(workspace)
        .select_related("api_key")
        .prefetch_related(Prefetch("overrides", live.order_by("pk"), to_attr="live_overrides"))
    )
    return [
        limit_of(quota, quota.live_overrides)
        for quota in quotas
        if scopes is None or quota.scope in scopes
    ]


def limit_of(quota: Quota, live: Sequence[QuotaOverride]) -> Limit:
    """The limit ``quota`` sets, the newest of its ``live`` overrides counting before it."""
    return Limit(
        dimension=Dimension(quota.dimension),
        scope=quota.scope,
        value=live[-1].limit if live else quota.limit,
        # A burst was chosen for the quota's own limit; another limit brings its own.
        burst=0 if live else quota.burst or 0,
        usual=quota.limit if live else None,
        until=live[-1].expires_at if live else None,
    )
