"""The policy engine, rule by rule, on a virtual clock."""

from dataclasses import replace

import pytest

from orchestration.domain.policies import FOILS, PRESETS
from orchestration.domain.synthesis import (
    CallChunk,
    CallFinished,
    CancelCall,
    Finalised,
    FinishRun,
    RunStarted,
    State,
    StopRequested,
    SynthesisFinished,
    answer_text,
    apply,
    closing,
    coverage,
    decide,
    next_wake_s,
)
from orchestration.domain.virtual_clock import Leg, simulate
from tests.domain.synthesis_runs import (
    Scripted,
    edits,
    ends,
    finals,
    leg,
    sentence,
    started,
    text_of,
    when,
)

BALANCED = PRESETS["balanced"]
# The scripted synthesizer repeats its sources, which no budget allows for.
ROOMY = replace(BALANCED, max_cost_ratio=100.0, late_min_share=0.0)
ONE_STEP = replace(ROOMY, max_steps=1)
# About 1,100 characters each; A and B share half of what they say.
A = text_of(*range(14))
B = text_of(*range(7, 21))
C = text_of(*range(21, 35))


def three(**changes: Leg) -> list[Leg]:
    """A fast, a middle and a slow answer, all different enough to matter."""
    legs = {
        "A": leg("A", A, first_s=0.5, end_s=6.0),
        "B": leg("B", B, first_s=0.8, end_s=8.0),
        "C": leg("C", C, first_s=1.5, end_s=20.0),
    }
    return list((legs | changes).values())


class TestStaircase:
    def test_the_draft_begins_before_any_answer_has_finished(self) -> None:
        trace = simulate(BALANCED, three(), Scripted())
        first_s, first = trace.issued[0]
        assert first_s < 6.0
        assert started(trace)[0] == first
        assert started(trace)[0].trigger == "chunks"
        assert {"A", "B"} <= {s.label for s in started(trace)[0].sources}

    def test_one_fast_finished_answer_is_enough_to_begin(self) -> None:
        legs = three(A=leg("A", A, first_s=0.1, end_s=0.9), B=leg("B", B, first_s=5, end_s=9))
        trace = simulate(BALANCED, legs, Scripted())
        assert trace.issued[0][0] == pytest.approx(0.9)
        assert started(trace)[0].trigger == "first_answer"

    def test_a_whole_paragraph_counts_as_a_chunk(self) -> None:
        short = text_of(0, 1, 2) + "\n\n"
        assert 160 < len(short) < BALANCED.chunk_chars
        waiting = [leg(label, short, first_s=1, end_s=2, pieces=1) for label in "AB"]
        more = [Leg(w.label, (*w.chunks, (30.0, C)), 31.0) for w in waiting]
        assert simulate(BALANCED, more, Scripted()).issued[0][0] == pytest.approx(1.0)

    def test_a_step_shows_only_whole_sentences_of_running_answers(self) -> None:
        trace = simulate(BALANCED, three(), Scripted())
        for source in started(trace)[0].sources:
            text = trace.state.calls[source.label].text[: source.chars].rstrip()
            assert text.endswith(".")

    def test_later_steps_go_on_behind_the_draft(self) -> None:
        slow = three(A=leg("A", A * 2, end_s=30), B=leg("B", B * 2, end_s=30))
        script = {n: sentence(n) for n in range(1, 9)}
        trace = simulate(BALANCED, slow, Scripted(dict(script)))
        steps = [c for c in started(trace) if c.kind == "draft"]
        assert len(steps) >= 2
        assert [c.base_version for c in steps] == list(range(len(steps)))
        blocks = trace.state.documents[2].blocks
        assert [b.md for b in blocks] == [sentence(1), sentence(2)]

    def test_a_step_cut_off_in_mid_sentence_keeps_its_whole_sentences(self) -> None:
        trace = simulate(BALANCED, three(), Scripted({1: sentence(1) + " The harbour keeps ev"}))
        assert trace.state.documents[1].text == sentence(1)

    def test_no_step_is_begun_that_would_delay_the_final(self) -> None:
        # C can end within the grace, so the final is known to begin when it does.
        legs = three(C=leg("C", C, first_s=1.0, end_s=9.0))
        trace = simulate(BALANCED, legs, Scripted({1: sentence(50), 2: sentence(51)}, after_s=3.0))
        begun = [v.started_s for v in trace.state.versions]
        assert [s for s in begun if 8.0 < s < 9.0] == []
        assert begun[-1] == pytest.approx(max(9.0, trace.state.versions[-2].ended_s or 0.0))


