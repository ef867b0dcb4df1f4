"""What the stream of a provider says, read event by event: text, its end, its usage, its errors.

LiteLLM is not asked about the end: it reports a stream that was cut as finished. So each wire
format is read here for what decides an answer, and LiteLLM is handed events known to be sound.
"""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final

from orchestration.domain.errors import ErrorKind
from orchestration.fanout.call_sink import NOT_COUNTED, CallFault, Counted, valid_text
from orchestration.fanout.sse import SseEvent
from orchestration.fanout.upstream_errors import event_kind
from orchestration.fanout.wire import FinishReason

_MOST_TOKENS: Final = 1_000_000_000  # more is nonsense

_FINISH: Final[dict[str, FinishReason]] = {
    "length": "length",
    "max_tokens": "length",
    "MAX_TOKENS": "length",
    "model_context_window_exceeded": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "MALFORMED_FUNCTION_CALL": "tool_calls",
    "UNEXPECTED_TOOL_CALL": "tool_calls",
    "TOO_MANY_TOOL_CALLS": "tool_calls",
}
_FILTERED: Final = frozenset(
    {"content_filter", "refusal", "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"}
)


@dataclass(slots=True)
class Seen:
    """What one event held. ``forward`` is the event for LiteLLM, None when it has no use for it;
    ``thought`` is reasoning, which LiteLLM is not asked for."""

    forward: bytes | None = None
    generated: bool = False
    thought: str = ""


