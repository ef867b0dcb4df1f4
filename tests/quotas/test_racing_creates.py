"""Five hundred creates race on eight processes for ten slots, and one process is killed meanwhile.

Each process is Rex as it runs: the real action, the real drivers, on SQLite, on PostgreSQL, and on
PostgreSQL with Redis. docs/adr/0006-reserve-then-settle.md
"""

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import pytest

from launcher.layout import ROOT

PROCESSES, CREATORS, LIMIT = 8, 63, 10
KILLED_CREATORS = 50
DRIVERS = 2
PATIENCE_S = 120

_SET_UP = """
import django; django.setup()
from workspaces.actions.issue_key import issue_key
from workspaces.models import Quota, Workspace
home = Workspace.objects.create(slug="acme", name="Acme")
Quota.objects.create(workspace=home, dimension="concurrent_runs", limit={limit})
print(issue_key(workspace=home, name="racers"))
"""
_BOOKS = """
import django; django.setup()
import json
from orchestration.models import Run
from workspaces.counting import recount
from workspaces.models import Counter, Lease, Reservation
home = Counter.objects.everywhere().get(scope="", window="")
told = home.runs
recount(home)
day = Counter.objects.everywhere().get(scope="", window__contains="-", window__regex="^.{10}$")
open_leases = Lease.objects.filter(closed_at__isnull=True).count()
print(json.dumps({
    "in_use": told,
    "by_ledger": home.runs,
    "reserved": day.tokens_reserved,
    "used": day.tokens,
    "open_leases": open_leases,
    "reservations": Reservation.objects.everywhere().count(),
    "runs": Run.objects.everywhere().count(),
    "unended": Run.objects.everywhere().filter(ended_at__isnull=True).count(),
}))
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the processes of a race keep everything."""

    env: dict[str, str]
    folder: Path

    def run(self, *command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT, env=self.env, check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip()


class Racer:
    def __init__(self, place: Place, key: str, number: int) -> None:
        self.log = place.folder / f"racer-{number}.jsonl"
        self.log.touch()
        role = "drives" if number < DRIVERS else "creates"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.quotas.racer", key, str(CREATORS), str(self.log), role],
            cwd=ROOT,
            env=place.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(place.folder / f"racer-{number}.err").open("wb"),
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._stdin.close()
        self._stdout.close()

    @property
    def _stdin(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _stdout(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def until(self, word: str) -> None:
        said = self._stdout.readline().strip()
        told = self.log.with_suffix(".err").read_text(encoding="utf-8")[-2000:]
        assert said == word, f"{self.log.stem} ended with {self._process.poll()}: {told}"

    def tell(self) -> None:
        self._stdin.write("\n")
        self._stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self.tell()
        assert self._process.wait(PATIENCE_S) == 0

    def notes(self) -> list[dict[str, Any]]:
        lines = self.log.read_text(encoding="utf-8").splitlines(keepends=True)
        # The last line of one who was killed may be half of one.
        return [json.loads(line) for line in lines if line.endswith("\n")]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    env = {name: value for name, value in os.environ.items() if not name.startswith("REX_")}
    env |= {
        "REX_SECRET_KEY": "only-for-tests",
        "REX_STATE_DIR": str(tmp_path),
        "REX_MAX_CONCURRENT_RUNS": "50",
        "REX_LOG_LEVEL": "ERROR",
        "DJANGO_SETTINGS_MODULE": "rexsite.settings",
        "PYTHONPATH": str(ROOT / "scripts"),
        "DATABASE_URL": f"sqlite:///{tmp_path / 'rex.sqlite3'}",
    }
    if "postgresql" in request.param:
        env["DATABASE_URL"] = request.getfixturevalue("postgres_server").create_database()
    if "redis" in request.param:
        env["REX_REDIS_URL"] = request.getfixturevalue("redis_url")
    here = Place(env, tmp_path)
    if "postgresql" not in request.param:
        here.run("manage.py", "migrate", "--no-input", "--verbosity", "0")
    return here


def running_maximum(notes: list[dict[str, Any]]) -> int:
    """The most runs that were under way at one moment."""
    spans: dict[str, list[float]] = {}
    for note in notes:
        if note["what"] in ("enter", "exit"):
            spans.setdefault(note["run"], []).append(note["at"])
    steps = sorted(step for times in spans.values() for step in ((min(times), 1), (max(times), -1)))
    most = now = 0
    for _, change in steps:
        now += change
        most = max(most, now)
    return most


def first_let_in(racers: list[Racer]) -> Racer:
    """One of whose creators some were let in, and most were not yet."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for racer in racers:
            if any(note["what"] == "admitted" for note in racer.notes()):
                return racer
        time.sleep(0.002)
    raise AssertionError("nobody was let in")


def until_at_rest(place: Place) -> dict[str, int]:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        books: dict[str, int] = json.loads(place.run("-c", _BOOKS))
        if books["unended"] == 0 or time.monotonic() > deadline:
            return books


@pytest.mark.parametrize(
    "place",
    [
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.postgresql),
        pytest.param("postgresql and redis", marks=[pytest.mark.postgresql, pytest.mark.redis]),
    ],
    indirect=True,
)
def test_ten_slots_are_never_more_than_ten_and_all_free_at_the_end(place: Place) -> None:
    key = place.run("-c", _SET_UP.format(limit=LIMIT))
    with ExitStack() as stack:
        racers = [stack.enter_context(Racer(place, key, each)) for each in range(PROCESSES)]
        for racer in racers:
            racer.until("ready")
        for racer in racers:
            racer.tell()
        victim = first_let_in(racers[DRIVERS:])
        victim.kill()
        survivors = [racer for racer in racers if racer is not victim]
        for racer in survivors:
            racer.until("done")
        for driver in survivors[:DRIVERS]:
            while sum(note["what"] == "left" for note in driver.notes()) < CREATORS:
                time.sleep(0.05)
        books = until_at_rest(place)
        for racer in survivors:
            racer.stop()
        notes = [note for racer in racers for note in racer.notes()]

    left = sum(note["what"] == "left" for note in victim.notes())
    assert CREATORS - left >= KILLED_CREATORS, "the process was killed too late to matter"
    assert books["unended"] == 0
    assert books["in_use"] == books["by_ledger"] == 0
    assert books["open_leases"] == books["reserved"] == 0
    assert books["used"] > 0
    assert books["runs"] == books["reservations"]
    assert running_maximum(notes) <= LIMIT
    admitted = [note for note in notes if note["what"] == "admitted"]
    # A creator may be killed between the commit and its note.
    assert len(admitted) <= books["runs"] <= len(admitted) + CREATORS
    assert len(admitted) > LIMIT, "slots were used again"
    assert any(note["what"] == "refused" for note in notes)
