"""Runs to replay: answers recorded with their timing, and stored answers paced like providers."""

import json
import math
import random
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from orchestration.domain import plain_prompts, prompts
from orchestration.domain.extractive import Pace
from orchestration.domain.policies import CHARS_PER_TOKEN
from orchestration.domain.virtual_clock import Leg

LABELS = "ABCDEFGH"


@dataclass(frozen=True, slots=True)
class Case:
    """One run to replay."""

    id: str
    question: str
    legs: tuple[Leg, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class CaseSet:
    name: str
    title: str
    cases: tuple[Case, ...]
    pace: Pace
    patch_failure: float
    prompts: ModuleType
    """The module whose prompts the synthesizer is sent."""
    assumptions: tuple[str, ...] = field(default=())


def recorded(path: Path) -> CaseSet:
    """Answers of embedded models with the timing they had (scripts/record_legs.py).

    The set is named after its file. Every row holds the same configurations in the same order.
    """
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    cases = tuple(
        Case(row["id"], row["prompt"], tuple(_leg(leg) for leg in row["legs"]), index)
        for index, row in enumerate(rows)
    )
    pace = _editor_pace([row["editor"] for row in rows])
    asked = [leg["model"] for leg in rows[0]["legs"]]
    models = len({model.partition("/")[0] for model in asked})
    title = "Embedded model" if models == 1 else f"{models} embedded models"
    return CaseSet(
        path.stem,
        f"{title}, {len(cases)} questions, N = {len(asked)} configurations, real timing",
        cases,
        pace,
        0.1,
        plain_prompts,
        (
            f"Legs: real answers with their real timing; all {len(asked)} configurations are asked"
            f" at once and share one machine. Medians to the end of an answer: {_ends(rows)}.",
            *((_MIXED,) if models > 1 else ()),
            "Synthesizer: paced like the editor persona of the small model as measured on the same"
            f" machine when the answers had ended: reads {pace.prefill_tokens_per_s:.0f} and writes"
            f" {pace.tokens_per_s:.0f} tokens/s. That it would slow down the calls it runs beside"
            " is not modelled.",
        ),
    )


_MIXED = (
    "The models differ in size and speed, so waiting for all means waiting for the slow one, and"
    " the ratios come mostly from that. Fan-outs over providers are as mixed; how far apart the"
    " models are is chance here: they are the two the project embeds, chosen before any policy was"
    " replayed on them."
)


def _ends(rows: list[dict[str, Any]]) -> str:
    """Median end of every configuration, as text."""
    return ", ".join(
        f"{legs[0]['model']} {statistics.median(leg['end_s'] for leg in legs):.1f} s"
        for legs in zip(*(row["legs"] for row in rows), strict=True)
    )


def _leg(row: dict[str, Any]) -> Leg:
    chunks = tuple((float(at_s), str(text)) for at_s, text in row["chunks"])
    return Leg(row["label"], chunks, float(row["end_s"]))


def _editor_pace(rows: list[dict[str, Any]]) -> Pace:
    reads = [r["prompt_chars"] / CHARS_PER_TOKEN / r["first_token_s"] for r in rows]
    writes = [r["chars_per_s"] / CHARS_PER_TOKEN for r in rows if r["chars"]]
    return Pace(
        first_token_s=0.05,
        first_token_sigma=0.2,
        tokens_per_s=statistics.median(writes),
        tokens_per_s_sigma=0.1,
        prefill_tokens_per_s=statistics.median(reads),
    )


# --- stored answers without timing --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Speed:
    """A class of models: medians and sigmas of log-normals, and tokens thought before the first."""

    first_s: float
    first_sigma: float
    tokens_per_s: float
    speed_sigma: float
    thinking_tokens: float = 0.0


SPEEDS = {
    "fast": Speed(0.45, 0.35, 150.0, 0.25),
    "mid": Speed(0.80, 0.40, 80.0, 0.25),
    "large": Speed(1.50, 0.45, 50.0, 0.25),
    "reasoning": Speed(1.50, 0.45, 80.0, 0.30, 900.0),
}
MIX = ("fast", "mid", "mid", "large", "reasoning")
STRAGGLERS, FAILURES, HANGS = 0.05, 0.03, 1 / 3
TIMEOUT_S = 60.0
CHUNK_S = 0.05

PROVIDER_ASSUMPTIONS = (
    "Texts: real answers of real models; five of six per prompt, drawn by seed.",
    "Pacing: log-normal time to first token (medians 0.45 fast, 0.8 mid, 1.5 s large) and speed"
    " (150/80/50 tokens/s), a mix of fast, 2 mid, large and reasoning (900 hidden tokens at"
    " 80/s), dealt to the models by seed; 5 % stragglers, 3 % failures, a third of which hang"
    " until the time-out of 60 s.",
    "Synthesizer: 0.8 s to the first token (sigma 0.35) + reading at 5,000 tokens/s, 90 tokens/s.",
)


def paced_like_providers(path: Path, *, repeats: int, seed: int) -> CaseSet:
    """Every stored prompt `repeats` times, each with its own draw of speeds and failures."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    cases = tuple(
        _drawn(row, seed * 1_000_003 + repeat * 10_007 + index)
        for repeat in range(repeats)
        for index, row in enumerate(rows)
    )
    return CaseSet(
        "providers",
        f"Stored answers of real models, {len(rows)} prompts x {repeats} draws, N = {len(MIX)},"
        " paced like providers",
        cases,
        Pace(),
        0.1,
        prompts,
        PROVIDER_ASSUMPTIONS,
    )


def _drawn(row: dict[str, Any], seed: int) -> Case:
    rng = random.Random(seed)
    models = rng.sample(sorted(row["answers"]), len(MIX))
    speeds = rng.sample(MIX, len(MIX))
    legs = tuple(
        _paced(label, row["answers"][model], SPEEDS[speed], rng)
        for label, model, speed in zip(LABELS, models, speeds, strict=False)
    )
    return Case(row["id"], row["prompt"], legs, seed)


def _paced(label: str, text: str, speed: Speed, rng: random.Random) -> Leg:
    first_s = speed.first_s * math.exp(rng.gauss(0, speed.first_sigma))
    tokens_per_s = speed.tokens_per_s * math.exp(rng.gauss(0, speed.speed_sigma))
    if rng.random() < STRAGGLERS:
        if rng.random() < 0.5:
            first_s *= math.exp(rng.gauss(math.log(6), 0.4))
        else:
            tokens_per_s /= math.exp(rng.gauss(math.log(3.5), 0.3))
    thinking = speed.thinking_tokens * math.exp(rng.gauss(0, 0.6))
    if rng.random() < FAILURES:
        if rng.random() < HANGS:
            return Leg(label, (), TIMEOUT_S, "timeout.first_token")
        return Leg(label, (), 0.7 * math.exp(rng.gauss(0, 0.6)), "server_error")
    first_s += thinking / tokens_per_s
    chars_per_s = tokens_per_s * CHARS_PER_TOKEN
    size = max(1, round(chars_per_s * CHUNK_S))
    chunks = [
        (first_s + (at + size) / chars_per_s, text[at : at + size])
        for at in range(0, len(text), size)
    ]
    end_s = first_s + len(text) / chars_per_s
    if end_s > TIMEOUT_S:
        kept = tuple(chunk for chunk in chunks if chunk[0] < TIMEOUT_S)
        return Leg(label, kept, TIMEOUT_S, "timeout.total")
    return Leg(label, tuple(chunks), max(end_s, chunks[-1][0] if chunks else 0.0))
