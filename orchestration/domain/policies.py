"""When to draft, patch, rewrite and finish: policies of incremental synthesis as data.

A policy is one frozen value. `PRESETS` holds the named ones; `from_mapping` reads a pipeline's
settings on top of a preset and refuses what it does not know. Times are seconds on the run's
clock, sizes are characters (a token is taken as `CHARS_PER_TOKEN`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

CHARS_PER_TOKEN = 4

DraftFrom = Literal["chunks", "first_answer", "quorum"]
Revise = Literal["patch", "restart", "none"]
Final = Literal["auto", "rewrite"]
Late = Literal["amend", "ignore"]


class PolicyError(ValueError):
    """A setting that cannot be used. `field` is its name, the message says what is allowed."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


@dataclass(frozen=True, slots=True)
class Policy:
    name: str = "balanced"

    draft_from: DraftFrom = "chunks"
    """chunks: write along with the answers (staircase), from `start_calls` of them or the first
    finished one; first_answer: one whole draft from the first finished answer; quorum: nothing
    before the quorum, the grace or the deadline."""
    start_calls: int = 2
    """Calls that must have new material before a step of the staircase."""
    chunk_chars: int = 256
    """A call is ready for a step when it is so far ahead of the draft. Half as much as usual for
    staircases: the first step comes sooner, and its own length (`step_chars`) depends on what
    there is to say."""
    max_steps: int = 8

    revise: Revise = "patch"
    """What a later answer causes: an edit of the draft, a new draft from everything (discarding
    the one being written), or nothing before the final."""
    debounce_s: float = 0.5
    """An edit waits this long after the last arrival: answers arriving together share it."""
    min_new_claims: int = 2
    """Novelty gate: below this, and without a dispute, an answer causes no call."""

    quorum_share: float = 0.6
    quorum_min: int = 2
    grace_s: float = 4.0
    grace_share: float = 0.25
    """After the quorum wait min(grace_s, grace_share x time of the quorum) for the others."""
    deadline_s: float | None = 30.0
    """Finish with what is there. None: wait until every call has ended."""
    final: Final = "auto"
    """auto: the draft itself once everything that arrived is in it, rewritten from the sources
    when it was patched `rewrite_after_patches` times; rewrite: always from the sources."""
    rewrite_after_patches: int = 3

    late: Late = "amend"
    late_window_s: float = 60.0
    """Calls still running at the final may amend it for so long; then they are cut."""
    late_min_share: float = 0.25
    """A late answer amends only when its new claims are at least this share of the final's
    sentences (or dispute one): an amendment disturbs a reader who took the text for final."""

    max_calls: int = 10
    """Synthesizer calls of a run, retries and late amendments included."""
    max_cost_ratio: float = 3.0
    """Synthesizer cost allowed, as a multiple of one synthesis that waited for all answers."""
    retries: int = 1
    """Further attempts after a failed synthesizer call, before falling back."""

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_ranges(self)

    def quorum(self, calls: int) -> int:
        """Finished answers that start the final, of `calls` asked."""
        # Rounded, because a share such as 0.07 of 100 is 7.000000000000001 and would ask for 8.
        share = math.ceil(round(self.quorum_share * calls, 9))
        return min(calls, max(self.quorum_min, share))


_CHOICES: Mapping[str, tuple[str, ...]] = {
    "draft_from": get_args(DraftFrom),
    "revise": get_args(Revise),
    "final": get_args(Final),
    "late": get_args(Late),
}
_WHOLE: Mapping[str, tuple[int, int]] = {
    "start_calls": (1, 64),
    "chunk_chars": (40, 20_000),
    "max_steps": (1, 100),
    "min_new_claims": (0, 1_000),
    "quorum_min": (1, 64),
    "rewrite_after_patches": (1, 100),
    "max_calls": (1, 100),
    "retries": (0, 5),
}
_REAL: Mapping[str, tuple[float, float]] = {
    "debounce_s": (0, 60),
    "quorum_share": (0, 1),
    "grace_s": (0, 3_600),
    "grace_share": (0, 10),
    "deadline_s": (0.1, 86_400),
    "late_window_s": (0, 86_400),
    "late_min_share": (0, 100),
    "max_cost_ratio": (0.1, 1_000),
}


def _check_choices(policy: Policy) -> None:
    name: object = policy.name
    if not isinstance(name, str) or not name:
        raise PolicyError("name", "a text")
    for field, choices in _CHOICES.items():
        if getattr(policy, field) not in choices:
            raise PolicyError(field, f"one of {', '.join(choices)}")


def _check_ranges(policy: Policy) -> None:
    for field, (low, high) in _WHOLE.items():
        value = getattr(policy, field)
        if type(value) is not int or not low <= value <= high:
            raise PolicyError(field, f"a whole number from {low} to {high}")
    for field, (least, most) in _REAL.items():
        value = getattr(policy, field)
        if value is None and field == "deadline_s":
            continue
        # NaN fails the comparison, as it should.
        if type(value) not in (int, float) or not least <= value <= most:
            raise PolicyError(field, f"a number from {least:g} to {most:g}")


BALANCED = Policy()

PRESETS: Mapping[str, Policy] = {
    "balanced": BALANCED,
    "fast": replace(
        BALANCED, name="fast", quorum_share=0.4, grace_s=0.0, deadline_s=20.0,
    ),
    "thorough": replace(
        BALANCED, name="thorough", quorum_share=1.0, deadline_s=90.0, final="rewrite",
    ),
    # The control arm every other policy is measured against: one synthesis, nothing before it.
    "wait_all": replace(
        BALANCED, name="wait_all", draft_from="quorum", revise="none", quorum_share=1.0,
        deadline_s=None, late="ignore",
    ),
}  # fmt: skip
"""The policies a pipeline may name."""

FOILS: Mapping[str, Policy] = {
    "quorum_only": replace(BALANCED, name="quorum_only", draft_from="quorum"),
    "restart": replace(
        BALANCED, name="restart", draft_from="first_answer", revise="restart", quorum_share=1.0,
        deadline_s=None, max_calls=20, max_cost_ratio=20.0,
    ),
}  # fmt: skip
"""Policies that exist to be compared with, never offered."""


def from_mapping(settings: Mapping[str, Any]) -> Policy:
    """The policy of a pipeline: `preset` (balanced unless named) with the other keys on top.

    Raises PolicyError naming the key for an unknown key, preset, type or range."""
    given = dict(settings)
    preset = given.pop("preset", "balanced")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise PolicyError("preset", f"one of {', '.join(PRESETS)}")
    base = PRESETS[preset]
    known = {f.name for f in fields(Policy)}
    for key in given:
        if key not in known:
            raise PolicyError(str(key), f"unknown; known are preset, {', '.join(sorted(known))}")
    return replace(base, **{"name": base.name if not given else f"{base.name}+", **given})