class UpstreamWire(ABC):
    """Folds the events of one answer. After the finish reason only the usage still counts."""

    def __init__(self) -> None:
        self.finish_reason: FinishReason | None = None
        self.filtered = False
        self.closed = False  # the provider says that nothing more comes
        self.counted: Counted = NOT_COUNTED

    @property
    def finished(self) -> bool:
        return self.finish_reason is not None

    def read(self, event: SseEvent) -> Seen:
        """Fold one event. Raises CallFault for an error, and for what is no JSON object."""
        text = event.data.decode("utf-8", "replace")
        if text.strip() == "[DONE]":
            self.closed = True
            return Seen()
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            if self.finished:
                return Seen()  # the answer is whole; what follows can only add a usage
            raise CallFault(ErrorKind.BAD_UPSTREAM_RESPONSE, "an event that is no JSON object")
        error = data if data.get("object") == "error" else data.get("error")
        if error is not None and not self.finished:
            raise CallFault(event_kind(error), "an error inside the stream")
        return self._fold(data)

    @abstractmethod
    def _fold(self, data: dict[str, Any]) -> Seen: ...

    @abstractmethod
    def events_of(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """An answer in one piece as the events of a stream that says the same."""

    def unstreamed(self, url: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """A request for a stream as one for an answer in one piece. LiteLLM is always asked to
        stream, so that there is one way through it."""
        return url, {k: v for k, v in body.items() if k not in ("stream", "stream_options")}

    def last(self) -> bytes:
        """What to hand LiteLLM when the stream is over."""
        return b""

    def _finish(self, reason: str) -> None:
        self.finish_reason = _FINISH.get(reason, "stop")
        self.filtered = reason in _FILTERED


class OpenAIWire(UpstreamWire):
    """Chat completion chunks. LiteLLM gets each as one plain chunk of repaired text."""

    def __init__(self) -> None:
        super().__init__()
        self._repair = SurrogateRepair()
        self._thoughts = SurrogateRepair()

    def _fold(self, data: dict[str, Any]) -> Seen:
        usage = data.get("usage")
        if isinstance(usage, dict):
            self.counted = Counted(
                _count(usage.get("prompt_tokens")),
                _count(usage.get("completion_tokens")),
                _count(_inside(usage, "prompt_tokens_details", "cached_tokens")) or 0,
                _count(_inside(usage, "completion_tokens_details", "reasoning_tokens")) or 0,
            )
        if self.finished:
            return Seen()
        text, thought, generated, reason = self._choices(data.get("choices"))
        text, thought = self._repair.add(text), self._thoughts.add(thought)
        if reason:
            self._finish(reason)
            text += self._repair.rest()
            thought += self._thoughts.rest()
        return Seen(self._plain(text, reason) if text or reason else None, generated, thought)

    def events_of(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        choices = body.get("choices")
        said = [
            {**choice, "delta": choice.get("message")}
            for choice in (choices if isinstance(choices, list) else ())
            if isinstance(choice, dict)
        ]
        return [{**body, "choices": said}]

    @staticmethod
    def _choices(choices: object) -> tuple[str, str, bool, str]:
        """(text, reasoning, whether the model produced anything, finish reason)."""
        text, thought, generated, finish = "", "", False, ""
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            if isinstance(reason := choice.get("finish_reason"), str):
                finish = reason
            delta = choice.get("delta")
            if not isinstance(delta, dict):
                continue
            if isinstance(content := delta.get("content"), str):
                text = content
            for name in ("reasoning_content", "reasoning"):
                if not thought and isinstance(reasoning := delta.get(name), str):
                    thought = reasoning
            generated = generated or bool(text or thought)
            generated = generated or bool(delta.get("refusal")) or bool(delta.get("tool_calls"))
        return text, thought, generated, finish

    @staticmethod
    def _plain(text: str, reason: str) -> bytes:
        choice = {"index": 0, "delta": {"role": "assistant", "content": text}}
        choice["finish_reason"] = "stop" if reason else None
        chunk = {"id": "-", "object": "chat.completion.chunk", "created": 0, "model": "-"}
        return _event({**chunk, "choices": [choice]})

    def last(self) -> bytes:
        return b"data: [DONE]\n\n"


class AnthropicWire(UpstreamWire):
    """Messages API events; ``message_delta`` has the stop reason, ``message_stop`` is the end."""

    def __init__(self) -> None:
        super().__init__()
        self._input: int | None = None
        self._cached = 0

    def _fold(self, data: dict[str, Any]) -> Seen:
        kind = data.get("type")
        generated, thought = False, ""
        if kind == "message_start":
            self._count_input(_inside(data, "message", "usage"))
            # Its count of the output is none yet; this one holds for an answer that breaks off.
            self.counted = Counted(self._input, None, self._cached)
        elif kind == "content_block_delta":
            generated = True
            if isinstance(said := _inside(data, "delta", "thinking"), str):
                thought = valid_text(said)
        elif kind == "message_delta":
            usage = data.get("usage")
            if isinstance(usage, dict):
                if "input_tokens" in usage:
                    self._count_input(usage)
                written = _count(usage.get("output_tokens"))
                self.counted = Counted(self._input, written, self._cached)
            if isinstance(reason := _inside(data, "delta", "stop_reason"), str):
                self._finish(reason)
        elif kind == "message_stop":
            self.closed = True
        return Seen(_event(data, str(kind)), generated, thought)

    def events_of(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        blocks = body.get("content")
        start = {"type": "message_start", "message": body | {"content": []}}
        events: list[dict[str, Any]] = [start]
        for index, block in enumerate(blocks if isinstance(blocks, list) else ()):
            if not isinstance(block, dict):
                continue
            name = {"text": "text", "thinking": "thinking"}.get(str(block.get("type")))
            if name is None:
                continue
            empty = {"type": name, name: ""}
            delta = {"type": f"{name}_delta", name: block.get(name)}
            events += [
                {"type": "content_block_start", "index": index, "content_block": empty},
                {"type": "content_block_delta", "index": index, "delta": delta},
                {"type": "content_block_stop", "index": index},
            ]
        usage = body.get("usage")
        end: dict[str, Any] = {"type": "message_delta", "usage": usage if usage else {}}
        end["delta"] = {"stop_reason": body.get("stop_reason"), "stop_sequence": None}
        return [*events, end, {"type": "message_stop"}]

    def _count_input(self, usage: object) -> None:
        """Their input_tokens leave out what was read from or written to the prompt cache."""
        if not isinstance(usage, dict):
            return
        fresh = _count(usage.get("input_tokens"))
        self._cached = _count(usage.get("cache_read_input_tokens")) or 0
        written = _count(usage.get("cache_creation_input_tokens")) or 0
        self._input = None if fresh is None else fresh + self._cached + written


class GeminiWire(UpstreamWire):
    """``streamGenerateContent`` chunks; the one with a finish reason is the last with text.

    That reason is STOP also of an answer that called a tool: the call itself says so.
    """

    def __init__(self) -> None:
        super().__init__()
        self._called = False

    def _fold(self, data: dict[str, Any]) -> Seen:
        usage = data.get("usageMetadata")
        if isinstance(usage, dict):
            thoughts = _count(usage.get("thoughtsTokenCount")) or 0
            written = _count(usage.get("candidatesTokenCount"))
            self.counted = Counted(
                _count(usage.get("promptTokenCount")),
                None if written is None else written + thoughts,
                _count(usage.get("cachedContentTokenCount")) or 0,
                thoughts,
            )
        if _inside(data, "promptFeedback", "blockReason"):
            self._finish("SAFETY")
        candidates = data.get("candidates")
        candidate = candidates[0] if isinstance(candidates, list) and candidates else None
        if not isinstance(candidate, dict):
            return Seen()
        parts = _inside(candidate, "content", "parts")
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict) and isinstance(part.get("functionCall"), dict):
                self._called = True
        if isinstance(reason := candidate.get("finishReason"), str):
            self._finish(reason)
            if self._called and self.finish_reason == "stop":
                self.finish_reason = "tool_calls"
        thought = "".join(
            part["text"]
            for part in (parts if isinstance(parts, list) else ())
            if isinstance(part, dict) and part.get("thought") and isinstance(part.get("text"), str)
        )
        return Seen(_event(data), bool(parts), valid_text(thought))

    def events_of(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        return [body]

    def unstreamed(self, url: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        plain = url.replace(":streamGenerateContent", ":generateContent")
        return plain.replace("?alt=sse", "").replace("&alt=sse", ""), body


WIRES: Final[dict[str, type[UpstreamWire]]] = {"anthropic": AnthropicWire, "gemini": GeminiWire}
"""By LiteLLM prefix; every other provider speaks OpenAI's format."""


class SurrogateRepair:
    """Heals a surrogate pair that was cut in two between pieces of text; lone ones stay lone."""

    def __init__(self) -> None:
        self._high = ""

    def add(self, piece: str) -> str:
        piece = self._high + piece
        self._high = ""
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            self._high, piece = piece[-1], piece[:-1]
        if any("\ud800" <= c <= "\udfff" for c in piece):
            piece = piece.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return piece.replace("\x00", "�")

    def rest(self) -> str:
        high, self._high = self._high, ""
        return "�" if high else ""


def _event(data: dict[str, Any], name: str = "") -> bytes:
    # ASCII only: some readers of lines take U+2028 and its like for a line end.
    body = json.dumps(data, separators=(",", ":")).encode()
    return b"event: %b\ndata: %b\n\n" % (name.encode(), body) if name else b"data: %b\n\n" % body


def _inside(data: dict[str, Any], outer: str, inner: str) -> Any:
    found = data.get(outer)
    return found.get(inner) if isinstance(found, dict) else None


def _count(value: object) -> int | None:
    """A token count; None where there is none, or one that cannot be."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= _MOST_TOKENS else None
