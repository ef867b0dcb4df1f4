"""How a workspace stands against its quotas: to be shown, not to admit by."""

from collections.abc import Collection
from datetime import datetime

from django.utils import timezone

from workspaces.counting import recount, standings_of
from workspaces.domain.quotas import Use, use_of
from workspaces.domain.windows import NOW, windows_at
from workspaces.limits import limits_of
from workspaces.models import Counter, Workspace


def uses_of(
    workspace: Workspace, scopes: Collection[str] | None = None, now: datetime | None = None
) -> list[Use]:
    """Every limit in force with what is used and reserved; of ``scopes`` alone where given."""
    at = now or timezone.now()
    windows = windows_at(at, workspace.time_zone)
    limits = limits_of(workspace, scopes, at)
    spans = (NOW, windows.day, windows.month)
    rows = Counter.objects.in_workspace(workspace).filter(window__in=spans)
    counters = {(each.scope, each.window): each for each in rows}
    for limit in limits:
        key = (limit.scope, limit.dimension.window(windows))
        if key not in counters:
            # Nothing was admitted since the quota was set; what went before counts all the same.
            counters[key] = _recounted(workspace, key)
    standings = standings_of(counters)
    return [use_of(limit, standings, at, windows) for limit in limits]


def _recounted(workspace: Workspace, key: tuple[str, str]) -> Counter:
    counter = Counter(workspace=workspace, scope=key[0], window=key[1])
    recount(counter)
    return counter
