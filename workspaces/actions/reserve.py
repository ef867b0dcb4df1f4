"""Let work into a workspace: hold the most it may use, in every dimension, or refuse all of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from workspaces.counting import Counters, counters_of, lock_workspace, save_counters, standings_of
from workspaces.domain.gcra import judge
from workspaces.domain.quotas import (
    Dimension,
    Limit,
    Offer,
    Refusal,
    Standings,
    Use,
    refusal_of,
    scopes_of,
    use_of,
)
from workspaces.domain.windows import NOW, Windows, windows_at
from workspaces.limits import limits_of
from workspaces.models import ApiKey, Lease, Reservation, Workspace


class WorkspacePaused(Exception):
    """An operator paused the workspace; ``reason`` is theirs, for its members to read."""

    def __init__(self, reason: str) -> None:
        super().__init__("paused")
        self.reason = reason


class QuotaExceeded(Exception):
    """No offer fits. ``refusal`` is that of the last one, which asks for least; ``uses`` tell how
    all limits stand that hold for it, as far as that is known."""

    def __init__(self, refusal: Refusal, uses: Sequence[Use] = ()) -> None:
        super().__init__(refusal.use.limit.dimension.value)
        self.refusal = refusal
        self.uses = tuple(uses) or (refusal.use,)


@dataclass(frozen=True, slots=True)
class Admission:
    """``offer`` is the index of the one that was let in."""

    reservation: Reservation
    offer: int


def reserve(
    *,
    workspace: Workspace,
    subject: UUID,
    api_key: ApiKey | None,
    pipeline: str,
    offers: Sequence[Offer],
    now: datetime | None = None,
) -> Admission:
    """Reserve for the first of ``offers`` that fits. Raises QuotaExceeded or WorkspacePaused, and
    then nothing has been taken in any dimension.

    Must be called in the transaction that writes the work, so that there is never one without the
    other: it holds the workspace's row until that ends, and admissions wait for each other. ``now``
    is the database's time unless given, since processes' clocks differ.
    """
    locked, at = lock_workspace(workspace, now)
    if locked.paused_at is not None:
        raise WorkspacePaused(locked.paused_reason)
    windows = windows_at(at, locked.time_zone)
    key_public = api_key.lineage if api_key else ""
    scopes = scopes_of(key_public, pipeline)
    limits = limits_of(locked, scopes, at)
    counters = counters_of(locked, scopes, windows, {limit.scope for limit in limits})
    index = _first_that_fits(offers, limits, standings_of(counters), at, windows)
    _take(offers[index], limits, counters, at)
    reservation = Reservation.objects.create(
        workspace=locked,
        subject=subject,
        key_public=key_public,
        pipeline=pipeline,
        day=windows.day,
        month=windows.month,
        created_at=at,
    )
    Lease.objects.bulk_create(
        Lease(
            reservation=reservation,
            name=hold.name,
            bound_tokens=hold.tokens,
            bound_micro_usd=hold.cost_micro_usd,
            reserved_tokens=hold.tokens,
            reserved_micro_usd=hold.cost_micro_usd,
        )
        for hold in offers[index].holds
    )
    return Admission(reservation, index)


def _first_that_fits(
    offers: Sequence[Offer],
    limits: Sequence[Limit],
    standings: Standings,
    at: datetime,
    windows: Windows,
) -> int:
    for index, offer in enumerate(offers):
        refusal = refusal_of(limits, standings, offer, at, windows)
        if refusal is None:
            return index
    assert refusal is not None, "there is at least one offer"
    raise QuotaExceeded(refusal, [use_of(limit, standings, at, windows) for limit in limits])


def _take(offer: Offer, limits: Sequence[Limit], counters: Counters, at: datetime) -> None:
    rates = {
        limit.scope: limit.rate
        for limit in limits
        if limit.dimension is Dimension.REQUESTS_PER_MINUTE
    }
    for (scope, window), counter in counters.items():
        if window == NOW:
            counter.runs += 1
            if scope in rates:
                counter.tat = judge(rates[scope], counter.tat, at).tat
        else:
            counter.tokens_reserved += offer.tokens
            counter.cost_reserved_micro_usd += offer.cost_micro_usd
    save_counters(counters.values())
