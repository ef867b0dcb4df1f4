"""Settle what is still held for runs that have ended, or are gone."""

from datetime import datetime, timedelta

from django.db import transaction

from orchestration.domain.routing import RECORDED
from orchestration.domain.run import CallState, RunStatus
from orchestration.models import Call, Run
from workspaces.actions.settle import Charge, settle
from workspaces.models import Lease, Reservation

# An ending settles in its own transaction; whatever is open after this has been forgotten.
FORGOTTEN_AFTER = timedelta(seconds=60)
BATCH = 100


def settle_orphans(*, now: datetime) -> int:
    """Close reservations whose run ended without closing them (its rows were restored, edited or
    deleted), by what the calls' rows say; how many there were. A run that is not driven is no
    orphan: the next driver takes it, and ends it.
    """
    reservations = Reservation.objects.everywhere().filter(
        closed_at__isnull=True, created_at__lt=now - FORGOTTEN_AFTER
    )
    # In the words of the index of the few that are unfinished, of all there ever were.
    unfinished = (
        Run.objects.everywhere()
        .filter(status__in=(RunStatus.QUEUED, RunStatus.RUNNING))
        .values("pk")
    )
    orphans = list(reservations.exclude(subject__in=unfinished).order_by("created_at")[:BATCH])
    for reservation in orphans:
        with transaction.atomic():
            settle(subject=reservation.subject, charges=_charges(reservation), closes=True)
    return len(orphans)


def _charges(reservation: Reservation) -> list[Charge]:
    """What each lease has yet to pay. The drafts' lease is paid as they end, so it has nothing."""
    calls = {call.label: call for call in Call.objects.filter(run_id=reservation.subject)}
    return [
        _charge(lease, calls[lease.name])
        for lease in Lease.objects.filter(reservation=reservation, closed_at__isnull=True)
        if lease.name in calls
    ]


def _charge(lease: Lease, call: Call) -> Charge:
    played = call.state == CallState.CACHED or call.provider == RECORDED
    used = 0 if played else call.input_tokens + call.output_tokens
    return Charge(
        lease.name,
        tokens=max(0, used - lease.tokens),
        cost_micro_usd=max(0, (call.cost_micro_usd or 0) - lease.cost_micro_usd),
        closes=True,
    )
