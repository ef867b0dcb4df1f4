"""Contract v2 of the fan-out service as types (go/fanout-service/CONTRACT.md owns it).

Decoding refuses unknown fields, converts nothing and takes no null for an absent field. What a
field means is said in the contract and not repeated here. An absent optional field is ``UNSET`` and
is not sent. Longer than most files, because it is the contract's other half: one file there, one
here, read side by side.
"""

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from orchestration.domain.errors import ErrorKind

Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:-]{1,128}\Z")]
ProviderName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,31}\Z")]
ModelName = Annotated[str, Meta(max_length=256, pattern=r"^[^\x00-\x20\x7f]+\Z")]
Text = Annotated[str, Meta(pattern=r"^[^\x00]*\Z")]
Count = Annotated[int, Meta(ge=0)]
HttpStatus = Annotated[int, Meta(ge=100, le=999)]
Milliseconds = Annotated[int, Meta(ge=1, le=3_600_000)]
StopText = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[^\x00]*\Z")]
MediaType = Literal["image/png", "image/jpeg", "image/gif", "image/webp"]
Base64 = Annotated[
    str,
    Meta(
        min_length=4,
        pattern=r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?\Z",
    ),
]
ImageUrl = Annotated[str, Meta(max_length=2048, pattern=r"^https?://[^\x00-\x20\x7f]+\Z")]
CacheKey = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
FinishReason = Literal["stop", "length", "tool_calls"]
Reason = Literal["first", "retry", "restart", "fallback", "hedge", "cache"]


class WireError(Exception):
    """A message of either side that is not contract v2; ``field`` is its path where known."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class TextPart(Struct, frozen=True, forbid_unknown_fields=True, tag="text"):
    text: Text


class ImagePart(Struct, frozen=True, forbid_unknown_fields=True, tag="image"):
    """An image: ``media_type`` and ``data`` (base64), or the ``url`` the provider fetches."""

    media_type: MediaType | UnsetType = UNSET
    data: Base64 | UnsetType = UNSET
    url: ImageUrl | UnsetType = UNSET


Part = TextPart | ImagePart


class Message(Struct, frozen=True, forbid_unknown_fields=True):
    role: Literal["system", "user", "assistant"]
    content: Text | Annotated[tuple[Part, ...], Meta(min_length=1, max_length=64)]

    @property
    def text(self) -> str:
        """What is said in words: the content without its images."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


class Params(Struct, frozen=True, forbid_unknown_fields=True):
    max_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] | UnsetType = UNSET
    temperature: Annotated[float, Meta(ge=0, le=2)] | UnsetType = UNSET
    top_p: Annotated[float, Meta(gt=0, le=1)] | UnsetType = UNSET
    seed: Annotated[int, Meta(ge=0, le=2**53 - 1)] | UnsetType = UNSET
    stop: Annotated[list[StopText], Meta(min_length=1, max_length=4)] | UnsetType = UNSET
    response_format: dict[str, Any] | UnsetType = UNSET


class Timeouts(Struct, frozen=True, forbid_unknown_fields=True):
    connect: Milliseconds | UnsetType = UNSET
    first_token: Milliseconds | UnsetType = UNSET
    stall: Milliseconds | UnsetType = UNSET
    total: Milliseconds | UnsetType = UNSET


DEFAULT_TIMEOUTS_MS = {"connect": 3_000, "first_token": 30_000, "stall": 20_000, "total": 120_000}


class Retry(Struct, frozen=True, forbid_unknown_fields=True):
    """Attempts at each target; with ``restart`` also after text, which then starts over."""

    attempts: Annotated[int, Meta(ge=1, le=3)] | UnsetType = UNSET
    restart: bool | UnsetType = UNSET


class Fallback(Struct, frozen=True, forbid_unknown_fields=True):
    provider: ProviderName
    model: ModelName


class Hedge(Struct, frozen=True, forbid_unknown_fields=True):
    """A second attempt beside a silent first one; without a target of its own, at the same."""

    after_ms: Milliseconds
    provider: ProviderName | UnsetType = UNSET
    model: ModelName | UnsetType = UNSET


