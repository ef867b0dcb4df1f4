"""A run's states, and how its log alone tells what became of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from orchestration.domain.errors import ERROR_ROWS
from orchestration.domain.run import (
    CALL_ENDED,
    RUN_ENDED,
    TRANSIENT,
    CallState,
    EventType,
    Fold,
    RunStatus,
    fold,
    label_of,
)

LOG: list[dict[str, Any]] = [
    {"type": "run.started", "labels": ["A", "B", "C"]},
    {"type": "call.started", "call": "A", "attempt": 1},
    {"type": "call.started", "call": "B", "attempt": 1},
    {"type": "call.started", "call": "C", "attempt": 1},
    {"type": "call.first_token", "call": "A"},
    {"type": "call.first_token", "call": "B"},
    {"type": "synthesis.started", "version": 1},
    {"type": "call.finished", "call": "A"},
    {"type": "synthesis.revised", "version": 1},
    {"type": "call.failed", "call": "B", "state": "timeout"},
    {"type": "synthesis.started", "version": 2},
    {"type": "synthesis.failed", "version": 2},
    {"type": "call.cancel_requested", "call": "C"},
    {"type": "call.failed", "call": "C", "state": "cancelled"},
    {"type": "synthesis.final", "version": 1},
    {"type": "run.finished", "status": "degraded", "reason": None},
]
for _seq, _event in enumerate(LOG, start=1):
    _event["seq"] = _seq

WHOLE = Fold(
    status=RunStatus.DEGRADED,
    reason=None,
    calls={"A": CallState.DONE, "B": CallState.TIMEOUT, "C": CallState.CANCELLED},
    version=1,
    final_version=1,
    seq=len(LOG),
)


def test_the_whole_log_tells_how_everything_ended() -> None:
    assert fold(LOG) == WHOLE


def test_an_empty_log_is_a_run_nobody_drives_yet() -> None:
    assert fold([]) == Fold()
    assert fold(LOG[:1]).status == RunStatus.QUEUED
    assert set(fold(LOG[:1]).calls.values()) == {CallState.QUEUED}


@pytest.mark.parametrize(
    ("seen", "a", "b"),
    [(2, "waiting", "queued"), (5, "streaming", "waiting"), (8, "done", "streaming")],
)
def test_part_of_a_log_tells_where_each_call_was(seen: int, a: str, b: str) -> None:
    state = fold(LOG[:seen])
    assert state.status == RunStatus.RUNNING
    assert (state.calls["A"], state.calls["B"]) == (CallState(a), CallState(b))
    assert state.seq == seen


def test_a_call_that_is_attempted_again_is_retrying_until_its_first_text() -> None:
    told: list[dict[str, Any]] = [
        {"type": "call.attempt_failed", "call": "A", "attempt": 1, "wait_ms": 200},
        {"type": "call.started", "call": "A", "attempt": 2},
        {"type": "call.first_token", "call": "A"},
    ]
    log = LOG[:2] + [{**event, "seq": 3 + n} for n, event in enumerate(told)]
    states = [fold(log[:seen]).calls["A"] for seen in range(2, 6)]
    assert states == ["waiting", "retrying", "retrying", "streaming"]


def test_an_attempt_that_fails_beside_another_changes_nothing() -> None:
    lost = {"type": "call.attempt_failed", "call": "A", "attempt": 1, "wait_ms": None, "seq": 6}
    assert fold([*LOG[:5], lost]).calls["A"] == CallState.STREAMING


def test_an_answer_out_of_the_cache_ends_cached() -> None:
    end = {"type": "call.finished", "call": "A", "cached": True, "seq": 6}
    assert fold([*LOG[:5], end]).calls["A"] == CallState.CACHED


def test_a_version_that_failed_leaves_the_one_before() -> None:
    assert (fold(LOG[:12]).version, fold(LOG[:12]).final_version) == (1, None)


@given(some.lists(some.integers(0, len(LOG)), max_size=6))
def test_a_reader_that_comes_back_and_hears_things_again_believes_the_same(
    restarts: list[int],
) -> None:
    heard = list(LOG)
    for restart in restarts:
        # From somewhere before, on to the end: what a reader gets that forgot where it was.
        heard += LOG[restart:]
    assert fold(heard) == WHOLE


@given(some.lists(some.tuples(some.integers(0, len(LOG)), some.sampled_from(sorted(TRANSIENT)))))
def test_text_on_its_way_changes_no_state(pieces: list[tuple[int, EventType]]) -> None:
    heard = list(LOG)
    for place, kind in pieces:
        heard.insert(place, {"type": kind, "seq": place, "call": "A", "text": "…"})
    assert fold(heard) == WHOLE


def test_facts_that_only_readers_care_about_move_the_head_alone() -> None:
    stop = {"type": "run.stop_requested", "seq": 2, "by": "alice"}
    assert fold([LOG[0], stop]) == Fold(calls=dict.fromkeys("ABC", CallState.QUEUED), seq=2)


def test_a_state_that_is_none_is_an_error_not_a_guess() -> None:
    with pytest.raises(ValueError, match="exploded"):
        fold([*LOG[:4], {"type": "call.failed", "seq": 5, "call": "A", "state": "exploded"}])


def test_ended_states_are_exactly_those_nothing_follows() -> None:
    assert set(RunStatus) - RUN_ENDED == {RunStatus.QUEUED, RunStatus.RUNNING}
    assert set(CallState) - CALL_ENDED == {
        CallState.QUEUED,
        CallState.WAITING,
        CallState.STREAMING,
        CallState.RETRYING,
    }


def test_every_error_kind_leaves_its_call_in_an_ended_state() -> None:
    assert {CallState(row.state) for row in ERROR_ROWS.values()} <= CALL_ENDED


def test_labels_are_letters_in_order_and_there_are_twenty_six() -> None:
    labels = [label_of(position) for position in range(26)]
    assert "".join(labels) == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for beyond in (-1, 26):
        with pytest.raises(ValueError, match="at most 26"):
            label_of(beyond)
