"""What holds in every run, whatever the models, the synthesizer and the user do."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.domain.policies import FOILS, PRESETS, Policy
from orchestration.domain.synthesis import (
    CallChunk,
    Finalised,
    RunFinished,
    State,
    StopRequested,
    SynthesisDelta,
    SynthesisStarted,
    apply,
    consequence,
    decide,
)
from orchestration.domain.virtual_clock import Leg, Trace, replay, simulate
from tests.domain.synthesis_runs import Scripted, ends, finals, fold, leg, started, text_of

NUMBERS = st.sampled_from([0, 6, 12])
KINDS = ("incomplete", "rate_limited", "timeout.first_token", "stop.user", "auth")


@st.composite
def legs(draw: st.DrawFn) -> list[Leg]:
    result = []
    for label in "ABCDEF"[: draw(st.integers(1, 6))]:
        numbers = draw(st.lists(st.integers(0, 60), min_size=draw(NUMBERS), max_size=24))
        first_s = draw(st.floats(0.05, 30))
        end_s = first_s + draw(st.floats(0.1, 40))
        fails = draw(st.sampled_from(KINDS)) if draw(RARELY) else None
        glue = draw(st.sampled_from([" ", "\n\n", "\n- "]))
        text = glue.join(text_of(n) for n in numbers)
        result.append(leg(label, text, first_s=first_s, end_s=end_s, fails=fails))
    return result


@st.composite
def synthesizers(draw: st.DrawFn) -> Scripted:
    outcome: st.SearchStrategy[str | tuple[str, str]] = st.sampled_from(
        [
            ("fails", "server_error"),
            ("fails", "auth"),
            "",
            "not an edit, and as a draft half a sentence with",
            '{"ops": [{"op": "delete", "block": "b1"}]}',
            '{"op": "noop"}',
        ]
    )
    script = draw(st.dictionaries(st.integers(1, 6), outcome, max_size=3))
    return Scripted(script, after_s=draw(st.floats(0.1, 12)))


POLICIES = st.sampled_from([*PRESETS.values(), *FOILS.values()]) | st.builds(
    lambda calls, retries, window, claims: replace(
        PRESETS["balanced"],
        max_calls=calls, retries=retries, late_window_s=window, min_new_claims=claims,
    ),
    st.integers(1, 4), st.integers(0, 2), st.floats(0, 20), st.integers(0, 3),
)  # fmt: skip
RARELY = st.integers(0, 3).map(lambda n: n == 3)


@st.composite
def runs(draw: st.DrawFn) -> tuple[Policy, list[Leg], Trace]:
    policy, calls = draw(POLICIES), draw(legs())
    stop_s = draw(st.floats(0, 60)) if draw(RARELY) else None
    deadline_s = draw(st.floats(1, 80)) if draw(RARELY) else None
    others = [] if stop_s is None else [(stop_s, StopRequested())]
    trace = simulate(policy, calls, draw(synthesizers()), deadline_s=deadline_s, others=others)
    return policy, calls, trace


@settings(max_examples=100, deadline=None)
@given(runs())
def test_every_run_ends_once_with_at_most_one_final(run: tuple[Policy, list[Leg], Trace]) -> None:
    _, _, trace = run
    assert len(ends(trace)) == 1
    assert len(finals(trace)) <= 1
    assert isinstance(trace.log[-1][1], RunFinished)
    assert all(call.status != "open" for call in trace.state.calls.values())
    assert trace.state.running is None


@settings(max_examples=100, deadline=None)
@given(runs())
def test_answers_are_never_left_without_a_final(run: tuple[Policy, list[Leg], Trace]) -> None:
    _, _, trace = run
    state = trace.state
    if state.answers:
        assert state.final is not None
        assert state.document.text
    else:
        assert state.finished is not None
        assert state.finished.status in ("failed", "cancelled", "degraded")


@settings(max_examples=100, deadline=None)
@given(runs())
def test_one_synthesis_at_a_time_with_growing_versions_and_sources(
    run: tuple[Policy, list[Leg], Trace],
) -> None:
    policy, _, trace = run
    state, known = State(), 0
    for at_s, fact in trace.log:
        if isinstance(fact, SynthesisStarted):
            assert state.running is None
            assert fact.version == known + 1
            known = fact.version
            base = state.version(fact.base_version)
            mine = {s.label: s.chars for s in fact.sources}
            for source in base.sources if base else ():
                assert mine.get(source.label, -1) >= source.chars
            for label, chars in mine.items():
                assert 0 < chars <= len(state.calls[label].text)
        state = apply(state, fact, at_s)
    assert known <= policy.max_calls


@settings(max_examples=80, deadline=None)
@given(runs())
def test_deciding_again_after_the_consequences_yields_nothing(
    run: tuple[Policy, list[Leg], Trace],
) -> None:
    policy, _, trace = run
    state = State()
    for at_s, fact in trace.log:
        state = apply(state, fact, at_s)
        after = state
        for command in decide(policy, state, at_s):
            after = apply(after, consequence(command), at_s)
        assert decide(policy, after, at_s) == ()


@settings(max_examples=80, deadline=None)
@given(runs())
def test_the_log_alone_gives_the_state_and_the_commands(
    run: tuple[Policy, list[Leg], Trace],
) -> None:
    policy, _, trace = run
    assert fold(trace.log) == trace.state
    assert replay(policy, trace.log) == trace.issued


@settings(max_examples=50, deadline=None)
@given(runs())
def test_every_fact_applied_twice_equals_once(run: tuple[Policy, list[Leg], Trace]) -> None:
    _, _, trace = run
    state = State()
    for at_s, fact in trace.log:
        state = apply(state, fact, at_s)
        assert apply(state, fact, at_s) == state


@settings(max_examples=50, deadline=None)
@given(runs(), st.data())
def test_a_log_delivered_again_from_any_point_changes_nothing(
    run: tuple[Policy, list[Leg], Trace], data: st.DataObject
) -> None:
    _, _, trace = run
    upto = data.draw(st.integers(0, len(trace.log)))
    # The last fact closes the run, after which everything is ignored: stop short of it.
    log = trace.log[: min(upto, len(trace.log) - 1)]
    state = fold(log)
    now = log[-1][0] if log else 0.0
    assert fold([(now, fact) for _, fact in log], start=state) == state


@settings(max_examples=80, deadline=None)
@given(runs())
def test_no_text_is_lost(run: tuple[Policy, list[Leg], Trace]) -> None:
    _, calls, trace = run
    for call in calls:
        sent = [f.text for _, f in trace.log if isinstance(f, CallChunk) and f.label == call.label]
        assert trace.state.calls[call.label].text == "".join(sent)
        assert call.text.startswith("".join(sent))
    for version in trace.state.versions:
        deltas = [
            f.text
            for _, f in trace.log
            if isinstance(f, SynthesisDelta) and f.version == version.version
        ]
        assert version.text == "".join(deltas)


@settings(max_examples=80, deadline=None)
@given(runs())
def test_an_only_answer_is_shown_as_it_is(run: tuple[Policy, list[Leg], Trace]) -> None:
    _, _, trace = run
    final = trace.state.final
    if final and final.mode == "single" and not trace.state.amended:
        assert trace.state.document.text == trace.state.calls[str(final.label)].text
        assert final.degraded == (len(trace.state.calls) > 1)


@settings(max_examples=80, deadline=None)
@given(runs())
def test_after_the_final_only_late_edits_come(run: tuple[Policy, list[Leg], Trace]) -> None:
    _, _, trace = run
    seen_final = False
    for _, fact in trace.log:
        seen_final = seen_final or isinstance(fact, Finalised)
        if isinstance(fact, SynthesisStarted):
            assert fact.late == seen_final
            assert fact.kind == "patch" or not fact.late
    for command in started(trace):
        assert command.kind != "rewrite" or command.base_version == 0
