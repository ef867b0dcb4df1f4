"""Enqueueing. The database is the queue; this only rings for someone to look at it."""

from uuid import UUID

from django.db import transaction

from orchestration.publish import QUEUE, doorbells, driver_of, readers_of


def announce_run() -> None:
    """A run was written: wake a driver once it is committed, and not at all if it never is."""
    transaction.on_commit(lambda: doorbells.ring(QUEUE))


def announce_command(run_id: UUID) -> None:
    """A stop was written: wake the run's driver and its readers once it is committed."""

    def ring() -> None:
        doorbells.ring(driver_of(run_id))
        doorbells.ring(readers_of(run_id))

    transaction.on_commit(ring)


def announce_facts(run_id: UUID) -> None:
    """Facts were written: wake the run's readers once they are committed."""
    transaction.on_commit(lambda: doorbells.ring(readers_of(run_id)))
