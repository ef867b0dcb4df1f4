"""What a provider's refusal means: HTTP status and error object to a kind.

The same table as the Go service's; ``go/fanout-service/api/golden/upstream_error*.json`` holds both
to it. A provider's own words are read for their codes and never passed on: they can repeat keys and
prompts.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from orchestration.domain.errors import ErrorKind

_LONGEST_WAIT_MS: Final = 24 * 3600 * 1000  # beyond this the number is nonsense: not told

# A part of a code → kind; the first match wins.
_KNOWN: Final = (
    ("context_length", ErrorKind.CONTEXT_TOO_LONG),
    ("context_size", ErrorKind.CONTEXT_TOO_LONG),
    ("context_window", ErrorKind.CONTEXT_TOO_LONG),
    ("content_filter", ErrorKind.CONTENT_FILTER),
    ("content_policy", ErrorKind.CONTENT_FILTER),
    # An exhausted account does not recover by waiting: it is no rate limit.
    ("insufficient_quota", ErrorKind.AUTH),
    ("billing", ErrorKind.AUTH),
    ("invalid_api_key", ErrorKind.AUTH),
    ("no_db_connection", ErrorKind.AUTH),  # LiteLLM's proxy: no key but its own is known there
    ("authentication", ErrorKind.AUTH),
    ("permission", ErrorKind.AUTH),
    ("overloaded", ErrorKind.OVERLOADED),
    ("rate_limit", ErrorKind.RATE_LIMITED),
)
# How messages begin of servers that say these in words alone. A part from the middle would not do:
# it may be repeated from the request.
_BEGINNINGS: Final = (
    ("this model's maximum context length", ErrorKind.CONTEXT_TOO_LONG),
    ("this endpoint's maximum context length", ErrorKind.CONTEXT_TOO_LONG),
    ("this model's maximum prompt length", ErrorKind.CONTEXT_TOO_LONG),
    ("your input exceeds the context window", ErrorKind.CONTEXT_TOO_LONG),
    ("the request exceeds the available context size", ErrorKind.CONTEXT_TOO_LONG),
    ("prompt is too long", ErrorKind.CONTEXT_TOO_LONG),
    ("prompt contains", ErrorKind.CONTEXT_TOO_LONG),  # … tokens, too large for Mistral's model
    ("the decoder prompt", ErrorKind.CONTEXT_TOO_LONG),  # … is longer than vLLM's maximum length
    ("litellm.contextwindowexceedederror", ErrorKind.CONTEXT_TOO_LONG),
    ("input length and", ErrorKind.CONTEXT_TOO_LONG),  # … max_tokens exceed Anthropic's limit
    ("the input token count", ErrorKind.CONTEXT_TOO_LONG),
    ("output blocked by content filtering policy", ErrorKind.CONTENT_FILTER),
    ("your credit balance is too low", ErrorKind.AUTH),
)


def status_kind(status: int) -> ErrorKind:
    """The kind of an HTTP status that brought no event stream."""
    match status:
        case 401 | 402 | 403:
            return ErrorKind.AUTH
        case 429:
            return ErrorKind.RATE_LIMITED
        case 503 | 529:
            return ErrorKind.OVERLOADED
        case 408 | 409 | 425 | 499:
            return ErrorKind.SERVER_ERROR
    if 400 <= status < 500:
        return ErrorKind.INVALID_REQUEST
    if status >= 500:
        return ErrorKind.SERVER_ERROR
    return ErrorKind.BAD_UPSTREAM_RESPONSE


@dataclass(frozen=True, slots=True)
class _Fault:
    """An error object in lower case: its codes, and a code that is an HTTP status (or 0)."""

    words: str = ""
    status: int = 0
    message: str = ""
    flagged: bool = False  # its metadata says what a moderation found in the prompt

    def refine(self, kind: ErrorKind) -> ErrorKind:
        for part, known in _KNOWN:
            if part in self.words:
                return known
        if self.flagged and kind in (ErrorKind.AUTH, ErrorKind.INVALID_REQUEST):
            return ErrorKind.CONTENT_FILTER  # OpenRouter, with status 403: the key is not at fault
        if kind is ErrorKind.INVALID_REQUEST:
            for beginning, known in _BEGINNINGS:
                if self.message.startswith(beginning):
                    return known
        return kind


def refusal_kind(status: int, body: bytes) -> ErrorKind:
    """The kind of an HTTP answer that is no event stream; ``body`` may be cut."""
    if status >= 400:
        return _read(error_object(_json(body))).refine(status_kind(status))
    if status == 200:
        found = error_object(_json(body))
        if found is not None:
            return event_kind(found)
    return status_kind(status)


def event_kind(error: object) -> ErrorKind:
    """The kind of an error object inside a stream that began with HTTP 200."""
    fault = _read(error)
    kind = ErrorKind.SERVER_ERROR
    if fault.status >= 400:
        kind = status_kind(fault.status)
    elif "invalid_request" in fault.words:
        kind = ErrorKind.INVALID_REQUEST
    return fault.refine(kind)


def error_object(body: object) -> object | None:
    """The error in a body: ``{"error": …}``, a list of one such, or a bare error; else None."""
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return None
    if body.get("object") == "error":
        return body
    found: object | None = body.get("error")
    return found


def retry_after_ms(headers: Mapping[str, str], now: datetime) -> int | None:
    """How long the provider asks to wait; None where it does not, or unreadably.

    ``retry-after-ms``, else ``retry-after`` in seconds (whole or not) or as an HTTP date.
    """
    if (wait := _number(headers.get("retry-after-ms"))) is not None:
        pass
    elif (wait := _number(headers.get("retry-after"))) is not None:
        wait *= 1000
    else:
        try:
            date = parsedate_to_datetime(headers.get("retry-after", ""))
        except ValueError:
            return None
        wait = ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds() * 1000
    return int(wait) if 0 < wait <= _LONGEST_WAIT_MS else None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    if math.isnan(number):
        return None
    return min(number, 1e12)


def _read(error: object) -> _Fault:
    if not isinstance(error, dict):
        return _Fault()
    code = error.get("code")
    code_text = "" if code is None else str(code)
    words = [code_text, *(_text(error, name) for name in ("type", "status"))]
    status = int(code_text) if re.fullmatch(r"\d{1,3}", code_text) else 0
    metadata = error.get("metadata")
    flagged = isinstance(metadata, dict) and not metadata.keys().isdisjoint(
        ("reasons", "flagged_input")
    )
    return _Fault(" ".join(words).lower(), status, _text(error, "message").lower(), flagged)


def _text(error: dict[str, Any], name: str) -> str:
    value = error.get(name)
    return value if isinstance(value, str) else ""


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
