"""Drawing a run on a terminal: a rich panel, plain lines, or nothing. Written to stderr."""

import re
import sys
from collections.abc import Callable
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text as RichText

from launcher.ask.outcome import age, money
from launcher.ask.view import CallView, Event, RunView, is_text

# What a model writes must not steer the terminal: escapes, carriage returns, bidirectional marks.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SYNTHESIS_LINES = 12
_MARKS = {
    "queued": "○",
    "waiting": "…",
    "streaming": "●",
    "retrying": "↻",
    "cached": "⚡",
    "done": "✔",
    "failed": "✘",
    "timeout": "✘",
    "cancelled": "■",
    "skipped": "–",
}
_STYLES = {
    "done": "green",
    "cached": "green",
    "failed": "red",
    "timeout": "red",
    "streaming": "cyan",
}


def safe(text: str) -> str:
    """Text that can be shown on a terminal: everything that is not text or a line end removed."""
    return _UNSAFE.sub("", text)


class Screen(Protocol):
    """Shows the run while it goes on. A context manager; ``update`` after every event."""

    def __enter__(self) -> "Screen": ...
    def __exit__(self, *_: object) -> None: ...
    def update(self, view: RunView, event: Event) -> None: ...
    def note(self, line: str) -> None: ...


def screen_for(display: str) -> Screen:
    screens: dict[str, Callable[[], Screen]] = {
        "rich": RichScreen,
        "plain": PlainScreen,
        "none": NoScreen,
    }
    return screens[display]()


class NoScreen:
    """Shows nothing."""

    def __enter__(self) -> "NoScreen":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, view: RunView, event: Event) -> None:
        return None

    def note(self, line: str) -> None:
        return None


class PlainScreen(NoScreen):
    """One line per fact that a person waits for; for logs and CI."""

    def update(self, view: RunView, event: Event) -> None:
        if line := plain_line(view, event):
            self.note(line)

    def note(self, line: str) -> None:
        print(safe(line), file=sys.stderr, flush=True)


class RichScreen(NoScreen):
    """A panel that is redrawn in place and leaves nothing behind."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._view = RunView()
        self._live = Live(
            get_renderable=lambda: rendered(self._view, self._console.width),
            console=self._console,
            refresh_per_second=8,
            transient=True,
        )

    def __enter__(self) -> "RichScreen":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def update(self, view: RunView, event: Event) -> None:
        self._view = view

    def note(self, line: str) -> None:
        self._console.print(RichText(safe(line), style="dim"))


def plain_line(view: RunView, event: Event) -> str:
    """The line of a fact, empty for those that say nothing new to a person."""
    if is_text(event):
        return ""
    at = f"{event.get('at_ms', view.at_ms) / 1000:6.1f} s  "
    match event["type"]:
        case "call.attempt_failed":
            call = view.calls.get(event["call"])
            words = f"attempt {event['attempt']} failed ({event['kind']})"
            return f"{at}{call.label} {call.model}: {words}" if call else ""
        case "call.started" | "call.first_token" | "call.finished" | "call.failed":
            call = view.calls.get(event["call"])
            return at + _call_words(call) if call else ""
        case "synthesis.started":
            sources = ",".join(event["sources"])
            return f"{at}synthesis v{event['version']}: {event['kind']} from {sources}"
        case "synthesis.revised":
            count = len(event["blocks"])
            return f"{at}synthesis v{event['version']}: {count} block{'s' if count != 1 else ''}"
        case "synthesis.failed":
            return f"{at}synthesis v{event['version']}: {event['error_kind']}"
        case "synthesis.final":
            return f"{at}synthesis final"
        case "run.stop_requested":
            return f"{at}stopping"
    return ""


def _call_words(call: CallView) -> str:
    words = f"{call.label} {call.model}: {_state_words(call)}"
    if call.state in ("done", "cached") and call.output_tokens is not None:
        words += f", {call.output_tokens} tokens"
    if call.state == "streaming" and call.first_token_ms is not None:
        words += f" after {call.first_token_ms / 1000:.2f} s"
    return words


def _state_words(call: CallView) -> str:
    if call.state == "retrying":
        return f"retrying, attempt {call.attempt}"
    if call.state == "cached" and call.cached_age_s is not None:
        return f"cached ({age(call.cached_age_s)})"
    return f"{call.state} ({call.reason})" if call.reason else call.state


def rendered(view: RunView, width: int) -> RenderableType:
    """The panel: a row per model, and the end of the synthesis as it grows."""
    table = Table(box=None, padding=(0, 1), expand=True, header_style="dim")
    table.add_column("", width=1)
    table.add_column("model", no_wrap=True, max_width=max(12, width // 4))
    table.add_column("state", no_wrap=True, max_width=26)
    for name in ("ttft", "tok/s", "out", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("last words", no_wrap=True, ratio=1, overflow="crop")
    room = max(8, width - 78)
    for call in view.calls.values():
        table.add_row(*_row(call, room))
    synthesis = view.synthesis
    shown = synthesis.text
    # A patch on its way is a list of edits, not prose.
    if synthesis.state == "writing" and synthesis.stream.text:
        shown = synthesis.stream.text
    sources = f" from {', '.join(synthesis.sources)}" if synthesis.sources else ""
    heading = RichText(f"\nSynthesis: {synthesis.state}{sources}", style="bold")
    lines = RichText(safe(shown)).wrap(Console(width=width, file=sys.stderr), width)
    body = RichText("\n").join(list(lines)[-_SYNTHESIS_LINES:])
    return Group(table, heading, body)


def _row(call: CallView, room: int) -> tuple[RenderableType, ...]:
    last_words = " ".join(safe(call.stream.text[-4 * room :]).split())[-room:]
    style = _STYLES.get(call.state, "")
    return (
        RichText(call.label, style="bold"),
        RichText(safe(call.model)),
        RichText(f"{_MARKS.get(call.state, ' ')} {_state_words(call)}", style=style),
        f"{call.first_token_ms / 1000:.2f}s" if call.first_token_ms is not None else "—",
        f"{call.tokens_per_s:.0f}" if call.tokens_per_s is not None else "—",
        str(call.output_tokens) if call.output_tokens is not None else "—",
        money(call.cost_micro_usd),
        RichText(last_words, style="dim"),
    )
