"""Pay for what was used, and give back what was held for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q

from workspaces.counting import (
    Counters,
    counters_of,
    lock_workspace,
    save_counters,
    standings_of,
)
from workspaces.domain.quotas import BUDGETS, Hold, Limit, Offer, refusal_of
from workspaces.domain.windows import NOW, Windows
from workspaces.limits import limits_of
from workspaces.models import Lease, Reservation
from workspaces.refusals import forget_refusals

_LEASE_FIELDS: Final = (
    "tokens",
    "cost_micro_usd",
    "reserved_tokens",
    "reserved_micro_usd",
    "closed_at",
)


@dataclass(frozen=True, slots=True)
class Charge:
    """What one lease has used since the last charge. ``closes``: it needs no more. ``renews``: it
    goes on and needs all of its bound once more, as a call that is tried again."""

    lease: str
    tokens: int = 0
    cost_micro_usd: int = 0
    closes: bool = False
    renews: bool = False


def settle(*, subject: UUID, charges: Sequence[Charge], closes: bool) -> frozenset[str]:
    """Book ``charges`` of the work ``subject``; with ``closes`` it has ended and holds nothing.

    Must be called in the transaction that writes the fact they follow from: the fact is written
    once, so it is paid once. Work that has no open reservation is left alone. Returns the leases
    that were to be renewed and found no room: their calls must not be tried again.
    """
    reservations = Reservation.objects.everywhere().filter(subject=subject, closed_at__isnull=True)
    found = reservations.select_related("workspace").first()
    if found is None:
        return frozenset()
    workspace, at = lock_workspace(found.workspace)
    # Read again under the lock: of two who end the same work one finds it closed.
    reservation = reservations.first()
    if reservation is None:
        return frozenset()
    leases = {each.name: each for each in Lease.objects.filter(reservation=reservation)}
    # Those of the reservation, which may be yesterday's. When they end matters to nobody.
    windows = Windows(reservation.day, reservation.month, day_ends=at, month_ends=at)
    budgets = _budgets(reservation, at) if any(charge.renews for charge in charges) else []
    limited = {limit.scope for limit in budgets}
    counters = counters_of(workspace, reservation.scopes, windows, limited)
    refused = set()
    booked = {}
    for charge in charges:
        lease = leases.get(charge.lease)
        if lease is None or lease.closed_at is not None:
            continue
        booked[lease.name] = lease
        _book(lease, counters, tokens=charge.tokens, cost_micro_usd=charge.cost_micro_usd)
        if charge.renews and not _renew(lease, counters, budgets, windows, at):
            refused.add(charge.lease)
        if charge.closes:
            _close(lease, counters, at)
    if closes:
        for lease in leases.values():
            if lease.closed_at is None:
                booked[lease.name] = lease
                _close(lease, counters, at)
        for (_, window), counter in counters.items():
            if window == NOW:
                counter.runs -= 1
        reservations.update(closed_at=at)
        transaction.on_commit(partial(forget_refusals, workspace, reservation.scopes))
    for lease in booked.values():
        lease.save(update_fields=_LEASE_FIELDS)
    save_counters(counters.values())
    return frozenset(refused)


def without_room(*, subject: UUID, charges: Sequence[Charge]) -> frozenset[str]:
    """What `settle` returned for ``charges``, the last there were: for whoever lost its reply."""
    renewed = [charge.lease for charge in charges if charge.renews]
    leases = Lease.objects.filter(
        Q(reserved_tokens__lt=F("bound_tokens")) | Q(reserved_micro_usd__lt=F("bound_micro_usd")),
        reservation__subject=subject,
        name__in=renewed,
        closed_at__isnull=True,
    )
    return frozenset(leases.values_list("name", flat=True))


def _book(lease: Lease, counters: Counters, *, tokens: int, cost_micro_usd: int) -> None:
    """Count what was used, and take it out of what is held; beyond that it is an overshoot."""
    lease.tokens += tokens
    lease.cost_micro_usd += cost_micro_usd
    for (_, window), counter in counters.items():
        if window != NOW:
            counter.tokens += tokens
            counter.cost_micro_usd += cost_micro_usd
    _hold(
        lease,
        counters,
        tokens=-min(tokens, lease.reserved_tokens),
        cost_micro_usd=-min(cost_micro_usd, lease.reserved_micro_usd),
    )


def _budgets(reservation: Reservation, at: datetime) -> list[Limit]:
    limits = limits_of(reservation.workspace, reservation.scopes, at)
    return [limit for limit in limits if limit.dimension in BUDGETS]


def _renew(
    lease: Lease, counters: Counters, budgets: Sequence[Limit], windows: Windows, at: datetime
) -> bool:
    """Hold all of the lease's bound again, if there is room for what is missing."""
    missing = Hold(
        lease.name,
        lease.bound_tokens - lease.reserved_tokens,
        lease.bound_micro_usd - lease.reserved_micro_usd,
    )
    if refusal_of(budgets, standings_of(counters), Offer(0, (missing,)), at, windows):
        return False
    _hold(lease, counters, tokens=missing.tokens, cost_micro_usd=missing.cost_micro_usd)
    return True


def _close(lease: Lease, counters: Counters, at: datetime) -> None:
    _hold(
        lease,
        counters,
        tokens=-lease.reserved_tokens,
        cost_micro_usd=-lease.reserved_micro_usd,
    )
    lease.closed_at = at


def _hold(lease: Lease, counters: Counters, *, tokens: int, cost_micro_usd: int) -> None:
    """Hold so much more; negative gives back."""
    lease.reserved_tokens += tokens
    lease.reserved_micro_usd += cost_micro_usd
    for (_, window), counter in counters.items():
        if window != NOW:
            counter.tokens_reserved += tokens
            counter.cost_reserved_micro_usd += cost_micro_usd
