"""Reading a run from where a reader left off: the log after a seq, each text after an offset.

The websocket, the NDJSON stream, the long-poll and through them the CLI all read with
``read_events``; a reader that reconnects passes what it has and gets the rest, exactly once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from orchestration.domain.run import RUN_ENDED, EventType
from orchestration.live import tails
from orchestration.models import Call, Run, RunEvent, Synthesis

Position = tuple[int, int]  # rev, offset in code points

# The most of one text that goes out in one event; the rest follows in the next frame.
MAX_TEXT_CHARS = 64_000
MAX_FACTS = 500

_ENDS_A_CALL = frozenset({EventType.CALL_FINISHED, EventType.CALL_FAILED})
_ENDS_A_VERSION = frozenset({EventType.SYNTHESIS_REVISED, EventType.SYNTHESIS_FAILED})


@dataclass(slots=True)
class Cursor:
    """Where a reader is. ``open`` holds the streams that may still grow."""

    since: int = 0
    have: dict[str, Position] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    overlap_rev: int = 0
    done: bool = False


def read_events(run_id: UUID, cursor: Cursor, *, facts: bool = True) -> list[dict[str, Any]]:
    """What is new since ``cursor``, which is moved on. Empty when there is nothing.

    Facts come in seq order, and all text of a stream before the fact that ends it. With
    ``facts=False`` only text is looked at, without a query.
    """
    events: list[dict[str, Any]] = []
    if facts:
        rows = list(
            RunEvent.objects.filter(run_id=run_id, seq__gt=cursor.since).order_by("seq")[:MAX_FACTS]
        )
        for row in rows:
            _enter(cursor, row)
            stream = _ended_stream(row)
            if stream is not None:
                events += _rest_of(run_id, cursor, stream)
                cursor.open.discard(stream)
            if row.type == EventType.RUN_FINISHED:
                cursor.done = True
                events += _last_overlap(row, cursor)
            cursor.since = row.seq
            events.append(event_of(row))
    for stream in sorted(cursor.open):
        events += _text_events(run_id, cursor, stream)
    if not cursor.done:
        events += _overlap_events(run_id, cursor)
    return events


def open_streams(run_id: UUID, cursor: Cursor) -> None:
    """Prepare a cursor that starts at ``since`` > 0: find the streams open at that point."""
    for row in RunEvent.objects.filter(run_id=run_id, seq__lte=cursor.since).order_by("seq"):
        _enter(cursor, row)
        stream = _ended_stream(row)
        if stream is not None:
            cursor.open.discard(stream)
        cursor.done = cursor.done or row.type == EventType.RUN_FINISHED


def event_of(row: RunEvent) -> dict[str, Any]:
    """A fact as the API, the socket and the CLI give it."""
    return {
        "seq": row.seq,
        "type": row.type,
        "at": row.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "at_ms": row.at_ms,
        **row.body,
    }


def _enter(cursor: Cursor, row: RunEvent) -> None:
    if row.type == EventType.CALL_STARTED:
        cursor.open.add(row.body["call"])
    elif row.type == EventType.SYNTHESIS_STARTED and row.body["kind"] != "patch":
        # What a patch writes is edits, not text for readers; its blocks come with its end.
        cursor.open.add(f"v{row.body['version']}")


def _ended_stream(row: RunEvent) -> str | None:
    if row.type in _ENDS_A_CALL:
        return str(row.body["call"])
    if row.type in _ENDS_A_VERSION:
        return f"v{row.body['version']}"
    return None


def _text_events(run_id: UUID, cursor: Cursor, stream: str) -> list[dict[str, Any]]:
    rev, offset = cursor.have.get(stream, (0, 0))
    rev, offset, text = tails.since(run_id, stream, rev, offset)
    return _as_events(cursor, stream, rev, offset, text)


def _rest_of(run_id: UUID, cursor: Cursor, stream: str) -> list[dict[str, Any]]:
    """All text of an ended stream that the reader lacks: from the tail, else from the rows."""
    known = tails.texts(run_id)
    if known is not None and stream in known:
        rev, text = known[stream]
    else:
        rev, text = _stored_text(run_id, stream)
    have_rev, offset = cursor.have.get(stream, (0, 0))
    start = offset if have_rev == rev else 0
    return _as_events(cursor, stream, rev, start, text[start:])


def _stored_text(run_id: UUID, stream: str) -> tuple[int, str]:
    if stream.startswith("v"):
        rows = Synthesis.objects.filter(run_id=run_id, version=int(stream[1:])).exclude(
            kind="patch"
        )
        return 0, rows.values_list("text", flat=True).first() or ""
    return Call.objects.filter(run_id=run_id, label=stream).values_list("rev", "text").first() or (
        0,
        "",
    )


def _as_events(
    cursor: Cursor, stream: str, rev: int, offset: int, text: str
) -> list[dict[str, Any]]:
    events = []
    for start in range(0, len(text), MAX_TEXT_CHARS):
        piece = text[start : start + MAX_TEXT_CHARS]
        address: dict[str, Any] = (
            {"type": EventType.SYNTHESIS_DELTA, "version": int(stream[1:])}
            if stream.startswith("v")
            else {"type": EventType.CALL_CHUNK, "call": stream}
        )
        events.append(
            {"seq": cursor.since, **address, "rev": rev, "offset": offset + start, "text": piece}
        )
    if text or stream in cursor.have:
        cursor.have[stream] = (rev, offset + len(text))
    return events


def _overlap_events(run_id: UUID, cursor: Cursor) -> list[dict[str, Any]]:
    rev, overlap = tails.overlap(run_id)
    if overlap is None or rev == cursor.overlap_rev:
        return []
    cursor.overlap_rev = rev
    return [{"seq": cursor.since, "type": EventType.OVERLAP_UPDATED, "overlap": overlap}]


def _last_overlap(end: RunEvent, cursor: Cursor) -> list[dict[str, Any]]:
    """The overlap as the run ended with it: its tail may be gone before a reader looks again."""
    overlap = end.run.overlap
    if overlap is None:
        return []
    return [{"seq": cursor.since, "type": EventType.OVERLAP_UPDATED, "overlap": overlap}]


def cursor_from(run: Run, since: int, have: Mapping[str, Position]) -> Cursor:
    """A cursor for a reader that has the log up to ``since`` and the texts in ``have``.

    A ``since`` beyond the head (a reader of a database that was restored) starts over.
    """
    if since > run.last_seq:
        return Cursor()
    cursor = Cursor(since=since, have=dict(have))
    if since:
        open_streams(run.pk, cursor)
    cursor.done = cursor.done or (run.status in RUN_ENDED and since == run.last_seq)
    return cursor
