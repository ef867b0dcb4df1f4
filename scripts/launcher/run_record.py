"""``run.json``: what is running here, for ``./rex ask`` and for a second ``./rex up``."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from launcher.failure import Failed
from launcher.layout import Layout
from launcher.private_files import write_private


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Addresses and process ids of a running stack."""

    url: str
    model: str
    ports: dict[str, int]
    pids: dict[str, int]


@contextmanager
def only_one(layout: Layout) -> Iterator[None]:
    """Holds the right to run here; raises Failed when another process has it.

    Two stacks over one database would drive the same runs twice. The kernel gives the lock back
    when its holder dies, so a record without a holder is stale by definition.
    """
    with _lock_file(layout).open("a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            record = _read(layout)
            where = f" at {record.url}" if record else ""
            raise Failed(
                f"Rex is already running here{where}.",
                advice="Use that one, stop it with Ctrl-C, or set REX_STATE_DIR for a second one.",
            ) from None
        try:
            yield
        finally:
            layout.run_record.unlink(missing_ok=True)


def running(layout: Layout) -> RunRecord | None:
    """The stack that runs here now and is ready, or None."""
    with _lock_file(layout).open("a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(layout)
    return None


def write(layout: Layout, record: RunRecord) -> None:
    write_private(layout.run_record, json.dumps(asdict(record), indent=2) + "\n")


def _read(layout: Layout) -> RunRecord | None:
    try:
        return RunRecord(**json.loads(layout.run_record.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _lock_file(layout: Layout) -> Path:
    return layout.state / "run.lock"
