"""The run as a terminal shows it: a fold over the events of the API. Pure.

Events may come twice (after a reconnect) and text may overlap what is there; folding them gives the
same view as without. Offsets count code points, which is what ``len`` counts here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Event = Mapping[str, Any]


class MissingText(Exception):
    """Text begins after what is there: the reader must ask again with what it has."""


@dataclass(frozen=True, slots=True)
class Text:
    """One stream so far. ``rev`` grows when the server begins it anew."""

    rev: int = 0
    text: str = ""

    def extended(self, rev: int, offset: int, text: str) -> "Text":
        if rev < self.rev:
            return self
        known = self.text if rev == self.rev else ""
        if offset > len(known):
            raise MissingText
        return Text(rev, known + text[len(known) - offset :])


@dataclass(frozen=True, slots=True)
class CallView:
    """One model's line. Numbers are None until the log names them."""

    label: str
    model: str
    state: str = "queued"
    attempt: int = 1
    reason: str = ""
    message: str = ""
    first_token_ms: int | None = None
    tokens_per_s: float | None = None
    output_tokens: int | None = None
    cost_micro_usd: int | None = None
    cached_age_s: int | None = None
    stream: Text = Text()


@dataclass(frozen=True, slots=True)
class SynthesisView:
    """The synthesis line: ``stream`` is what is being written, ``text`` the last whole version."""

    version: int = 0
    state: str = "waiting"
    kind: str = ""
    sources: tuple[str, ...] = ()
    stream: Text = Text()
    text: str = ""


@dataclass(frozen=True, slots=True)
class RunView:
    """The whole run. ``seq`` is the last fact folded in."""

    seq: int = 0
    status: str = "queued"
    reason: str = ""
    at_ms: int = 0
    cost_micro_usd: int | None = None
    calls: Mapping[str, CallView] = field(default_factory=dict)
    synthesis: SynthesisView = SynthesisView()

    @property
    def ended(self) -> bool:
        return self.status not in ("queued", "running")

    @property
    def have(self) -> dict[str, tuple[int, int]]:
        """What a reconnect must not send again: stream → (rev, offset)."""
        streams = {label: call.stream for label, call in self.calls.items()}
        if self.synthesis.version:
            streams[f"v{self.synthesis.version}"] = self.synthesis.stream
        return {name: (stream.rev, len(stream.text)) for name, stream in streams.items()}


def is_new(view: RunView, event: Event) -> bool:
    """Whether a fact was not folded in yet. Text on its way is judged by its offset instead."""
    return is_text(event) or event["type"] == "overlap.updated" or event["seq"] > view.seq


def is_text(event: Event) -> bool:
    return event["type"] in ("call.chunk", "synthesis.delta")


def apply(view: RunView, event: Event) -> RunView:
    """The view after the event. Unknown types change nothing but the sequence number."""
    if not is_new(view, event):
        return view
    kind = event["type"]
    if kind == "call.chunk":
        return _with_call(view, event, stream=_extended(view.calls[event["call"]].stream, event))
    if kind == "synthesis.delta":
        return _synthesis_text(view, event)
    if kind == "overlap.updated":
        return view
    if kind.startswith("call."):
        view = _call_fact(view, event)
    elif kind.startswith("synthesis."):
        view = replace(view, synthesis=_synthesis_fact(view.synthesis, event))
    elif kind.startswith("run."):
        view = _run_fact(view, event)
    return replace(view, seq=event["seq"], at_ms=event["at_ms"])


def _run_fact(view: RunView, event: Event) -> RunView:
    if event["type"] == "run.started":
        pairs = zip(event["labels"], event["models"], strict=True)
        return replace(
            view, status="running", calls={label: CallView(label, model) for label, model in pairs}
        )
    if event["type"] == "run.finished":
        return replace(
            view,
            status=event["status"],
            reason=event.get("reason") or "",
            cost_micro_usd=event.get("cost_micro_usd"),
        )
    return view


def _call_fact(view: RunView, event: Event) -> RunView:
    kind, label = event["type"], event.get("call")
    if label not in view.calls:
        return view
    if kind == "call.started":
        state = "retrying" if event["attempt"] > 1 else "waiting"
        stream = view.calls[event["call"]].stream
        if event.get("rev", 0) > stream.rev:
            stream = Text(event["rev"])
        return _with_call(view, event, state=state, attempt=event["attempt"], stream=stream)
    if kind == "call.attempt_failed":
        if event["wait_ms"] is None:
            return view
        return _with_call(view, event, state="retrying", attempt=event["attempt"] + 1)
    if kind == "call.first_token":
        return _with_call(view, event, state="streaming", first_token_ms=event["first_token_ms"])
    numbers = {
        name: event[name]
        for name in (
            "first_token_ms", "tokens_per_s", "output_tokens", "cost_micro_usd", "cached_age_s",
            "attempt",
        )
        if event.get(name) is not None
    }  # fmt: skip
    if kind == "call.finished":
        state = "cached" if event.get("cached") else "done"
        return _with_call(view, event, state=state, **numbers)
    if kind == "call.failed":
        words = {"state": event["state"], "reason": event["kind"], "message": event["message"]}
        return _with_call(view, event, **words, **numbers)
    return view


def _with_call(view: RunView, event: Event, **changes: Any) -> RunView:
    label = event["call"]
    return replace(view, calls={**view.calls, label: replace(view.calls[label], **changes)})


def _extended(stream: Text, event: Event) -> Text:
    return stream.extended(event["rev"], event["offset"], event["text"])


def _synthesis_text(view: RunView, event: Event) -> RunView:
    if event["version"] != view.synthesis.version:
        return view
    stream = _extended(view.synthesis.stream, event)
    return replace(view, synthesis=replace(view.synthesis, stream=stream))


def _synthesis_fact(synthesis: SynthesisView, event: Event) -> SynthesisView:
    match event["type"]:
        case "synthesis.started":
            return replace(
                synthesis,
                version=event["version"],
                state="writing" if event["kind"] != "patch" else "revising",
                kind=event["kind"],
                sources=tuple(event["sources"]),
                stream=Text(),
            )
        case "synthesis.revised":
            text = "\n\n".join(block["md"] for block in event["blocks"])
            return replace(synthesis, state="draft", text=text, sources=tuple(event["sources"]))
        case "synthesis.failed":
            return replace(synthesis, state="draft" if synthesis.text else "waiting")
        case "synthesis.final":
            return replace(synthesis, state="final" if event["mode"] != "single" else "single")
    return synthesis
