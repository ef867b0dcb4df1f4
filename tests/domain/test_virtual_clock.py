"""Runs without waiting: the clock, the replay, the synthesizer that stands in for a model."""

import json
from dataclasses import replace

import pytest

from orchestration.domain.extractive import ExtractiveSynthesizer, Pace
from orchestration.domain.policies import FOILS, PRESETS
from orchestration.domain.synthesis import (
    CallChunk,
    CancelRequested,
    Fact,
    StartSynthesis,
    StopRequested,
)
from orchestration.domain.virtual_clock import Trace, replay, simulate
from tests.domain.synthesis_runs import Scripted, leg, text_of

BALANCED = PRESETS["balanced"]
LEGS = (
    leg("A", text_of(*range(20)), first_s=0.4, end_s=4.0),
    leg("B", text_of(*range(10, 30)), first_s=0.8, end_s=7.0),
    leg("C", text_of(*range(20, 40)), first_s=1.5, end_s=12.0),
    leg("D", text_of(*range(40, 60)), first_s=12.0, end_s=18.0),
)
EXACT = Pace(first_token_sigma=0.0, tokens_per_s_sigma=0.0)


def run(pace: Pace = EXACT, **changes: object) -> tuple[Trace, ExtractiveSynthesizer]:
    writer = ExtractiveSynthesizer("What is kept?", pace)
    policy = replace(BALANCED, **changes)  # type: ignore[arg-type]
    return simulate(policy, LEGS, writer), writer


class TestReplay:
    def test_a_recorded_log_gives_the_recorded_commands(self) -> None:
        trace, _ = run()
        assert len(trace.issued) >= 4
        assert replay(BALANCED, trace.log) == trace.issued

    def test_another_policy_decides_otherwise_on_the_same_log(self) -> None:
        trace, _ = run()
        for other in (PRESETS["wait_all"], FOILS["quorum_only"]):
            assert replay(other, trace.log) != trace.issued


class TestClock:
    def test_a_cancelled_call_says_nothing_more(self) -> None:
        stop: tuple[float, Fact] = (3.0, StopRequested())
        trace = simulate(BALANCED, LEGS, Scripted(), others=[stop])
        cut_s = next(t for t, fact in trace.log if isinstance(fact, CancelRequested))
        assert not [f for t, f in trace.log if t > cut_s and isinstance(f, CallChunk)]

    def test_time_never_runs_backwards(self) -> None:
        times = [at_s for at_s, _ in run()[0].log]
        assert times == sorted(times)


class TestExtractiveSynthesizer:
    def test_it_writes_nothing_its_sources_do_not_say(self) -> None:
        trace, _ = run()
        said = " ".join(each.text for each in LEGS)
        for block in trace.state.document.blocks:
            for sentence in block.md.split(". "):
                assert sentence.rstrip(".") in said

    def test_it_names_its_sources(self) -> None:
        trace, _ = run()
        assert all(block.sources for block in trace.state.document.blocks)
        assert {b.status for b in trace.state.document.blocks} <= {"agreed", "single"}

    def test_the_same_run_gives_the_same_text(self) -> None:
        assert run()[0].log == run()[0].log

    def test_what_was_sent_before_is_read_from_the_cache(self) -> None:
        _, cached = run()
        _, afresh = run(replace(EXACT, cache=False))
        assert cached.usage[0].cached_tokens == 0
        assert all(each.cached_tokens > each.fresh_tokens for each in cached.usage[1:3])
        assert all(each.cached_tokens == 0 for each in afresh.usage)
        _, late = run(replace(EXACT, least_cached_tokens=10**6))
        assert all(each.cached_tokens == 0 for each in late.usage)

    def test_the_first_token_waits_for_the_prompt_to_be_read(self) -> None:
        slow = replace(EXACT, prefill_tokens_per_s=100.0)
        fast_s, slow_s = (run(pace)[1].usage[0].first_token_s for pace in (EXACT, slow))
        assert slow_s > fast_s > EXACT.first_token_s

    def test_an_edit_meant_to_fail_is_rejected_and_the_run_still_ends_well(self) -> None:
        policy = replace(BALANCED, draft_from="quorum", late_min_share=0.0)
        writer = ExtractiveSynthesizer("What is kept?", EXACT, patch_failure=1.0)
        trace = simulate(policy, LEGS, writer)
        patches = [v for v in trace.state.versions if v.kind == "patch"]
        assert patches
        assert {v.state for v in patches} == {"rejected"}
        assert json.loads(patches[0].text)["ops"][0]["block"] == "b0"
        assert trace.state.final is not None

    def test_answers_too_short_to_claim_anything_are_repeated(self) -> None:
        short = [leg(label, "Yes.", end_s=1.0 + n) for n, label in enumerate("AB")]
        writer = ExtractiveSynthesizer("Is it?", EXACT)
        trace = simulate(BALANCED, short, writer)
        assert trace.state.document.text == "Yes."


@pytest.mark.parametrize("policy", [*PRESETS.values(), *FOILS.values()], ids=lambda p: p.name)
def test_every_policy_ends_and_is_told_apart_by_its_commands(policy: object) -> None:
    writer = ExtractiveSynthesizer("What is kept?", EXACT)
    trace = simulate(policy, LEGS, writer)  # type: ignore[arg-type]
    assert trace.state.finished is not None
    assert [c for _, c in trace.issued if isinstance(c, StartSynthesis)]
