"""Numbers and states as readers see them, for server-rendered pages.

The live page says the same in static/rex/js/{format,words}.js. Both sides are held to
tests/frontend/words.json, so a page reloaded reads like the page that watched.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django import template
from django.utils.safestring import SafeString, mark_safe

from orchestration.markdown import render_markdown

register = template.Library()

Snapshot = Mapping[str, Any]
"""The snapshot of a run (docs/events.md)."""

ANSWERED = {"cached", "done"}
ENDED_CALL = ANSWERED | {"failed", "timeout", "cancelled", "skipped"}
ENDED_RUN = {"done", "degraded", "failed", "cancelled"}


@register.filter
def money(micro_usd: int | None) -> str:
    """Micro-dollars. Unknown is a dash, never a guess; below a cent nothing is rounded away."""
    if micro_usd is None:
        return "—"
    if micro_usd == 0:
        return "$0"
    if micro_usd >= 1_000_000:
        return f"${(micro_usd + 5_000) // 10_000 / 100:.2f}"
    if micro_usd >= 10_000:
        return f"${(micro_usd + 50) // 100 / 10_000:.4f}"
    return "$0." + f"{micro_usd:06d}".rstrip("0").ljust(4, "0")


@register.filter
def duration(ms: float | None) -> str:
    """Milliseconds: "0.61 s", "6.1 s", "14.2 s", "2 min 05 s", "1 h 02 min"."""
    if ms is None:
        return "—"
    if ms < 1_000:
        return f"{int(ms // 10) / 100:.2f} s"
    if ms < 100_000:
        return f"{int(ms // 100) / 10:.1f} s"
    seconds = int(ms // 1_000)
    if seconds < 3_600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3_600} h {seconds % 3_600 // 60:02d} min"


@register.filter
def age(seconds: int) -> str:
    """How old something is, in its largest unit: "12 s old", "3 h old", "2 days old"."""
    if seconds < 1:
        return "just now"
    if seconds < 60:
        return f"{seconds} s old"
    if seconds < 3_600:
        return f"{seconds // 60} min old"
    if seconds < 48 * 3_600:
        return f"{seconds // 3_600} h old"
    return f"{seconds // 86_400} days old"


@register.filter
def count(value: int | None) -> str:
    return "—" if value is None else f"{value:,}"


@register.filter
def speed(tokens_per_s: float | None) -> str:
    """Tokens per second: one decimal below ten."""
    if tokens_per_s is None:
        return "—"
    text = f"{int(tokens_per_s * 10) / 10:.1f}" if tokens_per_s < 10 else str(int(tokens_per_s))
    return f"{text} tok/s"


@register.filter
def labels(names: Sequence[str]) -> str:
    """["A", "B", "C"] → "A, B and C"."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


@register.filter
def tokens(call: Mapping[str, Any]) -> str:
    if not call.get("input_tokens") and not call.get("output_tokens"):
        return "—"
    estimated = "~" if call.get("usage_estimated") else ""
    return f"{estimated}{count(call.get('input_tokens'))} → {count(call['output_tokens'])}"


@register.filter
def total_tokens(totals: Mapping[str, Any]) -> str:
    return count((totals.get("input_tokens") or 0) + (totals.get("output_tokens") or 0) or None)


@register.filter
def markdown(text: str | None) -> SafeString:
    return mark_safe(render_markdown(text or ""))  # noqa: S308 - parsed strictly and cleaned


@register.filter
def blocks_markdown(blocks: Sequence[Mapping[str, Any]]) -> SafeString:
    """The blocks of one version as one text: what the API calls the answer."""
    return markdown("\n\n".join(block["md"] for block in blocks))


@register.filter
def moment(iso: str) -> datetime:
    """A snapshot's time as a datetime, for the date filter."""
    return datetime.fromisoformat(iso)


@register.filter
def answered(snapshot: Snapshot) -> str:
    calls = snapshot["calls"]
    return f"{sum(call['state'] in ANSWERED for call in calls)} of {len(calls)}"


@register.filter
def ended(snapshot: Snapshot) -> bool:
    return snapshot["status"] in ENDED_RUN


@register.filter
def call_ended(call: Mapping[str, Any]) -> bool:
    return call["state"] in ENDED_CALL


@register.filter
def hue(label: str, snapshot: Snapshot) -> int:
    """Which of the eight label colours an answer has: its place among the answers."""
    order = [call["label"] for call in snapshot["calls"]]
    return order.index(label) % 8 if label in order else 0


@register.filter
def run_mark(status: str) -> str:
    """The icon of a run's status."""
    return "streaming" if status == "running" else status


_RUN_WORDS = {"running": "answering", "cancelled": "stopped"}


@register.filter
def run_word(status: str) -> str:
    return _RUN_WORDS.get(status, status)


@register.filter
def call_words(call: Mapping[str, Any]) -> str:
    match call["state"]:
        case "waiting":
            return "thinking"
        case "streaming":
            return "answering"
        case "retrying":
            return f"retrying, attempt {call['attempt']}"
        case "cached":
            return f"cached, {age(call['cached_age_s'] or 0)}"
        case "done":
            return f"done in {duration(call['duration_ms'])}"
        case "timeout":
            return "timed out"
        case "cancelled":
            return "not needed" if call["reason"] == "stop.superseded" else "stopped"
        case state:
            return str(state)


