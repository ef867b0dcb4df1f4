"""Doorbells: "there is something new", never what it is.

A lost ring costs a reader one tick, because readers also look on their own now and then; a message
with a payload would cost it the payload. docs/adr/0003-doorbells-not-payload.md
"""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

# Topics: the queue of runs, what a run's readers wait for, what a run's driver waits for.
QUEUE = "queue"


def readers_of(run_id: UUID) -> str:
    return f"readers:{run_id}"


def driver_of(run_id: UUID) -> str:
    return f"driver:{run_id}"


class Bell:
    """One listener on one topic; belongs to the event loop that made it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def ring(self) -> None:
        """From any thread; a loop that is already gone has nobody left to wake."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, timeout_s: float) -> bool:
        """True when rung since the last wait, False when ``timeout_s`` passed first."""
        try:
            # Not wait_for: in Python 3.11 it swallows a cancellation that meets a ring, and the
            # loop around this would go on for ever.
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        finally:
            self._event.clear()
        return True


class Doorbells:
    def __init__(self) -> None:
        self._bells: dict[str, set[Bell]] = defaultdict(set)
        self._lock = threading.Lock()

    @contextmanager
    def listen(self, topic: str) -> Iterator[Bell]:
        bell = Bell()
        with self._lock:
            self._bells[topic].add(bell)
        try:
            yield bell
        finally:
            with self._lock:
                self._bells[topic].discard(bell)
                if not self._bells[topic]:
                    del self._bells[topic]

    def ring(self, topic: str) -> None:
        with self._lock:
            bells = list(self._bells.get(topic, ()))
        for bell in bells:
            bell.ring()


doorbells = Doorbells()