class TestEdits:
    # A finishes early, B and C are silent for long: nobody writes, so the draft is edited.
    LEGS = (
        leg("A", A, first_s=0.2, end_s=1.0),
        leg("B", C, first_s=2.0, end_s=4.0),
        leg("C", "", first_s=29, end_s=29.5, fails="server_error"),
        leg("D", "", first_s=29, end_s=29.5, fails="server_error"),
        leg("E", "", first_s=29, end_s=29.5, fails="server_error"),
    )

    def test_news_becomes_one_edit_after_the_debounce(self) -> None:
        trace = simulate(ONE_STEP, self.LEGS, Scripted({1: sentence(0), 2: sentence(1)}))
        patch = next(v for v in trace.state.versions if v.kind == "patch")
        assert patch.trigger == "new_claims"
        assert patch.started_s == pytest.approx(4.5)

    def test_an_answer_that_adds_nothing_causes_no_call_and_counts_as_covered(self) -> None:
        same = (self.LEGS[0], leg("B", A, first_s=20.0, end_s=21.0), *self.LEGS[2:])
        trace = simulate(replace(ONE_STEP, deadline_s=None), same, Scripted())
        whole = [v.version for v in trace.state.versions]
        assert whole == [1]
        assert coverage(BALANCED, trace.state)["B"] == "covered"

    def test_a_dispute_passes_the_gate_where_one_new_claim_does_not(self) -> None:
        said = "The old harbour lantern of the granite orchard burns for 14 hours a night. "
        other = said.replace("14", "29")
        for text, expected in ((other, ["dispute"]), (said, [])):
            legs = (
                leg("A", said + A, first_s=0.2, end_s=1.0),
                leg("B", text + A, first_s=20, end_s=21),
                *self.LEGS[2:],
            )
            trace = simulate(replace(ONE_STEP, deadline_s=None), legs, Scripted())
            assert [c.trigger for c in started(trace)[1:]] == expected

    def test_an_edit_that_does_not_apply_is_rejected_whole_and_becomes_a_rewrite(self) -> None:
        broken = edits(
            1,
            {"op": "insert_after", "block": "b1", "md": "Fine."},
            {"op": "replace", "block": "b99", "md": "No such block."},
        )
        trace = simulate(ONE_STEP, self.LEGS, Scripted({2: broken}))
        states = [(v.kind, v.state) for v in trace.state.versions[:3]]
        assert states == [("draft", "applied"), ("patch", "rejected"), ("rewrite", "applied")]
        assert "Fine." not in str(trace.state.documents)
        assert trace.state.versions[2].base_version == 0

    def test_an_edit_of_another_version_is_rejected(self) -> None:
        old = edits(7, {"op": "insert_after", "block": "b1", "md": "Fine."})
        trace = simulate(ONE_STEP, self.LEGS, Scripted({2: old}))
        assert trace.state.versions[1].reason == "another base version"


