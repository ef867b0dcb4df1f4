"""What a run is: its states, its calls' states, its log's event types, and how the log folds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class CacheWish(StrEnum):
    """What a run wants of the cache: known answers where there are any; fresh ones, kept for later
    runs; or nothing to do with it."""

    USE = "use"
    REFRESH = "refresh"
    OFF = "off"


class RunStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    DEGRADED = "degraded"
    FAILED = "failed"
    CANCELLED = "cancelled"


RUN_ENDED = frozenset({RunStatus.DONE, RunStatus.DEGRADED, RunStatus.FAILED, RunStatus.CANCELLED})


class CallState(StrEnum):
    QUEUED = "queued"
    WAITING = "waiting"
    STREAMING = "streaming"
    RETRYING = "retrying"
    CACHED = "cached"
    DONE = "done"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


CALL_ANSWERED = frozenset({CallState.CACHED, CallState.DONE})
CALL_ENDED = CALL_ANSWERED | frozenset(
    {
        CallState.FAILED,
        CallState.TIMEOUT,
        CallState.CANCELLED,
        CallState.SKIPPED,
    }
)


class EventType(StrEnum):
    """Facts are rows of the log; the last three are text on its way and never become rows."""

    RUN_STARTED = "run.started"
    CALL_STARTED = "call.started"
    CALL_FIRST_TOKEN = "call.first_token"
    CALL_ATTEMPT_FAILED = "call.attempt_failed"
    CALL_FINISHED = "call.finished"
    CALL_FAILED = "call.failed"
    CALL_CANCEL_REQUESTED = "call.cancel_requested"
    SYNTHESIS_STARTED = "synthesis.started"
    SYNTHESIS_REVISED = "synthesis.revised"
    SYNTHESIS_FAILED = "synthesis.failed"
    SYNTHESIS_CANCEL_REQUESTED = "synthesis.cancel_requested"
    SYNTHESIS_FINAL = "synthesis.final"
    RUN_STOP_REQUESTED = "run.stop_requested"
    RUN_FINISHED = "run.finished"

    CALL_CHUNK = "call.chunk"
    SYNTHESIS_DELTA = "synthesis.delta"
    OVERLAP_UPDATED = "overlap.updated"


TRANSIENT = frozenset({EventType.CALL_CHUNK, EventType.SYNTHESIS_DELTA, EventType.OVERLAP_UPDATED})


def label_of(position: int) -> str:
    """The label of the call at ``position`` (0 → A, 25 → Z); runs are far narrower than 26."""
    if not 0 <= position < 26:
        raise ValueError("a run has at most 26 calls")
    return chr(ord("A") + position)


@dataclass(slots=True)
class Fold:
    """What the log alone says of a run; the rows of the database must say the same."""

    status: RunStatus = RunStatus.QUEUED
    reason: str | None = None
    calls: dict[str, CallState] = field(default_factory=dict)
    version: int = 0
    final_version: int | None = None
    seq: int = 0


def fold(events: Iterable[Mapping[str, Any]]) -> Fold:
    """Fold event objects (as the API gives them) in order; an event seen again changes nothing."""
    state = Fold()
    for event in events:
        if event["type"] in TRANSIENT or event["seq"] <= state.seq:
            continue
        state.seq = event["seq"]
        _apply(state, event)
    return state


def _apply(state: Fold, event: Mapping[str, Any]) -> None:
    match event["type"]:
        case EventType.RUN_STARTED:
            state.calls = dict.fromkeys(event["labels"], CallState.QUEUED)
        case EventType.CALL_STARTED:
            state.status = RunStatus.RUNNING
            again = event["attempt"] > 1
            state.calls[event["call"]] = CallState.RETRYING if again else CallState.WAITING
        case EventType.CALL_FIRST_TOKEN:
            state.calls[event["call"]] = CallState.STREAMING
        case EventType.CALL_ATTEMPT_FAILED if event["wait_ms"] is not None:
            state.calls[event["call"]] = CallState.RETRYING
        case EventType.CALL_FINISHED:
            cached = event.get("cached", False)
            state.calls[event["call"]] = CallState.CACHED if cached else CallState.DONE
        case EventType.CALL_FAILED:
            state.calls[event["call"]] = CallState(event["state"])
        case EventType.SYNTHESIS_REVISED:
            state.version = event["version"]
        case EventType.SYNTHESIS_FINAL:
            state.final_version = event["version"]
        case EventType.RUN_FINISHED:
            state.status = RunStatus(event["status"])
            state.reason = event["reason"]