class CacheUse(Struct, frozen=True, forbid_unknown_fields=True):
    key: CacheKey
    mode: Literal["read_write", "read", "write"]


class CallRequest(Struct, frozen=True, forbid_unknown_fields=True):
    id: Id
    provider: ProviderName
    model: ModelName
    messages: Annotated[tuple[Message, ...], Meta(min_length=1, max_length=1024)]
    params: Params | UnsetType = UNSET
    timeouts_ms: Timeouts | UnsetType = UNSET
    whole: bool | UnsetType = UNSET
    thoughts: bool | UnsetType = UNSET
    retry: Retry | UnsetType = UNSET
    fallbacks: Annotated[tuple[Fallback, ...], Meta(min_length=1, max_length=3)] | UnsetType = UNSET
    hedge: Hedge | UnsetType = UNSET
    cache: CacheUse | UnsetType = UNSET


class FanoutRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    v: Literal[2] = 2
    id: Id
    request_id: Id | UnsetType = UNSET
    workspace: Id | UnsetType = UNSET
    stream: bool | UnsetType = UNSET
    deadline_ms: Milliseconds
    coalesce_ms: Annotated[int, Meta(ge=0, le=1000)] | UnsetType = UNSET
    calls: Annotated[tuple[CallRequest, ...], Meta(min_length=1, max_length=512)]


class Usage(Struct, frozen=True, forbid_unknown_fields=True):
    """Tokens; input includes the cached ones, output the reasoning ones."""

    input_tokens: Count
    output_tokens: Count
    cached_tokens: Count
    reasoning_tokens: Count
    estimated: bool


class Timing(Struct, frozen=True, forbid_unknown_fields=True):
    """Moments of an attempt in milliseconds since the receipt of the request; None: never came."""

    queued: Count | None
    admitted: Count | None
    connect: Count | None
    first_token: Count | None
    last_token: Count | None


class Queued(Struct, frozen=True, forbid_unknown_fields=True, tag="queued"):
    """The next attempt of the call has to wait for its turn."""

    call: Id
    at_ms: Count


class Started(Struct, frozen=True, forbid_unknown_fields=True, tag="started"):
    """An attempt begins, or with 0 a replay; whatever the call said before is void."""

    call: Id
    at_ms: Count
    attempt: Count
    reason: Reason
    provider: ProviderName
    model: ModelName


class Thought(Struct, frozen=True, forbid_unknown_fields=True, tag="thought"):
    call: Id
    at_ms: Count
    text: Annotated[str, Meta(min_length=1)]


class Chunk(Struct, frozen=True, forbid_unknown_fields=True, tag="chunk"):
    call: Id
    at_ms: Count
    text: Annotated[str, Meta(min_length=1)]


class AttemptFailed(Struct, frozen=True, forbid_unknown_fields=True, tag="attempt_failed"):
    """An attempt is over and its call is not; ``wait_ms`` is None where no other follows it."""

    call: Id
    at_ms: Count
    attempt: Annotated[int, Meta(ge=1)]
    kind: ErrorKind
    message: Annotated[str, Meta(min_length=1)]
    retryable: bool
    status: HttpStatus | None
    retry_after_ms: Count | None
    wait_ms: Count | None
    usage: Usage | None
    timing_ms: Timing


class Finished(Struct, frozen=True, forbid_unknown_fields=True, tag="finished"):
    call: Id
    at_ms: Count
    attempt: Count
    provider: ProviderName
    model: ModelName
    finish_reason: FinishReason
    usage: Usage
    timing_ms: Timing
    cached_age_ms: Count | None


class Failed(Struct, frozen=True, forbid_unknown_fields=True, tag="failed"):
    call: Id
    at_ms: Count
    attempt: Count
    kind: ErrorKind
    message: Annotated[str, Meta(min_length=1)]
    retryable: bool
    status: HttpStatus | None
    retry_after_ms: Count | None
    usage: Usage | None
    timing_ms: Timing


