"""The loop of a process that drives runs: claim, drive, let go. Embedded, it lives in the web's."""

import asyncio
import os
import socket
import uuid
from contextlib import suppress
from functools import partial

import structlog
from django.conf import settings
from django.db import DatabaseError
from django.utils import timezone

from orchestration.actions.claim_runs import claim_runs, release_lease
from orchestration.actions.drive_run import drive_run
from orchestration.actions.settle_orphans import settle_orphans
from orchestration.bridge import in_database
from orchestration.fanout.client import FanoutUnavailable, ProviderClient
from orchestration.fanout.select import close_client, get_client
from orchestration.publish import QUEUE, doorbells
from orchestration.recordings import load_recording

log = structlog.get_logger("rex.runner")

# The sweep: runs whose driver died are found this long after their lease ran out, at most.
SWEEP_EVERY_S = 2.0
# What a run left held when it ended is given back this long after, at most. None should be.
SETTLE_EVERY_S = 30.0


class Runner:
    """Drives up to ``settings.MAX_CONCURRENT_RUNS`` runs at once on the current event loop."""

    def __init__(self, client: ProviderClient | None = None) -> None:
        self._client = client
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._driving: dict[uuid.UUID, asyncio.Task[None]] = {}
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    def start(self) -> None:
        self._tasks = (
            asyncio.create_task(self._claim_forever(), name="rex-runner"),
            asyncio.create_task(self._settle_forever(), name="rex-runner-settle"),
            asyncio.create_task(self._warm(), name="rex-runner-warm"),
        )

    async def stop(self) -> None:
        """Stop claiming and let every run go: another driver may have it at once. Then close the
        client, unless it was given."""
        tasks = [*self._tasks, *self._driving.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is None:
            await close_client()

    async def _warm(self) -> None:
        """Prepare the client now: in process its import takes seconds, else of the first run."""
        try:
            await self._client_here().ready()
        except FanoutUnavailable as error:
            # The first run tries again; until then the log says why it would fail.
            log.warning("fanout_not_ready", problem=str(error))

    def _client_here(self) -> ProviderClient:
        return self._client or get_client(load_recording)

    async def _claim_forever(self) -> None:
        with doorbells.listen(QUEUE) as bell:
            while True:
                try:
                    await self._claim()
                except Exception:
                    # Nothing is lost: the queue is the database, and it is asked again. A loop that
                    # ended here would leave a healthy-looking process that drives nothing.
                    log.exception("claim_failed")
                await bell.wait(SWEEP_EVERY_S)

    async def _settle_forever(self) -> None:
        while True:
            await asyncio.sleep(SETTLE_EVERY_S)
            try:
                if orphans := await in_database(settle_orphans, now=timezone.now()):
                    log.warning("orphans_settled", reservations=orphans)
            except Exception:
                log.exception("settling_failed")

    async def _claim(self) -> None:
        free = settings.MAX_CONCURRENT_RUNS - len(self._driving)
        if free <= 0:
            return
        claimed = await in_database(
            claim_runs,
            owner=self._owner,
            limit=free,
            now=timezone.now(),
            besides=frozenset(self._driving),
        )
        for run_id, fence in claimed:
            task = asyncio.create_task(self._drive(run_id, fence), name=f"run-{run_id}")
            self._driving[run_id] = task
            task.add_done_callback(partial(self._ended, run_id))

    def _ended(self, run_id: uuid.UUID, _task: asyncio.Task[None]) -> None:
        self._driving.pop(run_id, None)
        doorbells.ring(QUEUE)

    async def _drive(self, run_id: uuid.UUID, fence: int) -> None:
        structlog.contextvars.bind_contextvars(run_id=str(run_id))
        try:
            await drive_run(run_id=run_id, fence=fence, client=self._client_here())
        except asyncio.CancelledError:
            with suppress(DatabaseError):
                await asyncio.shield(in_database(release_lease, run_id=run_id, fence=fence))
            raise
        except Exception:
            # The lease runs out and the sweep tries again; the log says why.
            log.exception("drive_failed")
