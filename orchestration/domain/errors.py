"""The one taxonomy of what goes wrong with a call or a run.

A kind is the metric label, the reason stored with a call or run, and the anchor in docs/errors.md.
Its row says what the rest of Rex decides by: may the call be tried again, does it count against the
provider, in which state does it leave the call, which HTTP status stands for it, and what a person
reads. The kinds of the fan-out seam are those of ``go/fanout-service/api/kinds.json``.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

EndState = Literal["failed", "timeout", "cancelled", "skipped"]


class ErrorKind(StrEnum):
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    CONNECTION = "connection"
    TIMEOUT_CONNECT = "timeout.connect"
    TIMEOUT_FIRST_TOKEN = "timeout.first_token"
    TIMEOUT_STALL = "timeout.stall"
    TIMEOUT_TOTAL = "timeout.total"
    DEADLINE = "deadline"
    INVALID_REQUEST = "invalid_request"
    AUTH = "auth"
    CONTEXT_TOO_LONG = "context_too_long"
    CONTENT_FILTER = "content_filter"
    RESPONSE_TOO_LARGE = "response_too_large"
    BAD_UPSTREAM_RESPONSE = "bad_upstream_response"
    INCOMPLETE = "incomplete"
    CIRCUIT_OPEN = "circuit_open"
    QUEUE_FULL = "queue_full"
    QUOTA_EXCEEDED = "quota.exceeded"
    BUDGET_RUN = "budget.run"
    STOP_USER = "stop.user"
    STOP_SUPERSEDED = "stop.superseded"
    SLOW_READER = "slow_reader"
    WORKER_LOST = "worker_lost"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """What follows from a kind.

    ``retryable``: another attempt of the same call may succeed. ``moves_breaker``: the provider is
    at fault, so the kind counts towards opening its circuit. ``state``: where it leaves the call.
    ``http_status``: what an API answers when the kind is the whole answer. ``sentence``: what
    happened and what to do, for the person who asked.
    """

    kind: ErrorKind
    retryable: bool
    moves_breaker: bool
    state: EndState
    http_status: int
    sentence: str


def _row(
    kind: ErrorKind,
    http_status: int,
    sentence: str,
    *,
    retryable: bool = False,
    moves_breaker: bool = False,
    state: EndState = "failed",
) -> ErrorRow:
    return ErrorRow(kind, retryable, moves_breaker, state, http_status, sentence)


_ROWS: Final = (
    _row(
        ErrorKind.RATE_LIMITED,
        429,
        "The provider limits how fast it may be asked. Wait a minute, or use another model.",
        retryable=True,
    ),
    _row(
        ErrorKind.OVERLOADED,
        503,
        "The provider has more work than it can take. Try again later, or use another model.",
        retryable=True,
        moves_breaker=True,
    ),
    _row(
        ErrorKind.SERVER_ERROR,
        502,
        "The provider failed on its side. Try again, or use another model.",
        retryable=True,
        moves_breaker=True,
    ),
    _row(
        ErrorKind.CONNECTION,
        502,
        "The provider could not be reached. Check the network and the provider's address.",
        retryable=True,
        moves_breaker=True,
    ),
    _row(
        ErrorKind.TIMEOUT_CONNECT,
        504,
        "Connecting to the provider took too long. Check the network, or try again.",
        retryable=True,
        moves_breaker=True,
        state="timeout",
    ),
    _row(
        ErrorKind.TIMEOUT_FIRST_TOKEN,
        504,
        "The model did not begin to answer in time. Try again, or use a faster model.",
        retryable=True,
        moves_breaker=True,
        state="timeout",
    ),
    _row(
        ErrorKind.TIMEOUT_STALL,
        504,
        "The model stopped in the middle of its answer and sent nothing more. Try again.",
        retryable=True,
        moves_breaker=True,
        state="timeout",
    ),
    _row(
        ErrorKind.TIMEOUT_TOTAL,
        504,
        "The model was still writing when its time was over. Ask for a shorter answer.",
        state="timeout",
    ),
    _row(
        ErrorKind.DEADLINE,
        504,
        "The run's time was over before this was done. What had arrived was kept.",
        state="timeout",
    ),
    _row(
        ErrorKind.INVALID_REQUEST,
        400,
        "The provider refused the request. Check that the model exists and takes these settings.",
    ),
    _row(
        ErrorKind.AUTH,
        502,
        "The provider refused the key or the account behind it. Check the key, its rights and the "
        "account's balance.",
    ),
    _row(
        ErrorKind.CONTEXT_TOO_LONG,
        400,
        "The text is longer than the model can read. Shorten it, or use a model with a larger "
        "context.",
    ),
    _row(
        ErrorKind.CONTENT_FILTER,
        422,
        "The provider's content filter stopped the answer. Put the question differently.",
    ),
    _row(
        ErrorKind.RESPONSE_TOO_LARGE,
        502,
        "The answer was larger than Rex takes, so it was cut off. Ask for a shorter one.",
    ),
    _row(
        ErrorKind.BAD_UPSTREAM_RESPONSE,
        502,
        "The provider sent something that is not an answer. Check its address; try again.",
        moves_breaker=True,
    ),
    _row(
        ErrorKind.INCOMPLETE,
        502,
        "The answer broke off before its end. What is shown is only a part; try again.",
        retryable=True,
        moves_breaker=True,
    ),
    _row(
        ErrorKind.CIRCUIT_OPEN,
        503,
        "This provider failed several times in a row, so it is left alone for a moment. Try again "
        "in a minute, or use another model.",
        retryable=True,
        state="skipped",
    ),
    _row(
        ErrorKind.QUEUE_FULL,
        503,
        "Too many calls already wait for this provider. Try again in a minute, or use another "
        "model.",
        retryable=True,
        state="skipped",
    ),
    _row(
        ErrorKind.QUOTA_EXCEEDED,
        429,
        "The workspace has used up its quota. "
        "Wait until it renews, or ask an operator to raise it.",
        state="skipped",
    ),
    _row(
        ErrorKind.BUDGET_RUN,
        402,
        "The run reached the most it may cost. Raise the budget, or ask fewer models.",
        state="skipped",
    ),
    _row(ErrorKind.STOP_USER, 409, "Stopped on request.", state="cancelled"),
    _row(
        ErrorKind.STOP_SUPERSEDED,
        409,
        "Stopped because the answer no longer needed it. There is nothing to do.",
        state="cancelled",
    ),
    _row(
        ErrorKind.SLOW_READER,
        503,
        "The answer came faster than it was read, so it was stopped. Start the run again.",
    ),
    _row(
        ErrorKind.WORKER_LOST,
        503,
        "The process that ran this ended unexpectedly. Start the run again.",
        retryable=True,
    ),
    _row(
        ErrorKind.INTERNAL,
        500,
        "Rex failed. Start the run again; if it stays so, the logs have the details.",
    ),
)

ERROR_ROWS: Final = {row.kind: row for row in _ROWS}


def row_of(kind: str) -> ErrorRow:
    """The row of ``kind``; a kind this version does not know is treated as ``internal``."""
    try:
        return ERROR_ROWS[ErrorKind(kind)]
    except ValueError:
        return ERROR_ROWS[ErrorKind.INTERNAL]


def sentence_for(kind: str) -> str:
    """What a person reads when a call or run ended for ``kind``."""
    return row_of(kind).sentence
