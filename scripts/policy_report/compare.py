"""Outcomes of many runs to one row a policy, always against wait_all on the same runs."""

import random
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from policy_report.measure import Outcome

CONTROL = "wait_all"

TARGETS: Mapping[str, tuple[str, float]] = {
    "ttms_ratio": ("<=", 0.15),
    "ttf_ratio": ("<=", 0.45),
    "extra_cost_pct": ("<=", 15.0),
    "cov_at_final": (">=", 0.95),
    "flicker": ("<=", 0.0),
}


def row(outcomes: Sequence[Outcome], control: Sequence[Outcome]) -> dict[str, Any]:
    """Figures of one policy; `control` holds wait_all's outcome of the same run at the same
    place. Ratios are ratios of medians."""
    figures: dict[str, Any] = {}
    for name in ("ttfs_s", "ttms_s", "ttf_s"):
        mine = [getattr(o, name) for o in outcomes]
        theirs = [getattr(o, name) for o in control]
        figures[name] = {"p50": _round(statistics.median(mine)), "p95": _round(_p95(mine))}
        ratio = statistics.median(mine) / statistics.median(theirs)
        figures[f"{name.removesuffix('_s')}_ratio"] = _round(ratio, 3)
    base = sum(c.synthesis_units + c.candidate_units for c in control)
    extra = sum(o.synthesis_units for o in outcomes) - sum(c.synthesis_units for c in control)
    saved = sum(o.candidate_units for o in outcomes) - sum(c.candidate_units for c in control)
    figures["extra_cost_pct"] = _round(100 * extra / base, 1)
    figures["run_cost_pct"] = _round(100 * (extra + saved) / base, 1)
    pairs = list(zip(outcomes, control, strict=True))
    figures["cov_at_final"] = _round(
        statistics.fmean(min(1.0, o.weight_at_final / (c.weight_at_final or 1)) for o, c in pairs),
        3,
    )
    figures["cov_at_final_unweighted"] = _round(
        statistics.fmean(min(1.0, o.claims_at_final / (c.claims_at_final or 1)) for o, c in pairs),
        3,
    )
    figures["cov_of_all"] = _round(
        statistics.fmean(o.weight_at_final / o.all_weight for o in outcomes), 3
    )
    figures["anytime"] = _round(statistics.fmean(_anytime(o, c) for o, c in pairs), 3)
    for name in ("flicker", "churn_tokens", "calls", "late", "cut"):
        figures[name] = _round(statistics.fmean(getattr(o, name) for o in outcomes), 2)
    patches = sum(o.patches for o in outcomes)
    figures["patches"] = patches
    figures["patch_apply_rate"] = (
        _round(1 - sum(o.rejected for o in outcomes) / patches, 3) if patches else None
    )
    figures["runs"] = len(outcomes)
    return figures


def verdicts(figures: Mapping[str, Any]) -> dict[str, bool]:
    """Target name -> reached."""
    return {
        name: figures[name] <= limit if sense == "<=" else figures[name] >= limit
        for name, (sense, limit) in TARGETS.items()
    }


def intervals(
    outcomes: Sequence[Outcome], control: Sequence[Outcome], *, seed: int, resamples: int = 400
) -> dict[str, tuple[float, float]]:
    """Target name -> (5th, 95th percentile) of its figure when as many runs are drawn again with
    replacement: the percentile bootstrap over runs."""
    rng = random.Random(seed)
    values: dict[str, list[float]] = {name: [] for name in TARGETS}
    for _ in range(resamples):
        drawn = rng.choices(range(len(outcomes)), k=len(outcomes))
        figures = row([outcomes[at] for at in drawn], [control[at] for at in drawn])
        for name, found in values.items():
            found.append(figures[name])
    ranked = {name: sorted(found) for name, found in values.items()}
    low, high = round(0.05 * (resamples - 1)), round(0.95 * (resamples - 1))
    return {name: (found[low], found[high]) for name, found in ranked.items()}


def _anytime(outcome: Outcome, control: Outcome) -> float:
    """Share of what wait_all's final covers that was visible, averaged over the time wait_all
    takes."""
    end_s, area, weight, since = control.ttf_s, 0.0, 0.0, 0.0
    for at_s, now in outcome.timeline:
        if at_s >= end_s:
            break
        area += weight * (at_s - since)
        weight, since = max(weight, now), at_s
    area += weight * (end_s - since)
    return min(1.0, area / (end_s * (control.weight_at_final or 1)))


def _p95(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]


def _round(value: float, digits: int = 2) -> float:
    return round(value, digits)
