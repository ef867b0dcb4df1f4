"""The one taxonomy: every kind has its row, and a row says something a person can act on."""

import pytest

from orchestration.domain.errors import ERROR_ROWS, ErrorKind, ErrorRow, row_of, sentence_for
from orchestration.domain.run import CALL_ENDED, CallState

EVERY_ROW = pytest.mark.parametrize("row", ERROR_ROWS.values(), ids=lambda row: row.kind)


def test_every_kind_has_one_row_in_order() -> None:
    assert list(ERROR_ROWS) == list(ErrorKind)


@EVERY_ROW
def test_a_row_leads_to_a_state_in_which_a_call_can_end(row: ErrorRow) -> None:
    assert CallState(row.state) in CALL_ENDED - {CallState.DONE, CallState.CACHED}


@EVERY_ROW
def test_a_sentence_reads_as_one_and_names_no_code(row: ErrorRow) -> None:
    assert row.sentence[0].isupper()
    assert row.sentence.endswith(".")
    assert "_" not in row.sentence


@EVERY_ROW
def test_a_status_of_a_kind_is_an_error(row: ErrorRow) -> None:
    assert 400 <= row.http_status < 600


def test_every_timeout_of_a_phase_leaves_the_call_in_the_state_timeout() -> None:
    timeouts = {kind for kind in ErrorKind if kind.startswith("timeout.") or kind == "deadline"}
    assert {kind for kind, row in ERROR_ROWS.items() if row.state == "timeout"} == timeouts


def test_what_people_stop_is_cancelled_and_never_the_fault_of_a_provider() -> None:
    for kind in (ErrorKind.STOP_USER, ErrorKind.STOP_SUPERSEDED):
        row = ERROR_ROWS[kind]
        assert (row.state, row.retryable, row.moves_breaker) == ("cancelled", False, False)


def test_a_refusal_of_the_request_or_the_key_is_not_worth_another_attempt() -> None:
    kinds = (ErrorKind.INVALID_REQUEST, ErrorKind.AUTH, ErrorKind.CONTEXT_TOO_LONG)
    assert not any(ERROR_ROWS[kind].retryable or ERROR_ROWS[kind].moves_breaker for kind in kinds)


def test_a_kind_of_a_later_version_is_treated_as_internal() -> None:
    assert row_of("rate_limited").kind is ErrorKind.RATE_LIMITED
    assert row_of("no.such.kind").kind is ErrorKind.INTERNAL
    assert sentence_for("no.such.kind") == sentence_for("internal")
