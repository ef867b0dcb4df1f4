"""The counters of a workspace: read and written under its row's lock, made again from the ledger.

docs/adr/0006-reserve-then-settle.md
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from django.db.models import Q, Sum
from django.db.models.functions import Now

from workspaces.domain.quotas import WORKSPACE, Standing
from workspaces.domain.windows import NOW, Windows
from workspaces.models import Counter, Lease, Reservation, Workspace

SUMS = ("tokens", "tokens_reserved", "cost_micro_usd", "cost_reserved_micro_usd")

Counters = Mapping[tuple[str, str], Counter]
"""(scope, window) → counter."""


def lock_workspace(workspace: Workspace, now: datetime | None = None) -> tuple[Workspace, datetime]:
    """The workspace's row, locked until the transaction ends, and the database's time.

    Not the stronger lock that would also hold up whoever writes a row that refers to it. On SQLite
    the transaction has the whole database already.
    """
    row = (
        Workspace.objects.select_for_update(no_key=True)
        .annotate(database_now=Now())
        .get(pk=workspace.pk)
    )
    return row, now or row.database_now


def counters_of(
    workspace: Workspace, scopes: Sequence[str], windows: Windows, limited: Collection[str]
) -> Counters:
    """Those of ``scopes`` for now, the day and the month; the workspace must be locked.

    Kept are those of the workspace itself and of scopes that are ``limited``. One that is missing
    is made from the ledger: a key whose first quota came in the middle of a month begins with what
    the month has used. One that was ever made is kept on, for its quota may come back.
    """
    spans = (NOW, windows.day, windows.month)
    rows = Counter.objects.in_workspace(workspace).filter(scope__in=scopes, window__in=spans)
    found = {(each.scope, each.window): each for each in rows}
    missing = [
        (scope, span)
        for scope in scopes
        for span in spans
        if (scope, span) not in found and (scope == WORKSPACE or scope in limited)
    ]
    made = [Counter(workspace=workspace, scope=scope, window=span) for scope, span in missing]
    for counter in made:
        recount(counter)
    return found | {(each.scope, each.window): each for each in Counter.objects.bulk_create(made)}


def save_counters(counters: Iterable[Counter]) -> None:
    """Write counters that were read under the lock that is still held.

    One by one: to put them into one statement takes Django longer than to send a few.
    """
    for counter in counters:
        counter.save(update_fields=("runs", "tat") if counter.window == NOW else SUMS)


def standings_of(counters: Counters) -> dict[tuple[str, str], Standing]:
    """The counters as the domain reads them."""
    return {
        key: Standing(runs=each.runs, tat=each.tat, **{name: getattr(each, name) for name in SUMS})
        for key, each in counters.items()
    }


def recount(counter: Counter) -> None:
    """Set ``counter`` to what the ledger says; its ``tat`` is in no ledger and stays."""
    reservations = Reservation.objects.in_workspace(counter.workspace).filter(_scope(counter.scope))
    if counter.window == NOW:
        counter.runs = reservations.filter(closed_at__isnull=True).count()
        return
    within = Q(reservation__day=counter.window) | Q(reservation__month=counter.window)
    sums = Lease.objects.filter(within, reservation__in=reservations).aggregate(
        tokens=Sum("tokens"),
        tokens_reserved=Sum("reserved_tokens"),
        cost_micro_usd=Sum("cost_micro_usd"),
        cost_reserved_micro_usd=Sum("reserved_micro_usd"),
    )
    for name in SUMS:
        setattr(counter, name, sums[name] or 0)


def _scope(scope: str) -> Q:
    """The reservations that count in ``scope``."""
    kind, _, name = scope.partition(":")
    if scope == WORKSPACE:
        return Q()
    return Q(key_public=name) if kind == "key" else Q(pipeline=name)
