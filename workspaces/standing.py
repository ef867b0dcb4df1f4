"""How a workspace stands against its quotas: to be shown, not to admit by."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from workspaces.counting import recount, standings_of
from workspaces.domain.quotas import Limit, Offer, Refusal, Standings, Use, refusal_of, use_of
from workspaces.domain.windows import NOW, Windows, windows_at
from workspaces.limits import limits_of
from workspaces.models import Counter, Workspace


def uses_of(
    workspace: Workspace, scopes: Collection[str] | None = None, now: datetime | None = None
) -> list[Use]:
    """Every limit in force with what is used and reserved; of ``scopes`` alone where given."""
    at = now or timezone.now()
    windows = windows_at(at, workspace.time_zone)
    limits = limits_of(workspace, scopes, at)
    standings = _standings(workspace, limits, windows)
    return [use_of(limit, standings, at, windows) for limit in limits]


@dataclass(frozen=True, slots=True)
class Prospect:
    """How offers would fare: the index of the first that fits, or the refusal of the last one."""

    offer: int | None
    refusal: Refusal | None


def prospect_of(
    workspace: Workspace,
    scopes: Collection[str],
    offers: Sequence[Offer],
    now: datetime | None = None,
) -> Prospect:
    """What ``reserve`` would say of ``offers`` now. Nothing is locked and nothing is taken, so it
    may say otherwise a moment later."""
    at = now or timezone.now()
    windows = windows_at(at, workspace.time_zone)
    limits = limits_of(workspace, scopes, at)
    standings = _standings(workspace, limits, windows)
    refusal = None
    for index, offer in enumerate(offers):
        refusal = refusal_of(limits, standings, offer, at, windows)
        if refusal is None:
            return Prospect(index, None)
    return Prospect(None, refusal)


def _standings(workspace: Workspace, limits: Sequence[Limit], windows: Windows) -> Standings:
    spans = (NOW, windows.day, windows.month)
    scopes = {limit.scope for limit in limits}
    rows = Counter.objects.in_workspace(workspace).filter(scope__in=scopes, window__in=spans)
    counters = {(each.scope, each.window): each for each in rows}
    for limit in limits:
        key = (limit.scope, limit.dimension.window(windows))
        if key not in counters:
            # Nothing was admitted since the quota was set; what went before counts all the same.
            counters[key] = _recounted(workspace, key)
    return standings_of(counters)


def _recounted(workspace: Workspace, key: tuple[str, str]) -> Counter:
    counter = Counter(workspace=workspace, scope=key[0], window=key[1])
    recount(counter)
    return counter