@register.filter
def call_note(call: Mapping[str, Any]) -> str:
    """What a reader should know of how an answer ended, or ""."""
    if call["state"] not in ENDED_CALL:
        return ""
    if call["state"] not in ANSWERED:
        return str(call["message"])
    return (
        "It reached its length limit and ends there." if call["finish_reason"] == "length" else ""
    )


_VERSION_KINDS = {"draft": "Draft", "patch": "Patch", "rewrite": "Rewrite"}
_VERSION_STATES = {"running": "being written", "rejected": "did not apply", "failed": "failed"}


@register.filter
def version_words(version: Mapping[str, Any]) -> str:
    kind = _VERSION_KINDS.get(version["kind"], version["kind"])
    parts = [f"{kind} from {labels(version['sources'])}"]
    if version["late"]:
        parts.append("late")
    if version["state"] in _VERSION_STATES:
        parts.append(_VERSION_STATES[version["state"]])
    elif version["duration_ms"] is not None:
        parts.append(duration(version["duration_ms"]))
    return ", ".join(parts)


SYNTHESIS_MARKS = {
    "waiting": ("waiting", "waiting"),
    "drafting": ("streaming", "drafting"),
    "draft": ("streaming", "provisional"),
    "revising": ("retrying", "revising"),
    "final": ("done", "final"),
    "amended": ("done", "amended"),
    "single": ("done", "one answer"),
    "failed": ("failed", "failed"),
    "none": ("skipped", "none"),
}


@register.filter
def synthesis_mark(state: str) -> str:
    """The icon of the synthesis' state."""
    return SYNTHESIS_MARKS.get(state, ("queued", ""))[0]


@register.filter
def synthesis_word(state: str) -> str:
    return SYNTHESIS_MARKS.get(state, ("queued", ""))[1]


@register.filter
def pace_sentence(snapshot: Snapshot) -> str:
    """When the synthesis began to be read, against the first complete answer, or the last."""
    first, final = snapshot["totals"]["ttfs_ms"], snapshot["totals"]["ttf_ms"]
    if first is None:
        return ""
    ends = [
        call["started_ms"] + call["duration_ms"]
        for call in snapshot["calls"]
        if call["state"] in ANSWERED
    ]
    which, ended_ms = "first", min(ends, default=0)
    if ended_ms <= first:
        which, ended_ms = "last", max(ends, default=0)
    lead = ended_ms - first
    ahead = f", {duration(lead)} before the {which} answer was complete" if lead > 0 else ""
    end = f" Final after {duration(final)}." if final is not None else ""
    return f"First text of the synthesis after {duration(first)}{ahead}.{end}"


def _sources(synthesis: Mapping[str, Any]) -> list[str]:
    for version in synthesis["versions"]:
        if version["version"] == synthesis["version"]:
            return list(version["sources"])
    return list(dict.fromkeys(s for block in synthesis["blocks"] for s in block["sources"]))


def _writing(synthesis: Mapping[str, Any]) -> list[str]:
    for version in synthesis["versions"]:
        if version["state"] == "running":
            return list(version["sources"])
    return []


@register.filter
def synthesis_sentence(snapshot: Snapshot) -> str:
    """Where the synthesis stands and what it is built on, as one sentence."""
    synthesis, calls = snapshot["synthesis"], snapshot["calls"]
    built = labels(_sources(synthesis))
    progress = f"{answered(snapshot)} answers complete"
    alone = len(calls) == 1
    if snapshot["status"] == "cancelled":
        if synthesis["state"] == "single":
            return "Stopped. This is one answer, word for word."
        if built:
            return f"Stopped. This is what was written so far, built on {built}."
        return "Stopped before anything was written."
    match synthesis["state"]:
        case "waiting" if alone:
            return "One model was asked. Its answer appears below as it comes."
        case "waiting":
            return "A first draft begins as soon as two answers have something to say."
        case "drafting":
            writing = labels(_writing(synthesis))
            if all(call["state"] in ENDED_CALL for call in calls):
                return f"Writing a draft from {writing}."
            return f"Writing a first draft from {writing} while models still answer."
        case "draft":
            return f"Provisional, built on {built}. {progress}."
        case "revising":
            known = set(_sources(synthesis))
            added = [label for label in _writing(synthesis) if label not in known]
            if added:
                return f"Provisional, adding what {labels(added)} says. {progress}."
            return f"Provisional, being revised. {progress}."
        case "final" if snapshot["degraded"]:
            return f"Final but degraded, built on {built} only."
        case "final":
            return f"Final, built on {built}."
        case "amended":
            return f"Final, amended after a late answer, built on {built}."
        case "single" if alone:
            return "One model was asked. This is its answer, word for word."
        case "single" if sum(call["state"] in ANSWERED for call in calls) > 1:
            return "Degraded: nothing could be written. This is one answer, word for word."
        case "single":
            return "Degraded: only one model answered. This is its answer, word for word."
        case "failed":
            return "No answer could be written."
        case _:
            return "There is no synthesis for this run." if ended(snapshot) else ""
