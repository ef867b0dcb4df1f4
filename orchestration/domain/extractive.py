"""A synthesizer without a model: it copies claims out of its sources.

It stands in for a language model where policies are compared: deterministic, as long-winded as a
real one, and with its timing (time to first token, reading speed, writing speed). It says nothing
about quality of prose; it makes coverage measurable, because what it writes can be traced.
"""

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from orchestration.domain import overlap as overlaps
from orchestration.domain.document import Document
from orchestration.domain.labelling import aliases
from orchestration.domain.overlap import Claim, Sentence
from orchestration.domain.policies import CHARS_PER_TOKEN
from orchestration.domain.prompts import Prompt, messages_for
from orchestration.domain.synthesis import StartSynthesis, State, considered
from orchestration.domain.synthesis_state import is_step, lineage
from orchestration.domain.synthesis_steps import step_chars
from orchestration.domain.virtual_clock import Written

LEAST_EDIT_CHARS = 256
FULL_LENGTH = 1.3
"""A whole synthesis is this much longer than the median of the answers it merges."""
PIECE_CHARS = 48


@dataclass(frozen=True, slots=True)
class Pace:
    """Timing of a synthesizer; medians with the sigma of a log-normal."""

    first_token_s: float = 0.8
    first_token_sigma: float = 0.35
    tokens_per_s: float = 90.0
    tokens_per_s_sigma: float = 0.2
    prefill_tokens_per_s: float = 5_000.0
    cached_prefill_share: float = 0.1
    """Time to read a cached token, relative to a fresh one."""
    least_cached_tokens: int = 0
    """Shorter common prefixes are read afresh (providers start at 1,024)."""
    cache: bool = True


@dataclass(frozen=True, slots=True)
class Usage:
    version: int
    fresh_tokens: float
    cached_tokens: float
    out_tokens: float
    first_token_s: float
    tokens_per_s: float


class ExtractiveSynthesizer:
    """One run's synthesizer. `usage` lists what every call read and wrote, from its real prompt."""

    def __init__(
        self,
        question: str,
        pace: Pace,
        *,
        seed: int = 0,
        patch_failure: float = 0.0,
        messages: Callable[[StartSynthesis, State, str], Prompt] = messages_for,
    ) -> None:
        """`messages` builds the prompts that are read: their length and their common beginnings
        decide when the first token comes."""
        self.question, self.pace, self.patch_failure = question, pace, patch_failure
        self.usage: list[Usage] = []
        self._seed, self._messages = seed, messages
        self._seen: list[str] = []

    def write(self, command: StartSynthesis, state: State) -> Written:
        rng = random.Random(f"{self._seed} {command.version}")  # noqa: S311 - timing, not secrets
        prompt = self._messages(command, state, self.question)
        text = self._text(command, state, rng)
        fresh, cached = self._read(prompt, text)
        pace = self.pace
        first_s = pace.first_token_s * math.exp(rng.gauss(0, pace.first_token_sigma))
        first_s += (fresh + pace.cached_prefill_share * cached) / pace.prefill_tokens_per_s
        speed = pace.tokens_per_s * math.exp(rng.gauss(0, pace.tokens_per_s_sigma))
        out = len(text) / CHARS_PER_TOKEN
        self.usage.append(Usage(command.version, fresh, cached, out, first_s, speed))
        pieces = tuple(
            (first_s + at / CHARS_PER_TOKEN / speed, text[at : at + PIECE_CHARS])
            for at in range(0, len(text), PIECE_CHARS)
        )
        return Written(pieces, first_s + out / speed)

    def _read(self, prompt: Prompt, answer: str) -> tuple[float, float]:
        """(fresh, cached) input tokens: the longest prefix that an earlier call has sent."""
        sent = "\x00".join(message["content"] for message in prompt.messages)
        common = max((_common_prefix(sent, seen) for seen in self._seen), default=0)
        cached = common / CHARS_PER_TOKEN if self.pace.cache else 0.0
        if cached < self.pace.least_cached_tokens:
            cached = 0.0
        self._seen.append(f"{sent}\x00{answer}\x00")
        return len(sent) / CHARS_PER_TOKEN - cached, cached

    def _text(self, command: StartSynthesis, state: State, rng: random.Random) -> str:
        within = {source.label: source.chars for source in command.sources}
        target = FULL_LENGTH * _usual_chars(state, within)
        if command.kind == "patch":
            return self._edits(command, state, within, target, rng)
        if is_step(command):
            chosen = _chosen(state, within, step_chars(command, state), written=state.stated)
        elif command.kind == "draft" and command.base_version:
            room = max(target - len(state.document.text), LEAST_EDIT_CHARS)
            chosen = _chosen(state, within, room, written=state.stated)
        else:
            chosen = _chosen(state, within, target, written=frozenset())
        if not chosen and not command.base_version:
            # Nothing but answers too short to claim anything: repeat the first of them.
            return state.calls[command.sources[0].label].text[: command.sources[0].chars]
        chain = lineage(state.versions, command.base_version)
        shown = aliases(state.seed, chain[0].version if chain else command.version, state.labels)
        return _prose(chosen, shown)

    def _edits(
        self,
        command: StartSynthesis,
        state: State,
        within: dict[str, int],
        target: float,
        rng: random.Random,
    ) -> str:
        weighed = considered(state)
        fresh = {k: n for k, n in within.items() if n > weighed.get(k, 0)}
        room = max(target - len(state.document.text), LEAST_EDIT_CHARS)
        chosen = _chosen(state, fresh, room, written=state.stated)
        blocks = state.document.blocks
        ops: list[dict[str, object]] = []
        if chosen and blocks:
            place = blocks[-1].id
            if rng.random() < self.patch_failure:
                place = "b0"  # no such block: the edit cannot apply
            root = state.lineage[0].version if state.lineage else command.version
            shown = aliases(state.seed, root, state.labels)
            ops.append(
                {
                    "op": "insert_after",
                    "block": place,
                    "md": _prose(chosen, {}),
                    "sources": sorted({shown[s.label] for s in chosen}),
                }
            )
        ops = ops or [{"op": "noop", "block": "", "md": "", "sources": []}]
        return json.dumps({"base_version": command.base_version, "ops": ops}, ensure_ascii=False)


