"""A cached answer as it stands in Redis, in the form of ``go/fanout-service/cache/value.go``."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from orchestration.fanout.call_sink import valid_text
from orchestration.fanout.wire import FinishReason, Usage

Named = Annotated[str, Meta(min_length=1)]


class CachedAnswer(Struct, frozen=True, forbid_unknown_fields=True):
    """A complete answer, who gave it, and when it was stored (Unix time, by the clock of who did).

    All fields are there, and no others; a change is a new version, which is part of the key too.
    """

    v: Literal[1]
    text: str
    thoughts: str | None
    finish_reason: FinishReason
    usage: Usage
    provider: Named
    model: Named
    stored_at_ms: Annotated[int, Meta(ge=1)]


class ForeignValue(Exception):
    """What stands there is none of ours, or damaged."""


_decoder = msgspec.json.Decoder(CachedAnswer)


def encode_answer(answer: CachedAnswer) -> bytes:
    return msgspec.json.encode(answer)


def decode_answer(value: bytes) -> CachedAnswer:
    """Raises ForeignValue. Text is repaired: what another program wrote may hold U+0000."""
    try:
        answer = _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ForeignValue from None
    thoughts = None if answer.thoughts is None else valid_text(answer.thoughts)
    return msgspec.structs.replace(answer, text=valid_text(answer.text), thoughts=thoughts)
