"""The live tail: text in flight, addressed by (stream, rev, offset in code points).

Facts are rows; text becomes rows only now and then (checkpoints) and when its stream ends. Between
those, readers take it from here. In embedded mode the tail is this process's memory; it may vanish
at any time, and readers then fall back to the rows. docs/adr/0002-two-tiers-of-truth.md
"""

import threading
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID


@dataclass(slots=True)
class Stream:
    """The text of one call (by label) or one synthesis version ("v<N>")."""

    rev: int = 0
    parts: list[str] = field(default_factory=list)
    length: int = 0
    _joined: str = ""

    def append(self, text: str) -> None:
        self.parts.append(text)
        self.length += len(text)

    def text(self) -> str:
        """The whole text; joins only what arrived since the last look."""
        if self.parts:
            self._joined += "".join(self.parts)
            self.parts.clear()
        return self._joined


@dataclass(slots=True)
class Tail:
    """The streams of one run, and its overlap view with a revision number."""

    streams: dict[str, Stream] = field(default_factory=dict)
    overlap: dict[str, Any] | None = None
    overlap_rev: int = 0
    head: int | None = None


class LiveTails:
    """Tails by run. Written by the run's driver, read by web threads: hence the lock."""

    def __init__(self) -> None:
        self._tails: dict[UUID, Tail] = {}
        self._lock = threading.Lock()

    def open(self, run_id: UUID) -> None:
        with self._lock:
            self._tails.setdefault(run_id, Tail())

    def restore(self, run_id: UUID, stream: str, rev: int, text: str) -> None:
        """Begin a stream over with ``text``; readers of another ``rev`` get it from its start."""
        with self._lock:
            self._tails[run_id].streams[stream] = Stream(rev=rev, parts=[text], length=len(text))

    def append(self, run_id: UUID, stream: str, text: str) -> None:
        with self._lock:
            self._tails[run_id].streams.setdefault(stream, Stream()).append(text)

    def set_overlap(self, run_id: UUID, overlap: dict[str, Any]) -> None:
        with self._lock:
            tail = self._tails[run_id]
            tail.overlap = overlap
            tail.overlap_rev += 1

    def since(self, run_id: UUID, stream: str, rev: int, offset: int) -> tuple[int, int, str]:
        """(rev, offset, text) of what follows ``offset``; text from 0 where ``rev`` is another.

        Empty text where there is nothing newer, or no tail at all.
        """
        with self._lock:
            tail = self._tails.get(run_id)
            found = tail.streams.get(stream) if tail else None
            if found is None:
                return rev, offset, ""
            start = offset if rev == found.rev else 0
            if start >= found.length:
                return found.rev, start, ""
            return found.rev, start, found.text()[start:]

    def texts(self, run_id: UUID) -> dict[str, tuple[int, str]] | None:
        """(rev, whole text) by stream, or None where this process holds no tail of the run."""
        with self._lock:
            tail = self._tails.get(run_id)
            if tail is None:
                return None
            return {name: (stream.rev, stream.text()) for name, stream in tail.streams.items()}

    def overlap(self, run_id: UUID) -> tuple[int, dict[str, Any] | None]:
        with self._lock:
            tail = self._tails.get(run_id)
            return (tail.overlap_rev, tail.overlap) if tail else (0, None)

    def set_head(self, run_id: UUID, seq: int) -> None:
        """Note the log's head, so that readers need not ask the database after every ring."""
        with self._lock:
            self._tails[run_id].head = seq

    def head(self, run_id: UUID) -> int | None:
        """The log's head as its driver last wrote it; None where this process does not know."""
        with self._lock:
            tail = self._tails.get(run_id)
            return tail.head if tail else None

    def close(self, run_id: UUID) -> None:
        """Forget a run whose rows are complete."""
        with self._lock:
            self._tails.pop(run_id, None)

    def open_runs(self) -> set[UUID]:
        with self._lock:
            return set(self._tails)


tails = LiveTails()
