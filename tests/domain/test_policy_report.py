"""The policy report: the measures say what they claim, and absent data is not passed over."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import synthesis_policy_report
from orchestration.domain import prompts
from orchestration.domain.extractive import Pace
from orchestration.domain.policies import FOILS, PRESETS, Policy
from policy_report.compare import TARGETS, intervals, row, verdicts
from policy_report.legs import Case, CaseSet, paced_like_providers, recorded
from policy_report.measure import Outcome, measure
from tests.domain.synthesis_runs import leg, text_of

CASE = Case(
    "one",
    "What is kept?",
    (
        leg("A", text_of(*range(20)), first_s=0.4, end_s=4.0),
        leg("B", text_of(*range(10, 30)), first_s=0.8, end_s=7.0),
        leg("C", text_of(*range(20, 40)), first_s=1.5, end_s=25.0),
    ),
    seed=1,
)
CASES = CaseSet("test", "Test", (CASE,), Pace(), 0.0, prompts)
WAIT_ALL = PRESETS["wait_all"]


def outcome(policy: Policy, case: Case = CASE) -> Outcome:
    found = measure(case, policy, CASES)
    assert found is not None
    return found


def test_the_control_compared_with_itself_is_one() -> None:
    figures = row([outcome(WAIT_ALL)], [outcome(WAIT_ALL)])
    assert figures["ttms_ratio"] == figures["ttf_ratio"] == figures["cov_at_final"] == 1
    assert figures["extra_cost_pct"] == figures["run_cost_pct"] == figures["flicker"] == 0
    assert figures["anytime"] == 0


def test_balanced_speaks_before_wait_all_and_pays_for_it() -> None:
    balanced, control = outcome(PRESETS["balanced"]), outcome(WAIT_ALL)
    assert balanced.ttms_s < 4.0 < 25.0 < control.ttms_s
    assert balanced.ttf_s < control.ttf_s
    assert balanced.synthesis_units > control.synthesis_units
    assert balanced.flicker == 0


def test_text_thrown_away_counts_as_flicker() -> None:
    early = replace(CASE, legs=(*CASE.legs[:2], leg("C", text_of(50), first_s=4.5, end_s=6.2)))
    assert outcome(FOILS["restart"], early).flicker > 0
    assert outcome(FOILS["restart"], early).churn_tokens == 0


def test_a_cut_call_costs_what_it_wrote() -> None:
    hasty = replace(PRESETS["fast"], late="ignore")
    cut, whole = outcome(hasty), outcome(WAIT_ALL)
    assert cut.cut == 1
    assert cut.candidate_units < whole.candidate_units


def test_a_run_without_answers_is_left_out() -> None:
    failed = replace(CASE, legs=(leg("A", "", end_s=2.0, fails="auth"),))
    assert measure(failed, WAIT_ALL, CASES) is None


def test_every_target_is_judged_in_its_own_sense() -> None:
    good = {"ttms_ratio": 0.15, "ttf_ratio": 0.4, "extra_cost_pct": 1, "flicker": 0}
    assert all(verdicts({**good, "cov_at_final": 0.95}).values())
    bad = verdicts({name: 99.0 if sense == "<=" else 0.0 for name, (sense, _) in TARGETS.items()})
    assert not any(bad.values())


def test_an_interval_spans_what_runs_drawn_again_show() -> None:
    slow = replace(CASE, legs=(*CASE.legs[:2], leg("C", text_of(*range(20, 40)), end_s=80.0)))
    early = [outcome(PRESETS["balanced"], case) for case in (CASE, slow)]
    late = [outcome(WAIT_ALL, case) for case in (CASE, slow)]
    low, high = intervals(early, late, seed=1)["ttms_ratio"]
    assert low < row(early, late)["ttms_ratio"] < high
    alone = intervals(early[:1], late[:1], seed=1)["ttms_ratio"]
    assert alone == (row(early[:1], late[:1])["ttms_ratio"],) * 2


def test_pacing_is_drawn_by_seed(tmp_path: Path) -> None:
    answers = {f"maker/{n}": text_of(n, n + 1) for n in range(6)}
    data = tmp_path / "answers.jsonl"
    data.write_text(json.dumps({"id": "p", "prompt": "Why?", "answers": answers}) + "\n")
    once, again, other = (
        paced_like_providers(data, repeats=2, seed=seed).cases for seed in (1, 1, 2)
    )
    assert once == again != other
    assert len(once) == 2
    assert once[0].legs != once[1].legs
    assert {len(case.legs) for case in once} == {5}


@pytest.mark.parametrize(
    ("name", "runs", "labels", "mixed"),
    [("local", 20, "ABC", False), ("local-mixed", 12, "ABCDE", True)],
)
def test_the_recorded_legs_of_the_repository_can_be_replayed(
    name: str, runs: int, labels: str, mixed: bool
) -> None:
    root = Path(synthesis_policy_report.__file__).resolve().parent.parent
    cases = recorded(root / "results" / "legs" / f"{name}.jsonl")
    assert cases.name == name
    assert len(cases.cases) >= runs
    assert any("differ in size and speed" in text for text in cases.assumptions) == mixed
    for case in cases.cases[:3]:
        assert [each.label for each in case.legs] == list(labels)
        early, late = (measure(case, PRESETS[name], cases) for name in ("balanced", "wait_all"))
        assert early is not None
        assert late is not None
        assert early.ttms_s < late.ttms_s


def test_absent_data_is_named_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent, out = str(tmp_path / "absent.jsonl"), tmp_path / "out"
    arguments = ["report", "--legs", absent, "--data", absent, "--out", str(out)]
    monkeypatch.setattr("sys.argv", arguments)
    assert synthesis_policy_report.main() == 1
    assert capsys.readouterr().err.count("SKIPPED") == 2
    assert not out.exists()
