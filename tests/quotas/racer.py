"""One process of the race: so many creators, each a thread; where it is told to, also a driver.

Started by ``test_racing_creates``; says "ready", waits for a line, and writes down what happens.
"""

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

os.environ["DJANGO_SETTINGS_MODULE"] = "rexsite.settings"

import django

django.setup()

from django.conf import settings
from django.db import DatabaseError, connection

from orchestration.actions.start_run import RunRequest, start_run
from orchestration.fanout import wire
from orchestration.fanout.scripted import ScriptedClient
from orchestration.runner import Runner
from tests.runs import answers
from workspaces.access import actor_from_key
from workspaces.actions.reserve import QuotaExceeded

TRIES = 3

Note = Callable[..., None]


def main(key: str, creators: int, log: str, drives: bool) -> None:
    with open(log, "a", buffering=1, encoding="utf-8") as file:  # noqa: PTH123
        lock = threading.Lock()

        def note(what: str, **more: Any) -> None:
            with lock:
                file.write(json.dumps({"what": what, "at": time.monotonic(), **more}) + "\n")

        starting = threading.Event()
        threads = [
            threading.Thread(target=create, args=(key, starting, note), daemon=True)
            for _ in range(creators)
        ]
        for thread in threads:
            thread.start()
        print("ready", flush=True)
        sys.stdin.readline()
        starting.set()
        if drives:
            asyncio.run(drive(note))
        else:
            for thread in threads:
                thread.join()
            print("done", flush=True)
            sys.stdin.readline()


def create(key: str, starting: threading.Event, note: Note) -> None:
    """Ask until let in, or often enough; what else may go wrong is a fault of Rex."""
    starting.wait()
    for _ in range(TRIES):
        try:
            actor = actor_from_key(key)
            assert actor is not None
            run = start_run(actor=actor, request=RunRequest(prompt="Why?", models=("local/brisk",)))
            note("admitted", run=str(run.pk))
            break
        except QuotaExceeded as refused:
            note("refused", by=refused.refusal.use.limit.dimension)
            time.sleep(0.2)
        except DatabaseError as error:
            note("unavailable", error=type(error).__name__)
            time.sleep(0.2)
        finally:
            connection.close()
    note("left")


class Watched:
    """A client that writes down when a run is under way: the running maximum is counted by it."""

    def __init__(self, note: Note) -> None:
        self._client = ScriptedClient(answers(), speed=8)
        self._note = note

    async def stream(self, request: wire.FanoutRequest) -> AsyncGenerator[wire.Event, None]:
        run = request.id.partition(".")[0]
        self._note("enter", run=run)
        try:
            async for event in self._client.stream(request):
                yield event
        finally:
            self._note("exit", run=run)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


async def drive(note: Note) -> None:
    """Drive runs, anyone's, until told to stop."""
    runner = Runner(Watched(note))
    runner.start()
    print("done", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await runner.stop()


if __name__ == "__main__":
    assert settings.MAX_CONCURRENT_RUNS > 10, "the quota, not the driver, must be what bounds"
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4] == "drives")