def document_claims(claims: tuple[Claim, ...], document: Document) -> frozenset[int]:
    """Ids of the claims a document states."""
    return overlaps.stated_by(claims, overlaps.sentences(document.text))


def _chosen(
    state: State, within: dict[str, int], room: float, *, written: frozenset[int]
) -> list[Sentence]:
    """Sentences of the sources for claims not yet written, the most widely held first, then by
    their place in the answer, until `room` characters are full."""
    found: list[tuple[int, float, Sentence]] = []
    for claim in state.overlap.claims:
        said = [s for s in claim.sentences if s.end <= within.get(s.label, 0)]
        if not said or claim.id in written:
            continue
        support = len({s.label for s in said})
        place = said[0].end / max(len(state.calls[said[0].label].text), 1)
        found.append((-support, place, said[0]))
    chosen: list[tuple[float, Sentence]] = []
    length = 0
    for _, place, sentence in sorted(found, key=lambda row: row[:2]):
        if chosen and length + len(sentence.text) > room:
            continue
        chosen.append((place, sentence))
        length += len(sentence.text) + 1
    return [sentence for _, sentence in sorted(chosen, key=lambda row: row[0])]


def _prose(chosen: list[Sentence], shown: dict[str, str], per_paragraph: int = 4) -> str:
    paragraphs = []
    for at in range(0, len(chosen), per_paragraph):
        part = chosen[at : at + per_paragraph]
        cited = sorted({shown[s.label] for s in part}) if shown else []
        text = " ".join(s.text if s.text[-1] in ".!?" else f"{s.text}." for s in part)
        paragraphs.append(text + "".join(f"[{name}]" for name in cited))
    return "\n\n".join(paragraphs)


def _common_prefix(a: str, b: str) -> int:
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a.startswith(b[:middle]):
            low = middle
        else:
            high = middle - 1
    return low


def _usual_chars(state: State, within: dict[str, int]) -> float:
    """Median length of the finished answers among the sources; of all while none has finished."""
    whole = [n for k, n in within.items() if state.calls[k].status == "finished"]
    return _median(whole or list(within.values()))


def _median(values: list[int]) -> float:
    ordered = sorted(values) or [0]
    return float(ordered[len(ordered) // 2])
