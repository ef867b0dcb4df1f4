"""When a key was last used, right to about a minute, at next to no cost to whoever uses it."""

import time
from datetime import datetime, timedelta
from threading import Lock
from typing import Final

import structlog
from django.db import DatabaseError, transaction
from django.db.models import Q

from workspaces.models import ApiKey

EVERY: Final = timedelta(minutes=1)

log = structlog.get_logger("rex.keys")


class _Turn:
    """One writer at a time in a process, and none for a minute after one that failed: where the
    database takes no writes, at most one reader waits to learn that."""

    def __init__(self) -> None:
        self._busy = Lock()
        self._resting_until = 0.0

    def begin(self) -> bool:
        return time.monotonic() >= self._resting_until and self._busy.acquire(blocking=False)

    def end(self, *, failed: bool) -> None:
        if failed:
            self._resting_until = time.monotonic() + EVERY.total_seconds()
        self._busy.release()


turn = _Turn()


def note_use(key: ApiKey, now: datetime) -> None:
    """Write that ``key`` was used at ``now``, where the last note is older than a minute.

    That it cannot be written is no reason to turn anyone away: the next minute has another try.
    """
    if key.last_used_at is not None and now - key.last_used_at < EVERY:
        return
    if not turn.begin():
        return
    failed = True
    try:
        old = Q(last_used_at__isnull=True) | Q(last_used_at__lte=now - EVERY)
        with transaction.atomic():
            ApiKey.objects.in_workspace(key.workspace).filter(old, pk=key.pk).update(
                last_used_at=now
            )
        failed = False
    except DatabaseError as error:
        log.warning("use_not_noted", error=type(error).__name__)
    finally:
        turn.end(failed=failed)
