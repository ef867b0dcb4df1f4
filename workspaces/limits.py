"""The limits in force: quotas, and the overrides that are live."""

from collections.abc import Collection, Sequence
from datetime import datetime

from django.db.models import Prefetch, Q

from workspaces.domain.quotas import Dimension, Limit, split_scope
from workspaces.models import Quota, QuotaOverride, Workspace


def limits_of(workspace: Workspace, scopes: Collection[str] | None, now: datetime) -> list[Limit]:
    """Those of ``workspace`` that hold for work counted in ``scopes``; all of them for None. Two
    queries."""
    live = QuotaOverride.objects.filter(expires_at__gt=now, ended_at__isnull=True)
    quotas = (
        Quota.objects.in_workspace(workspace)
        .select_related("api_key")
        .prefetch_related(Prefetch("overrides", live.order_by("pk"), to_attr="live_overrides"))
        .order_by("pk")
    )
    if scopes is not None:
        # Here and not below: a workspace may have a thousand keys, each with quotas of its own.
        quotas = quotas.filter(_in_any(scopes))
    return [limit_of(quota, quota.live_overrides) for quota in quotas]


def _in_any(scopes: Collection[str]) -> Q:
    """The quotas whose ``scope`` is one of ``scopes``; the workspace's own have no pipeline."""
    wanted = Q(pk__in=())
    for scope in scopes:
        kind, name = split_scope(scope)
        of_key, of_pipeline = Q(api_key__lineage=name), Q(api_key=None, pipeline=name or "")
        wanted |= of_key if kind == "key" else of_pipeline
    return wanted


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