Event = Queued | Started | Thought | Chunk | AttemptFailed | Finished | Failed


class End(Struct, frozen=True, forbid_unknown_fields=True):
    calls: Annotated[int, Meta(ge=1)]
    finished: Count
    failed: Count
    elapsed_ms: Count


class Batch(Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the answer; without events it is a heartbeat, with ``end`` it is the last."""

    n: Annotated[int, Meta(ge=1)]
    ev: list[Event]
    end: End | UnsetType = UNSET


class RefusalBody(Struct, frozen=True, forbid_unknown_fields=True):
    kind: Literal["invalid_request", "overloaded", "internal"]
    message: Annotated[str, Meta(min_length=1)]
    field: str | None


class Refusal(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of every answer that is not 200."""

    error: RefusalBody


T = TypeVar("T")

_request_decoder = msgspec.json.Decoder(FanoutRequest)
_line_decoder = msgspec.json.Decoder(Batch)
_refusal_decoder = msgspec.json.Decoder(Refusal)
_encoder = msgspec.json.Encoder()


def encode(message: FanoutRequest | Batch) -> bytes:
    """JSON in UTF-8 without a line end. Raises WireError for text UTF-8 cannot hold."""
    try:
        return _encoder.encode(message)
    except UnicodeEncodeError:
        raise WireError("the text holds half of a surrogate pair") from None


def decode_request(body: bytes) -> FanoutRequest:
    """Raises WireError where ``body`` is not a request of contract v2."""
    request = _decode(_request_decoder, body)
    seen: set[str] = set()
    for position, call in enumerate(request.calls):
        if call.id in seen:
            raise WireError("two calls have the same id", f"calls[{position}].id")
        seen.add(call.id)
        _check_call(call, f"calls[{position}]")
        if call.cache is not UNSET and request.workspace is UNSET:
            raise WireError("the cache is used for a workspace", "workspace")
    return request


def _check_call(call: CallRequest, path: str) -> None:
    """The rules that hold between fields, which their types cannot say."""
    hedge = call.hedge
    if hedge is not UNSET and (hedge.provider is UNSET) is not (hedge.model is UNSET):
        missing = "provider" if hedge.provider is UNSET else "model"
        raise WireError("a target has both", f"{path}.hedge.{missing}")
    if call.params is not UNSET and _holds_null_character(call.params.response_format):
        raise WireError("the text holds U+0000", f"{path}.params.response_format")
    for at, message in enumerate(call.messages):
        if isinstance(message.content, str):
            continue
        for position, part in enumerate(message.content):
            if isinstance(part, ImagePart):
                _check_image(part, f"{path}.messages[{at}].content[{position}]")


def _holds_null_character(value: object) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(map(_holds_null_character, (*value.keys(), *value.values())))
    return isinstance(value, list) and any(map(_holds_null_character, value))


def _check_image(image: ImagePart, path: str) -> None:
    for name in ("media_type", "data"):
        if (getattr(image, name) is UNSET) is (image.url is UNSET):
            raise WireError("an image has an address, or a media type and data", f"{path}.{name}")


def check_request(request: FanoutRequest) -> None:
    """Raise WireError where a request made in Python is one the service would refuse."""
    decode_request(encode(request))


def decode_line(line: bytes) -> Batch:
    """Raises WireError where ``line`` is not a line of contract v2."""
    return _decode(_line_decoder, line)


def decode_refusal(body: bytes) -> RefusalBody:
    return _decode(_refusal_decoder, body).error


def _decode(decoder: "msgspec.json.Decoder[T]", data: bytes) -> T:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise _from_validation(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not JSON: {type(error).__name__}") from None


def _from_validation(text: str) -> WireError:
    """msgspec says "reason - at `$.path`"; the reason names a missing or unknown field."""
    reason, _, path = text.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    named = re.search(r"field `([^`]+)`", reason)
    if named:
        path = f"{path}.{named[1]}" if path else named[1]
    return WireError(reason, path or None)
