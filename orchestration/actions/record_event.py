"""The only writer of the log."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from orchestration.domain.run import EventType
from orchestration.models import Call, Run, RunEvent, Synthesis
from orchestration.queue import announce_facts
from workspaces.actions.settle import Charge, settle, without_room


class LeaseLost(Exception):
    """Another driver holds the run: nothing was written, and this one must stop."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """A fact to append. ``at_ms`` is on the run's clock; ``body`` is the event's own fields."""

    type: EventType
    at_ms: int
    body: Mapping[str, Any]


@dataclass(slots=True)
class Batch:
    """Facts, and the fields of rows that follow from them; written together or not at all.

    ``calls`` by label, ``syntheses`` by version; a version not seen before becomes a row.
    ``charges`` pay for what the facts tell of; with ``closes`` the run holds nothing any more.
    """

    events: list[NewEvent] = field(default_factory=list)
    run: dict[str, Any] = field(default_factory=dict)
    calls: dict[str, dict[str, Any]] = field(default_factory=dict)
    syntheses: dict[int, dict[str, Any]] = field(default_factory=dict)
    charges: list[Charge] = field(default_factory=list)
    closes: bool = False

    def __bool__(self) -> bool:
        return bool(self.events or self.run or self.calls or self.syntheses)


@dataclass(frozen=True, slots=True)
class Recorded:
    """``head`` is the log's. ``no_room`` are calls that go on and may not be tried again: what the
    next attempt may use did not fit into a quota."""

    head: int
    no_room: frozenset[str] = frozenset()


@transaction.atomic
def record_event(*, run_id: UUID, fence: int, behind: int, batch: Batch, now: datetime) -> Recorded:
    """Append ``batch`` to the run's log behind its fact ``behind``, and settle what it paid.

    Updating the run's row first takes its lock, so sequence numbers are given out in commit order:
    a reader that has seen 7 can never be surprised by a late 6. Raises LeaseLost when ``fence`` is
    no longer the run's. A batch that is there already (its commit went through, but the reply was
    lost) is not written again.
    """
    head = behind + len(batch.events)
    rows = Run.objects.everywhere().filter(pk=run_id, fence=fence)
    if rows.filter(last_seq=behind).update(last_seq=head, **batch.run) != 1:
        if batch.events and rows.filter(last_seq=head).exists():
            return Recorded(head, without_room(subject=run_id, charges=batch.charges))
        raise LeaseLost(str(run_id))
    RunEvent.objects.bulk_create(
        RunEvent(
            run_id=run_id,
            seq=behind + 1 + index,
            at=now,
            at_ms=event.at_ms,
            type=event.type,
            body=dict(event.body),
        )
        for index, event in enumerate(batch.events)
    )
    for label, fields in batch.calls.items():
        Call.objects.filter(run_id=run_id, label=label).update(**fields)
    for version, fields in batch.syntheses.items():
        Synthesis.objects.update_or_create(run_id=run_id, version=version, defaults=fields)
    no_room: frozenset[str] = frozenset()
    if batch.charges or batch.closes:
        no_room = settle(subject=run_id, charges=batch.charges, closes=batch.closes)
    if batch.events:
        announce_facts(run_id)
    return Recorded(head, no_room)
