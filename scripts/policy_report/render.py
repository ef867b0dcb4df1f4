"""summary.json as a page to read."""

from collections.abc import Mapping
from typing import Any

from policy_report.compare import TARGETS

COLUMNS: tuple[tuple[str, str], ...] = (
    ("TTFS s", "ttfs_s"),
    ("TTMS s", "ttms_s"),
    ("TTF s", "ttf_s"),
    ("TTMS ratio", "ttms_ratio"),
    ("TTF ratio", "ttf_ratio"),
    ("extra cost %", "extra_cost_pct"),
    ("run cost %", "run_cost_pct"),
    ("flicker", "flicker"),
    ("churn tok", "churn_tokens"),
    ("cov@final", "cov_at_final"),
    ("cov of all", "cov_of_all"),
    ("anytime", "anytime"),
    ("calls", "calls"),
    ("late", "late"),
)


def report(summary: Mapping[str, Any]) -> str:
    lines = [
        "# Synthesis policies on recorded answers",
        "",
        f"Made by `{summary['command']}` on {summary['date']} at commit {summary['commit']}"
        f" (seed {summary['seed']}). All figures are in [summary.json](summary.json).",
        "",
    ]
    for name in summary["skipped"]:
        lines += [f"**Skipped:** {name} was not there.", ""]
    for figures in summary["sets"].values():
        lines += _set(figures)
    return "\n".join([*lines, *_READING]) + "\n"


def _set(figures: Mapping[str, Any]) -> list[str]:
    lines = [f"## {figures['title']}", ""]
    lines += [
        f"{figures['runs']} runs compared; {figures['without_answers']} without any answer left"
        f" out. Prompts: {figures['prompt_template']}. Times are median / 95th percentile.",
        "",
        "| policy | " + " | ".join(title for title, _ in COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    rows = {
        **figures["policies"],
        "balanced, no prompt cache": figures["balanced_without_prompt_cache"],
        "balanced, cache from 1,024 tokens": figures["balanced_with_cache_from_1024_tokens"],
    }
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(_cell(row[key]) for _, key in COLUMNS) + " |")
    lines += ["", "Targets of `balanced`:", ""]
    for name, reached in figures["targets"].items():
        sense, limit = TARGETS[name]
        value = figures["policies"]["balanced"][name]
        low, high = figures["target_intervals"][name]
        verdict = "reached" if reached else "**missed**"
        lines.append(f"- {name} {sense} {limit:g}: {value:g} ({low:g} to {high:g}), {verdict}")
    rate = figures["policies"]["balanced"]["patch_apply_rate"]
    lines += ["", f"Edits applied at the first try: {rate}.", "", "Assumptions:", ""]
    lines += [f"- {text}" for text in figures["assumptions"]]
    return [*lines, ""]


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['p50']:.1f} / {value['p95']:.1f}"
    return f"{value:g}"


_READING = (
    "## How to read it",
    "",
    "- **TTFS, TTMS, TTF**: time to the first synthesized text, to the first built on at least two"
    " answers, and to the final. The ratios are medians against wait_all on the same runs.",
    "- **extra cost**: what the synthesizer costs more than in wait_all, as a share of the whole"
    " run of wait_all. **run cost** also counts what the answers cost, which cutting stragglers"
    " lowers. Units: input 1, cached input 0.1, output 5 per token.",
    "- **flicker**: times a reader saw streaming text go away. **churn**: visible tokens changed.",
    "- **cov@final**: claims of all successful answers in the final, each weighted by the number of"
    " answers that make it, relative to wait_all's final and never above 1 for a run.",
    "- **cov of all**: claims in the final as a share of those of all answers, weighted alike.",
    "- **anytime**: claims visible as a share of those in wait_all's final, averaged over the time"
    " wait_all takes.",
    "- **In brackets** behind a target's figure: where nine in ten lie when as many runs are"
    " drawn again with replacement. A limit inside is not settled by so many runs.",
    "- The synthesizer is a model of one: it copies the most widely held claims out of its"
    " sources, 1.3 times as long as the median answer, one edit in ten does not apply. Its prompts"
    " are the real ones. **Nothing here measures the quality of prose.**",
)
