"""The terminal's fold: the log in any delivery gives one view, and model text stays text."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from launcher.ask.outcome import age, exit_code, exit_code_of_problem, money, summary
from launcher.ask.panel import plain_line, rendered, safe
from launcher.ask.view import Event, MissingText, RunView, apply

ROOT = Path(__file__).resolve().parents[2]

LOG: list[Event] = [
    {"seq": 1, "type": "run.started", "at_ms": 0, "labels": ["A", "B"], "models": ["m/a", "m/b"]},
    {"seq": 2, "type": "call.started", "at_ms": 1, "call": "A", "attempt": 1},
    {"seq": 3, "type": "call.started", "at_ms": 1, "call": "B", "attempt": 1},
    {"seq": 4, "type": "call.first_token", "at_ms": 400, "call": "A", "first_token_ms": 399},
    {"seq": 4, "type": "call.chunk", "call": "A", "rev": 0, "offset": 0, "text": "Blue 🌍 "},
    {
        "seq": 5,
        "type": "synthesis.started",
        "at_ms": 500,
        "version": 1,
        "kind": "draft",
        "sources": ["A"],
    },
    {"seq": 5, "type": "call.chunk", "call": "A", "rev": 0, "offset": 7, "text": "light."},
    {"seq": 5, "type": "synthesis.delta", "version": 1, "rev": 0, "offset": 0, "text": "It is"},
    {
        "seq": 6,
        "type": "call.finished",
        "at_ms": 900,
        "call": "A",
        "first_token_ms": 399,
        "tokens_per_s": 12.5,
        "output_tokens": 5,
        "cost_micro_usd": 3100,
    },
    {
        "seq": 7,
        "type": "call.failed",
        "at_ms": 950,
        "call": "B",
        "state": "timeout",
        "kind": "timeout.first_token",
        "message": "The model did not begin in time.",
    },
    {
        "seq": 8,
        "type": "synthesis.revised",
        "at_ms": 990,
        "version": 1,
        "kind": "draft",
        "sources": ["A"],
        "blocks": [{"md": "It is blue."}, {"md": "Why?"}],
    },
    {"seq": 9, "type": "synthesis.final", "at_ms": 991, "version": 1, "mode": "promote"},
    {
        "seq": 10,
        "type": "run.finished",
        "at_ms": 1000,
        "status": "degraded",
        "reason": "deadline",
        "cost_micro_usd": 3100,
    },
]


def _folded(events: list[Event], view: RunView | None = None) -> RunView:
    view = view or RunView()
    for event in events:
        view = apply(view, event)
    return view


def test_the_log_folds_to_what_happened() -> None:
    view = _folded(LOG)
    first, second = view.calls.values()
    assert (first.state, first.stream.text, first.output_tokens) == ("done", "Blue 🌍 light.", 5)
    assert (second.state, second.reason) == ("timeout", "timeout.first_token")
    assert view.synthesis.text == "It is blue.\n\nWhy?"
    assert (view.status, view.seq, view.ended) == ("degraded", 10, True)


@pytest.mark.parametrize("cut", range(1, len(LOG)))
def test_events_that_come_twice_count_once(cut: int) -> None:
    assert _folded(LOG[: cut + 1] + LOG[max(1, cut - 3) :]) == _folded(LOG)


def test_what_is_there_is_counted_in_code_points() -> None:
    assert _folded(LOG[:5]).have == {"A": (0, 7), "B": (0, 0)}
    assert _folded(LOG[:8]).have["v1"] == (0, 5)


def test_text_that_overlaps_is_joined_where_it_belongs() -> None:
    again = {
        "seq": 5,
        "type": "call.chunk",
        "call": "A",
        "rev": 0,
        "offset": 5,
        "text": "🌍 light.",
    }
    assert _folded([*LOG[:5], again]).calls["A"].stream.text == "Blue 🌍 light."


def test_a_gap_is_never_closed_in_silence() -> None:
    later = {"seq": 5, "type": "call.chunk", "call": "A", "rev": 0, "offset": 9, "text": "t."}
    with pytest.raises(MissingText):
        _folded([*LOG[:5], later])


def test_a_stream_begun_anew_replaces_the_old_text() -> None:
    anew = {"seq": 5, "type": "call.chunk", "call": "A", "rev": 1, "offset": 0, "text": "Red"}
    late = {"seq": 5, "type": "call.chunk", "call": "A", "rev": 0, "offset": 7, "text": "light."}
    assert _folded([*LOG[:5], anew, late]).calls["A"].stream.text == "Red"


def test_a_type_of_a_later_version_changes_nothing_but_the_place() -> None:
    view = _folded(LOG[:4])
    unknown = {"seq": 5, "type": "call.admired", "at_ms": 401, "call": "A"}
    assert apply(view, unknown).calls == view.calls
    assert apply(view, unknown).seq == 5


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        ("done", "", 0),
        ("degraded", "deadline", 3),
        ("failed", "internal", 1),
        ("failed", "quota.runs", 4),
        ("failed", "budget.run", 4),
        ("failed", "deadline", 5),
        ("failed", "timeout.first_token", 5),
        ("cancelled", "stop.user", 130),
    ],
)
def test_each_end_has_its_exit_code(status: str, reason: str, code: int) -> None:
    assert exit_code(status, reason) == code


@pytest.mark.parametrize(
    ("status", "code", "exits"),
    [
        (400, "unknown_model", 2),
        (413, "prompt_too_long", 2),
        (401, "not_authenticated", 1),
        (429, "quota.runs", 4),
        (500, "internal", 1),
    ],
)
def test_a_refused_question_has_its_exit_code(status: int, code: str, exits: int) -> None:
    assert exit_code_of_problem(status, code) == exits


def test_what_a_model_writes_cannot_steer_the_terminal() -> None:
    hostile = "a\x1b[2J\x1b]0;title\x07b\rc\u202ed\x9b31m\ne\tf"
    assert safe(hostile) == "a[2J]0;titlebcd31m\ne\tf"


def test_the_panel_shows_each_model_and_the_growing_synthesis() -> None:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    hostile = {
        "seq": 5,
        "type": "call.chunk",
        "call": "A",
        "rev": 0,
        "offset": 13,
        "text": " \x1b[31m[bold]x[/bold]",
    }
    console.print(rendered(_folded([*LOG[:8], hostile]), 120))
    shown = console.export_text()
    assert "m/a" in shown
    assert "streaming" in shown
    assert "It is" in shown
    assert "[bold]x[/bold]" in shown
    assert "\x1b[31m" not in shown


def test_plain_lines_name_states_and_reasons_and_no_text() -> None:
    view, lines = RunView(), []
    for event in LOG:
        view = apply(view, event)
        lines.append(plain_line(view, event))
    said = "\n".join(lines)
    assert "A m/a: streaming after 0.40 s" in said
    assert "B m/b: timeout (timeout.first_token)" in said
    assert "light" not in said


@pytest.mark.parametrize(("count", "said"), [(1, "v1: 1 block"), (2, "v1: 2 blocks")])
def test_one_block_is_not_blocks(count: int, said: str) -> None:
    event = {"seq": 8, "type": "synthesis.revised", "at_ms": 990, "version": 1}
    line = plain_line(RunView(), {**event, "blocks": [{"md": "It is."}] * count})
    assert line.endswith(said)


@pytest.mark.parametrize(
    ("micro_usd", "shown"), [(None, "—"), (0, "$0"), (3100, "$0.0031"), (2_500_000, "$2.50")]
)
def test_money_is_never_scientific_and_never_guessed(micro_usd: int | None, shown: str) -> None:
    assert money(micro_usd) == shown


def test_the_last_line_says_how_it_ended_and_where_it_is() -> None:
    run = {
        "status": "done",
        "reason": None,
        "calls": [{"state": "done"}, {"state": "failed"}],
        "totals": {"duration_ms": 6100, "output_tokens": 512, "cost_micro_usd": None},
    }
    assert summary(run, "http://x/runs/1/") == (
        "done · 6.1 s · 1 of 2 answers · 512 tokens · — · http://x/runs/1/"
    )


def test_a_call_that_is_tried_again_says_so_and_drops_what_it_had_said() -> None:
    again: list[Event] = [
        {
            "seq": 3,
            "type": "call.attempt_failed",
            "at_ms": 2,
            "call": "A",
            "attempt": 1,
            "kind": "overloaded",
            "wait_ms": 250,
        },
        {"seq": 4, "type": "call.started", "at_ms": 3, "call": "A", "attempt": 2, "rev": 1},
    ]
    view = RunView()
    for event in (*LOG[:2], {**LOG[4], "seq": 2}):
        view = apply(view, event)
    view = apply(view, again[0])
    assert plain_line(view, again[0]).endswith("A m/a: attempt 1 failed (overloaded)")
    assert (view.calls["A"].state, view.calls["A"].attempt) == ("retrying", 2)
    view = apply(view, again[1])
    assert plain_line(view, again[1]).endswith("A m/a: retrying, attempt 2")
    assert (view.calls["A"].stream.rev, view.calls["A"].stream.text) == (1, "")


def test_a_cached_answer_says_how_old_it_is() -> None:
    end: Event = {
        "seq": 3,
        "type": "call.finished",
        "at_ms": 5,
        "call": "A",
        "cached": True,
        "cached_age_s": 12_600,
        "output_tokens": 7,
    }
    view = RunView()
    for event in (*LOG[:2], end):
        view = apply(view, event)
    assert plain_line(view, end).endswith("A m/a: cached (3 h old), 7 tokens")


def test_an_age_is_told_in_the_words_of_the_page() -> None:
    words = json.loads((ROOT / "tests/frontend/words.json").read_text(encoding="utf-8"))
    assert [age(seconds) for seconds, _ in words["age"]] == [said for _, said in words["age"]]
