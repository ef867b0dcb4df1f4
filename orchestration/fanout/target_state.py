"""How the providers stand, as ``GET /targets`` of the Go service tells it (its CONTRACT.md)."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0)]
Milliseconds = Annotated[int, Meta(ge=0)]
Named = Annotated[str, Meta(min_length=1)]


class TargetState(Struct, frozen=True, forbid_unknown_fields=True):
    """A model at one key.

    ``key`` is the key's place in the operator's setting, "1", "2" …, or "none"; it says nothing
    about the key. ``limit`` is how many attempts may be in flight at once, None for any number.
    ``resumes_ms``: in how long calls are sent again that are kept back now. ``asked_ms``: how long
    ago an attempt was last sent.
    """

    provider: Named
    model: Named
    key: Annotated[str, Meta(pattern="^(none|[1-9][0-9]*)$")]
    in_flight: Count
    limit: Annotated[int, Meta(ge=1)] | None
    queued: Count
    breaker: Literal["closed", "open", "half_open"]
    refused: bool
    resumes_ms: Milliseconds | None
    asked_ms: Milliseconds | None


class CacheState(Struct, frozen=True, forbid_unknown_fields=True):
    """The answers in memory."""

    entries: Count
    bytes: Count


class Targets(Struct, frozen=True, forbid_unknown_fields=True):
    """``targets``: those in trouble first, then what was asked last; ``left_out`` are so many more.
    ``cache`` is None where no answers are kept."""

    targets: Annotated[tuple[TargetState, ...], Meta(max_length=500)]
    left_out: Count
    cache: CacheState | None


_decoder = msgspec.json.Decoder(Targets)


def decode_targets(body: bytes) -> Targets:
    """Raises ValueError for what is not of the contract's form."""
    return _decoder.decode(body)
