"""Following a run: read what is new, wait for the doorbell, read on. Used by every live reader."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from orchestration.bridge import in_database
from orchestration.live import tails
from orchestration.publish import doorbells, readers_of
from orchestration.reader import Cursor, read_events

# A lost ring, or a run driven by another process, is noticed this late at most.
TICK_S = 1.0
# Frames are at least this far apart: many small pieces of text become one larger one.
MIN_INTERVAL_S = 0.04


async def follow(
    run_id: UUID, cursor: Cursor, *, heartbeat_s: float
) -> AsyncIterator[list[dict[str, Any]]]:
    """Batches of events until the run's last one; an empty batch after ``heartbeat_s`` of silence.

    It pulls: a consumer that is slow to take a batch gets fewer and larger ones, and nothing piles
    up for it here.
    """
    with doorbells.listen(readers_of(run_id)) as bell:
        silent_since = time.monotonic()
        rung = False
        while True:
            # A ring for text alone costs no query; the tick looks at the rows whatever rang.
            facts = not rung or tails.head(run_id) != cursor.since
            batch = (
                await in_database(read_events, run_id, cursor)
                if facts
                else read_events(run_id, cursor, facts=False)
            )
            if batch:
                silent_since = time.monotonic()
                yield batch
            if cursor.done:
                return
            if not batch and time.monotonic() - silent_since >= heartbeat_s:
                silent_since = time.monotonic()
                yield []
            rung = await bell.wait(min(TICK_S, heartbeat_s))
            if rung:
                # The rest of what rang will be there in a moment too.
                await asyncio.sleep(MIN_INTERVAL_S)