class TestFinal:
    def test_the_final_comes_after_quorum_and_grace_and_a_last_edit(self) -> None:
        trace = simulate(BALANCED, three(), Scripted())
        (final_s, final), *_ = finals(trace)
        assert 8.0 < final_s < 10.0  # B is the second of three at 8 s
        assert final.mode == "promote"
        assert not final.degraded

    @pytest.mark.parametrize(("end_s", "waited"), [(9.5, True), (30.0, False)])
    def test_the_grace_is_for_calls_that_can_make_it(self, end_s: float, waited: bool) -> None:
        legs = three(C=leg("C", C, first_s=1.5, end_s=end_s))
        trace = simulate(BALANCED, legs, Scripted())
        close = closing(BALANCED, trace.state)
        assert close is not None
        assert close.at_s == pytest.approx(9.5 if waited else 8.0)

    def test_what_a_straggler_has_written_by_then_is_part_of_the_final(self) -> None:
        trace = simulate(BALANCED, three(C=leg("C", C, first_s=1.5, end_s=30)), Scripted())
        last = [v for v in trace.state.versions if not v.late][-1]
        assert {s.label for s in last.sources} == {"A", "B", "C"}

    def test_a_draft_that_only_grew_is_finished_by_a_last_step(self) -> None:
        trace = simulate(ROOMY, three(), Scripted({1: sentence(0)}))
        last = [v for v in trace.state.versions if not v.late][-1]
        assert (last.kind, last.trigger) == ("draft", "quorum")
        assert last.base_version == last.version - 1

    def test_a_dispute_at_the_final_is_settled_by_an_edit(self) -> None:
        said = "The old harbour lantern of the granite orchard burns for 14 hours a night."
        legs = three(B=leg("B", f"{B} {said.replace('14', '29')}", first_s=0.8, end_s=8.0))
        trace = simulate(ROOMY, legs, Scripted({1: said}))
        last = [v for v in trace.state.versions if not v.late][-1]
        assert (last.kind, last.trigger) == ("patch", "quorum")

    def test_nothing_is_missing_so_the_draft_is_promoted_without_a_call(self) -> None:
        alike = [leg(label, A, first_s=0.5, end_s=3.0 + i) for i, label in enumerate("ABC")]
        trace = simulate(BALANCED, alike, Scripted({1: A}))
        assert all(c.kind == "draft" for c in started(trace))
        assert trace.state.final is not None

    def test_after_three_edits_the_final_is_written_anew_from_the_sources(self) -> None:
        texts = [text_of(*range(20 * i, 20 * i + 6)) for i in range(6)]
        legs = [
            leg(label, text, first_s=8.0 * i + 0.1, end_s=8.0 * i + 0.5, pieces=1)
            for i, (label, text) in enumerate(zip("ABCDEF", texts, strict=True))
        ]
        policy = replace(ROOMY, quorum_share=1.0, deadline_s=None)
        trace = simulate(policy, legs, Scripted({1: sentence(99)}))
        kinds = [v.kind for v in trace.state.versions]
        assert kinds.count("patch") >= 3
        assert kinds[-1] == "rewrite"
        assert {s.label for s in started(trace)[-1].sources} == set("ABCDEF")
        assert finals(trace)[0][1].mode == "rewrite"

    def test_every_preset_ends_with_everything_that_arrived(self) -> None:
        for policy in (*PRESETS.values(), *FOILS.values()):
            trace = simulate(policy, three(), Scripted())
            assert ends(trace) == [FinishRun("done")], policy.name
            text = answer_text(trace.state)
            assert text is not None
            assert sentence(3) in text, policy.name
            assert sentence(18) in text, policy.name

    def test_wait_all_says_nothing_before_the_last_answer(self) -> None:
        trace = simulate(PRESETS["wait_all"], three(), Scripted())
        assert [c.kind for c in started(trace)] == ["draft"]
        assert trace.issued[0][0] == pytest.approx(20.0)

    def test_the_deadline_ends_the_wait_and_the_result_is_degraded(self) -> None:
        slow = three(B=leg("B", B, first_s=0.8, end_s=55), C=leg("C", C, first_s=50, end_s=59))
        trace = simulate(BALANCED, slow, Scripted())
        (final_s, final), *_ = finals(trace)
        assert 30.0 <= final_s <= 33.0
        assert final.degraded

    def test_the_run_deadline_ends_everything(self) -> None:
        slow = three(B=leg("B", B, first_s=0.8, end_s=55), C=leg("C", C, first_s=50, end_s=59))
        trace = simulate(replace(BALANCED, deadline_s=None), slow, Scripted(), deadline_s=12)
        assert trace.log[-1][0] == pytest.approx(12, abs=0.1)
        assert trace.state.final is not None
        assert trace.state.calls["C"].kind == "deadline"

    def test_text_of_a_call_that_failed_since_is_written_out_of_the_answer(self) -> None:
        cut = leg("B", B[: len(B) // 2], first_s=0.8, end_s=5.0, fails="incomplete")
        trace = simulate(BALANCED, three(B=cut), Scripted())
        text = answer_text(trace.state) or ""
        assert "B" in {s.label for v in trace.state.versions for s in v.sources}
        assert "B" not in {s.label for s in trace.state.lineage[0].sources}
        assert sentence(20) not in text
        assert sentence(3) in text


class TestLate:
    # C thinks for long and answers after the final.
    LATE = leg("C", C, first_s=15.0, end_s=20.0)

    def test_a_late_answer_amends_and_the_final_stays(self) -> None:
        trace = simulate(ROOMY, three(C=self.LATE), Scripted())
        late = [v for v in trace.state.versions if v.late]
        assert [v.kind for v in late] == ["patch"]
        assert len(finals(trace)) == 1
        assert trace.state.amended
        assert sentence(34) in (answer_text(trace.state) or "")

    def test_a_late_answer_without_news_changes_nothing(self) -> None:
        echo = leg("C", A, first_s=15.0, end_s=20.0)
        trace = simulate(ROOMY, three(C=echo), Scripted())
        assert not trace.state.amended

    def test_an_amendment_needs_more_news_than_an_edit_before_the_final(self) -> None:
        legs = three(C=leg("C", f"{A} {text_of(40, 41, 42)}", first_s=15.0, end_s=20.0))
        assert simulate(ROOMY, legs, Scripted()).state.amended
        strict = replace(ROOMY, late_min_share=0.25)
        assert not simulate(strict, legs, Scripted()).state.amended

    def test_a_late_edit_that_does_not_apply_leaves_the_final_alone(self) -> None:
        plain = simulate(ROOMY, three(C=self.LATE), Scripted())
        late = next(v.version for v in plain.state.versions if v.late)
        trace = simulate(ROOMY, three(C=self.LATE), Scripted({late: "not an edit"}))
        assert trace.state.document == plain.state.documents[late - 1]
        assert [v.version for v in trace.state.versions] == list(range(1, late + 1))
        assert ends(trace) == [FinishRun("done")]

    def test_a_straggler_whose_rest_is_not_worth_an_amendment_is_cut_at_the_final(self) -> None:
        echo = leg("C", f"{A} {A}", first_s=1.5, end_s=40)
        trace = simulate(BALANCED, three(C=echo), Scripted())
        assert trace.state.calls["C"].kind == "stop.superseded"
        cut_s = next(t for t, c in trace.issued if isinstance(c, CancelCall))
        assert cut_s == pytest.approx(8.0)

    def test_a_call_that_has_hardly_begun_is_not_judged_by_it(self) -> None:
        legs = three(C=leg("C", C, first_s=7.9, end_s=14.0))
        trace = simulate(ROOMY, legs, Scripted())
        assert trace.state.calls["C"].status == "finished"
        assert trace.state.amended

    def test_a_straggler_too_slow_for_the_late_window_is_cut_at_the_final(self) -> None:
        for end_s, kept in ((30.0, True), (300.0, False)):
            legs = three(C=leg("C", C, first_s=1.5, end_s=end_s, pieces=200))
            trace = simulate(ROOMY, legs, Scripted())
            assert (trace.state.calls["C"].status == "finished") == kept

    def test_a_silent_call_is_waited_for_until_the_late_window_ends(self) -> None:
        trace = simulate(ROOMY, three(C=leg("C", "", end_s=500)), Scripted())
        cut_s, cut = next((t, c) for t, c in trace.issued if isinstance(c, CancelCall))
        assert cut == CancelCall("C", "stop.superseded")
        assert cut_s == pytest.approx(finals(trace)[0][0] + ROOMY.late_window_s)


class TestFewAnswers:
    def test_the_only_survivor_is_shown_verbatim_and_degraded(self) -> None:
        odd = A + "\n\n\n  - kept as it is  \n"
        legs = three(
            A=leg("A", odd, first_s=5.0, end_s=9.0),
            B=leg("B", "", end_s=1.0, fails="rate_limited"),
            C=leg("C", "", end_s=2.0, fails="rate_limited"),
        )
        trace = simulate(replace(BALANCED, draft_from="quorum"), legs, Scripted())
        assert started(trace) == []
        assert answer_text(trace.state) == odd
        assert ends(trace) == [FinishRun("degraded", "rate_limited")]

    def test_one_call_asked_for_is_no_degradation(self) -> None:
        policy = PRESETS["wait_all"]
        trace = simulate(policy, [leg("A", A)], Scripted())
        assert started(trace) == []
        assert finals(trace)[0][1].degraded is False
        assert ends(trace) == [FinishRun("done")]

    def test_a_single_call_needs_no_synthesizer_under_any_preset(self) -> None:
        for policy in PRESETS.values():
            trace = simulate(policy, [leg("A", A * 3, end_s=20)], Scripted())
            assert started(trace) == [], policy.name
            assert answer_text(trace.state) == A * 3

    def test_no_answer_at_all_fails_the_run(self) -> None:
        legs = [leg(label, "", end_s=2.0, fails="auth") for label in "ABC"]
        trace = simulate(BALANCED, legs, Scripted())
        assert ends(trace) == [FinishRun("failed", "auth")]
        assert trace.state.final is None

    def test_an_empty_answer_is_a_failure_and_never_merged(self) -> None:
        legs = three(B=leg("B", " \n ", end_s=2.0))
        trace = simulate(BALANCED, legs, Scripted())
        assert trace.state.calls["B"].kind == "bad_upstream_response"
        assert all("B" not in {s.label for s in c.sources} for c in started(trace))


class TestSynthesizerFails:
    def test_a_failure_is_tried_once_more(self) -> None:
        trace = simulate(BALANCED, three(), Scripted({1: ("fails", "server_error")}))
        assert [v.state for v in trace.state.versions[:2]] == ["failed", "applied"]
        assert ends(trace) == [FinishRun("done")]

    def test_an_empty_draft_counts_as_a_failure(self) -> None:
        trace = simulate(BALANCED, three(), Scripted({1: "  "}))
        assert trace.state.versions[0].state == "failed"

    @pytest.mark.parametrize("kind", ["server_error", "auth"])
    def test_without_a_synthesizer_the_best_answer_stands_degraded(self, kind: str) -> None:
        script = dict.fromkeys(range(1, 20), ("fails", kind))
        trace = simulate(BALANCED, three(), Scripted(dict(script)))
        assert len(trace.state.versions) == (1 if kind == "auth" else 2)
        assert finals(trace)[0][1].degraded
        assert answer_text(trace.state) in (A, B)
        assert ends(trace)[0].status == "degraded"

    def test_the_last_good_document_stands_when_the_rest_fails(self) -> None:
        script: dict[int, str | tuple[str, str]] = {1: sentence(0)}
        script |= dict.fromkeys(range(2, 20), ("fails", "server_error"))
        trace = simulate(BALANCED, three(), Scripted(script))
        assert answer_text(trace.state) == sentence(0)
        assert finals(trace)[0][1].degraded

    def test_a_synthesizer_that_repeats_its_fence_is_not_believed(self) -> None:
        from orchestration.domain.labelling import fence

        leak = f"All done </c-{fence('virtual', 1)}> now."
        trace = simulate(BALANCED, three(), Scripted({1: leak}))
        assert trace.state.versions[0].state == "failed"
        assert "All done" not in str(trace.state.documents)


class TestBudget:
    def test_calls_never_exceed_the_maximum_and_an_answer_still_comes(self) -> None:
        for most in (1, 2, 3):
            policy = replace(BALANCED, max_calls=most)
            trace = simulate(policy, three(), Scripted())
            assert len(trace.state.versions) <= most
            assert trace.state.final is not None

    def test_a_tight_cost_ratio_stops_the_growth_and_degrades(self) -> None:
        free = simulate(BALANCED, three(), Scripted())
        tight = simulate(replace(BALANCED, max_cost_ratio=0.5), three(), Scripted())
        assert len(tight.state.versions) < len(free.state.versions)
        assert finals(tight)[0][1].degraded


class TestStop:
    @pytest.mark.parametrize("at_s", [0.1, 1.0, 3.0, 5.1, 7.0, 8.5, 9.5, 15.0, 20.8])
    def test_stop_ends_the_run_at_once_and_keeps_what_exists(self, at_s: float) -> None:
        legs = three(C=leg("C", C, first_s=12.0, end_s=20.0))
        plain = simulate(ROOMY, legs, Scripted())
        before = when(plain, lambda f: isinstance(f, SynthesisFinished)) or 99
        trace = simulate(ROOMY, legs, Scripted(), others=[(at_s, StopRequested())])
        assert trace.log[-1][0] == pytest.approx(at_s, abs=0.1)
        assert all(call.status != "open" for call in trace.state.calls.values())
        if at_s > before:
            assert trace.state.document.text
        done_s = when(plain, lambda f: isinstance(f, Finalised)) or 99
        assert ends(trace)[0].status == ("done" if at_s > done_s else "cancelled")

    def test_a_draft_stopped_in_mid_sentence_stays_visible(self) -> None:
        state = State()
        state = apply(state, RunStarted(("A", "B"), "seed"), 0)
        for label in "AB":
            state = apply(state, CallChunk(label, A, 0), 1)
        (command,) = decide(ROOMY, state, 1)
        trace_ = simulate(
            ROOMY,
            [leg("A", A, end_s=9), leg("B", B, end_s=9)],
            Scripted(after_s=4.0),
            others=[(6.9, StopRequested())],
        )
        assert command is not None
        live = [v for v in trace_.state.versions if v.text]
        assert live
        assert trace_.state.document.text


class TestWaking:
    def test_the_next_wake_is_the_end_of_the_grace(self) -> None:
        state = apply(State(), RunStarted(("A", "B", "C"), "seed"), 0)
        state = apply(state, CallChunk("C", A[:200], 0), 1)
        state = apply(state, CallChunk("C", A[200:-50], 200), 6)
        for label, at_s in (("A", 4.0), ("B", 8.0)):
            state = apply(state, CallChunk(label, A, 0), at_s)
            state = apply(state, CallFinished(label), at_s)
        assert next_wake_s(BALANCED, state) == pytest.approx(8.5)  # the debounce comes first
        state = apply(state, CallChunk("C", "x"), 8.6)
        assert next_wake_s(BALANCED, state) == pytest.approx(10.0)

    def test_nothing_wakes_a_run_that_waits_for_facts_only(self) -> None:
        state = apply(State(), RunStarted(("A", "B"), "seed"), 0)
        assert next_wake_s(BALANCED, state) is None
        assert decide(BALANCED, state, 1000) == ()


class TestProvenance:
    def test_blocks_carry_who_supports_and_who_disputes_them(self) -> None:
        ours = "The old harbour lantern of the granite orchard burns for 14 hours a night."
        theirs = ours.replace("14", "29")
        alone = sentence(40)
        legs = [
            leg("A", f"{ours} {A}", end_s=3),
            leg("B", f"{ours} {A}", end_s=3.5),
            leg("C", f"{theirs} {alone} {A}", end_s=3.8),
        ]
        written = f"{sentence(3)}\n\n{ours}\n\n{alone}\n\nNobody ever mentioned such a zebra here."
        policy = replace(BALANCED, draft_from="quorum")
        trace = simulate(policy, legs, Scripted({1: written}))
        agreed, disputed, single, unsupported = trace.state.document.blocks
        assert (agreed.sources, agreed.status) == (("A", "B", "C"), "agreed")
        assert (disputed.sources, disputed.disputes) == (("A", "B"), ("C",))
        assert disputed.status == "disputed"
        assert (single.sources, single.status) == (("C",), "single")
        assert (unsupported.sources, unsupported.status) == ((), "unsupported")

    def test_citations_are_mapped_back_and_taken_out_of_the_text(self) -> None:
        from orchestration.domain.labelling import aliases

        names = aliases("virtual", 1, ("A", "B", "C"))
        cited = f"Quite another wording of it all [{names['A']}][{names['C']}]."
        policy = replace(BALANCED, draft_from="quorum")
        trace = simulate(policy, three(C=leg("C", C, end_s=8.5)), Scripted({1: cited}))
        block = trace.state.documents[1].blocks[0]
        assert block.sources == ("A", "C")
        assert block.md == "Quite another wording of it all."

    @pytest.mark.parametrize(
        ("knowing", "status"), [("", "unsupported"), ("A", "single"), ("AB", "agreed")]
    )
    def test_an_address_is_worth_as_many_answers_as_contain_it(
        self, knowing: str, status: str
    ) -> None:
        line = "You can read the whole granite story at https://example.org/x today."
        other = line.replace("https://example.org/x", "the library")
        legs = [
            leg(x, f"{line if x in knowing else other} {A}", end_s=3 + i / 10)
            for i, x in enumerate("ABC")
        ]
        policy = replace(BALANCED, draft_from="quorum")
        trace = simulate(policy, legs, Scripted({1: line}))
        assert trace.state.documents[1].blocks[0].status == status
