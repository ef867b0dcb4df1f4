"""Replay recorded answers through every synthesis policy and write what each would have done.

    python scripts/synthesis_policy_report.py [--legs FILE …] [--data FILE] [--repeats 3]
                                              [--seed 2026] [--out DIR]

Sets of runs: stored answers of real models paced like providers, and legs recorded from embedded
models (scripts/record_legs.py), one set a file. A set whose file is absent is skipped, and said so.
Writes summary.json (the figures) and report.md (the same to read) to results/policy/.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from orchestration.domain.policies import FOILS, PRESETS, Policy  # noqa: E402
from policy_report.compare import CONTROL, intervals, row, verdicts  # noqa: E402 - needs the path above
from policy_report.legs import CaseSet, paced_like_providers, recorded  # noqa: E402
from policy_report.measure import Outcome, measure  # noqa: E402
from policy_report.render import report  # noqa: E402

POLICIES: dict[str, Policy] = {CONTROL: PRESETS[CONTROL], **PRESETS, **FOILS}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    legs = [ROOT / "results" / "legs" / f"{name}.jsonl" for name in ("local", "local-mixed")]
    parser.add_argument("--legs", type=Path, nargs="+", default=legs)
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data" / "recorded_answers.jsonl"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "policy")
    options = parser.parse_args()
    sets: list[CaseSet] = []
    skipped: list[str] = []
    paced = partial(paced_like_providers, repeats=options.repeats, seed=options.seed)
    loads: list[tuple[Path, Callable[[Path], CaseSet]]] = [
        (options.data, paced),
        *((path, recorded) for path in options.legs),
    ]
    for path, load in loads:
        if path.exists():
            sets.append(load(path))
        else:
            skipped.append(path.name)
            print(f"SKIPPED: {path} is absent, so nothing is said about it.", file=sys.stderr)
    if not sets:
        print("Nothing to replay.", file=sys.stderr)
        return 1
    summary = {
        "command": shlex.join(["python", "scripts/synthesis_policy_report.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "seed": options.seed,
        "skipped": skipped,
        "policies": {name: asdict(policy) for name, policy in POLICIES.items()},
        "sets": {cases.name: _figures(cases, options.seed) for cases in sets},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(summary, indent=1, ensure_ascii=False)
    (options.out / "summary.json").write_text(text + "\n", encoding="utf-8")
    (options.out / "report.md").write_text(report(summary), encoding="utf-8")
    print(report(summary))
    return 0


def _figures(cases: CaseSet, seed: int) -> dict[str, Any]:
    outcomes = {name: _outcomes(cases, name) for name in POLICIES}
    control = outcomes[CONTROL]
    figures = {name: row(found, control) for name, found in outcomes.items()}
    uncached = replace(cases, pace=replace(cases.pace, cache=False))
    late_cache = replace(cases, pace=replace(cases.pace, least_cached_tokens=1024))
    return {
        "title": cases.title,
        "prompt_template": cases.prompts.TEMPLATE_VERSION,
        "runs": len(control),
        "without_answers": len(cases.cases) - len(control),
        "assumptions": list(cases.assumptions),
        "policies": figures,
        "targets": verdicts(figures["balanced"]),
        "target_intervals": intervals(outcomes["balanced"], control, seed=seed),
        "balanced_without_prompt_cache": row(
            _outcomes(uncached, "balanced"), _outcomes(uncached, CONTROL)
        ),
        "balanced_with_cache_from_1024_tokens": row(
            _outcomes(late_cache, "balanced"), _outcomes(late_cache, CONTROL)
        ),
    }


def _outcomes(cases: CaseSet, policy: str) -> list[Outcome]:
    found = [measure(c, POLICIES[policy], cases) for c in cases.cases]
    # Runs without any answer are without one under every policy, so the lists stay parallel.
    return [outcome for outcome in found if outcome is not None]


def _commit() -> str:
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
