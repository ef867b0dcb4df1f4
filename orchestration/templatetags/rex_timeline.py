"""Who worked when, as SVG: the server's half of static/rex/js/render-timeline.js.

Bars are placed by SVG presentation attributes in percent, so the picture fits any width and needs
no style attribute, which the content security policy forbids.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from orchestration.templatetags.rex_format import (
    ENDED_CALL,
    ENDED_RUN,
    call_words,
    duration,
    version_words,
)

register = template.Library()

STEPS_S = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
MAX_TICKS = 6
SHORTEST_PERCENT = 0.4


@dataclass(frozen=True, slots=True)
class Bar:
    """A span on the run's clock, in milliseconds."""

    kind: str
    start_ms: float
    end_ms: float


@dataclass(frozen=True, slots=True)
class Lane:
    name: str
    words: str
    bars: tuple[Bar, ...]


def lanes(snapshot: Mapping[str, Any], now_ms: float) -> tuple[tuple[Lane, ...], float]:
    """One lane per answer and one for the synthesis, and where the axis ends."""
    over = snapshot["status"] in ENDED_RUN
    end = snapshot["totals"].get("duration_ms") if over else None
    end = now_ms if end is None else end
    rows = [_call_lane(call, end) for call in snapshot["calls"]]
    versions = [v for v in snapshot["synthesis"]["versions"] if v["started_ms"] is not None]
    bars = tuple(
        Bar(
            "failed" if version["state"] == "failed" else version["kind"],
            version["started_ms"],
            end
            if version["state"] == "running" and not over
            else version["started_ms"] + (version["duration_ms"] or 0),
        )
        for version in versions
    )
    words = "; ".join(version_words(version) for version in versions) or "not begun"
    rows.append(Lane("Synthesis", words, bars))
    return tuple(rows), max([end, 1_000.0, *(bar.end_ms for row in rows for bar in row.bars)])


def _call_lane(call: Mapping[str, Any], end: float) -> Lane:
    start = call["started_ms"]
    if start is None:
        return Lane(call["label"], call_words(call), ())
    stop = start + (call["duration_ms"] or 0) if call["state"] in ENDED_CALL else end
    first = stop if call["first_token_ms"] is None else min(stop, start + call["first_token_ms"])
    words = f"{call_words(call)}, from {duration(start)} to {duration(stop)}"
    return Lane(call["label"], words, (Bar("wait", start, first), Bar(call["state"], first, stop)))


def ticks(end_ms: float) -> list[float]:
    """Round marks of the axis in milliseconds, at most MAX_TICKS of them after zero."""
    step = next((s for s in STEPS_S if end_ms / 1000 / s <= MAX_TICKS), STEPS_S[-1])
    return [n * step * 1000 for n in range(int(end_ms / 1000 / step) + 1)]


@register.simple_tag
def timeline_rows(snapshot: Mapping[str, Any]) -> list[dict[str, object]]:
    """The lanes with their bars as SVG, for partials/timeline.html."""
    rows, end_ms = lanes(snapshot, _now_ms(snapshot))
    models = {call["label"]: call["title"].rpartition("/")[2] for call in snapshot["calls"]}
    return [
        {
            "name": row.name,
            "model": models.get(row.name, ""),
            "words": row.words,
            "svg": _svg(row.bars, end_ms),
        }
        for row in rows
    ]


@register.simple_tag
def timeline_axis(snapshot: Mapping[str, Any]) -> SafeString:
    _, end_ms = lanes(snapshot, _now_ms(snapshot))
    return format_html_join(
        "",
        '<line x1="{0}" x2="{0}" y1="0" y2="5"></line>'
        '<text x="{0}" y="17" text-anchor="{1}">{2}</text>',
        (
            (
                _percent(at, end_ms),
                "start" if at == 0 else "end" if at / end_ms > 0.95 else "middle",
                "0" if at == 0 else f"{at / 1000:g} s",
            )
            for at in ticks(end_ms)
        ),
    )


def _now_ms(snapshot: Mapping[str, Any]) -> float:
    """The run's clock, which starts when the run is accepted, when the snapshot was taken."""
    created, now = (datetime.fromisoformat(snapshot[name]) for name in ("created_at", "now"))
    return max(0.0, (now - created).total_seconds() * 1000)


def _svg(bars: tuple[Bar, ...], end_ms: float) -> SafeString:
    return format_html_join(
        "",
        '<rect class="bar {}" x="{}" y="{}" width="{}%" height="{}" rx="3"></rect>',
        (
            (
                bar.kind,
                _percent(bar.start_ms, end_ms),
                "40%" if bar.kind == "wait" else "15%",
                f"{max(SHORTEST_PERCENT, (bar.end_ms - bar.start_ms) / end_ms * 100):.3f}",
                "20%" if bar.kind == "wait" else "70%",
            )
            for bar in bars
        ),
    )


def _percent(ms: float, end_ms: float) -> SafeString:
    return format_html("{}%", f"{ms / end_ms * 100:.3f}")
