"""What several answers say alike and where they differ, without a model and without the network.

Answers are cut into sentences as they stream; a sentence joins the cluster ("claim") whose first
sentence shares most of its content words, or founds a new one. This finds word overlap. It is
never a judgement about truth, and paraphrases that share no words stay apart.

Everything here is a value: `feed` returns a new `Overlap` and costs O(new sentences x claims),
independent of how much text was fed before.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Any

SAME_CLAIM = 0.6
"""Cosine of the two sentences' sets of content words at which they count as one claim."""
CONTRADICTS = 0.7
"""As above, for a different number or negation to count as a dispute: a weaker match too often
compares two different statements."""
MIN_WORDS = 4
"""Shorter sentences (headings, "Sure!") claim nothing worth matching."""
MAX_OPEN_CHARS = 2_000
"""A longer run without a sentence end is cut here, so that no chunk re-reads unbounded text."""

_STOP_WORDS = """
a an the of to in on at for and or but if is are was were be been being it its this that these those
with as by from can may might will would should could do does did has have had not no you your we
our they their he she his her i my me us them there here so than then also more most such into about
over under when which who what how while each any some all
"""
_STOP = frozenset(_STOP_WORDS.split())
_NEGATION = re.compile(r"\b(?:not|no|never|cannot|without|neither|nor)\b|n['’]t\b", re.I)
_NUMBER = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)*")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_BULLET = re.compile(r"^\s*(?:[-*+•>|]+|\d+[.)]|#+)\s+")
_END = re.compile(r"\n|(?<=[.!?])[\"')\]*]*\s|(?<=[。！？])")
ROWS = 12
"""The view is sent several times a second while answers grow; more rows than anyone reads at once
would be most of what is sent."""


@dataclass(frozen=True, slots=True)
class Sentence:
    label: str
    text: str
    end: int
    """Offset in the answer's text, in code points, just behind the sentence."""
    words: frozenset[str]
    numbers: frozenset[str]
    negated: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """Sentences that say much the same; the first one stands for all."""

    id: int
    sentences: tuple[Sentence, ...]

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(s.label for s in self.sentences)

    @property
    def disputed(self) -> bool:
        first = self.sentences[0]
        return any(contradict(first, other) for other in self.sentences[1:])


@dataclass(frozen=True, slots=True)
class Reading:
    """How far one answer has been read."""

    offset: int = 0
    in_code: bool = False


@dataclass(frozen=True, slots=True)
class Overlap:
    claims: tuple[Claim, ...] = ()
    readings: Mapping[str, Reading] = field(default_factory=dict)


def sentence(text: str, *, label: str = "", end: int = 0) -> Sentence | None:
    """The sentence with its features, or None when it is too short to claim anything."""
    text = _BULLET.sub("", text).strip()
    found = _WORD.findall(text)
    if len(found) < MIN_WORDS:
        return None
    words = frozenset(_stem(w.lower()) for w in found if w.lower() not in _STOP)
    if len(words) < 2:
        return None
    return Sentence(
        label, text, end, words, frozenset(_NUMBER.findall(text)), bool(_NEGATION.search(text))
    )


def sentences(text: str, label: str = "") -> tuple[Sentence, ...]:
    """All sentences of a complete text; fenced code is left out."""
    return _read(text, label, Reading(), complete=True)[0]


def similarity(a: Sentence, b: Sentence) -> float:
    """Cosine of the two word sets, 0..1."""
    return len(a.words & b.words) / sqrt(len(a.words) * len(b.words))


def contradict(a: Sentence, b: Sentence) -> bool:
    """Nearly the same words, but other numbers or the opposite sign. A hint, not a proof."""
    differs = a.negated != b.negated or bool(
        a.numbers and b.numbers and not (a.numbers <= b.numbers or b.numbers <= a.numbers)
    )
    return differs and similarity(a, b) >= CONTRADICTS


def feed(overlap: Overlap, label: str, text: str, *, complete: bool) -> Overlap:
    """Read on in `text`, the whole text of `label` so far; `complete` also reads an open end."""
    reading = overlap.readings.get(label, Reading())
    found, reading_now = _read(text, label, reading, complete=complete)
    if reading_now == reading:
        return overlap
    claims = overlap.claims
    for new in found:
        claims = _placed(claims, new)
    return Overlap(claims, {**overlap.readings, label: reading_now})


def without(overlap: Overlap, label: str) -> Overlap:
    """The overlap of the other answers, for a call that starts over."""
    claims: tuple[Claim, ...] = ()
    for claim in overlap.claims:
        for kept in claim.sentences:
            if kept.label != label:
                claims = _placed(claims, kept)
    return Overlap(claims, {k: v for k, v in overlap.readings.items() if k != label})


def stated_by(claims: Iterable[Claim], text: Iterable[Sentence]) -> frozenset[int]:
    """Ids of the claims that at least one of the sentences of `text` repeats."""
    written = tuple(text)
    return frozenset(
        claim.id
        for claim in claims
        if any(similarity(s, w) >= SAME_CLAIM for s in claim.sentences for w in written)
    )


def supporters(written: Sentence, claims: Iterable[Claim]) -> tuple[frozenset[str], frozenset[str]]:
    """Labels whose answers (say the same, say the opposite) as one written sentence."""
    agree: set[str] = set()
    oppose: set[str] = set()
    for claim in claims:
        for said in claim.sentences:
            if similarity(said, written) >= SAME_CLAIM:
                (oppose if contradict(said, written) else agree).add(said.label)
    return frozenset(agree), frozenset(oppose - agree)


def view(overlap: Overlap) -> dict[str, Any]:
    """JSON for readers: agreed [{text, labels}] (most widely held first), disputed
    [{variants: [{label, text}]}], at most `ROWS` of each, their totals, and single, the number of
    claims only one answer makes."""
    agreed, disputed = [], []
    single: Counter[str] = Counter()
    for claim in overlap.claims:
        labels = sorted(claim.labels)
        if len(labels) == 1:
            single[labels[0]] += 1
        elif claim.disputed:
            first_said = {s.label: s.text for s in reversed(claim.sentences)}
            variants = [{"label": k, "text": first_said[k]} for k in labels]
            disputed.append({"variants": variants})
        else:
            agreed.append({"text": claim.sentences[0].text, "labels": labels})
    agreed.sort(key=lambda row: -len(row["labels"]))
    return {
        "agreed": agreed[:ROWS],
        "disputed": disputed[:ROWS],
        "totals": {"agreed": len(agreed), "disputed": len(disputed)},
        "single": dict(sorted(single.items())),
    }


def _placed(claims: tuple[Claim, ...], new: Sentence) -> tuple[Claim, ...]:
    best, best_similarity = None, SAME_CLAIM
    for index, claim in enumerate(claims):
        if (close := similarity(claim.sentences[0], new)) >= best_similarity:
            best, best_similarity = index, close
    if best is None:
        return (*claims, Claim(len(claims), (new,)))
    grown = replace(claims[best], sentences=(*claims[best].sentences, new))
    return (*claims[:best], grown, *claims[best + 1 :])


def _read(
    text: str, label: str, reading: Reading, *, complete: bool
) -> tuple[tuple[Sentence, ...], Reading]:
    """Sentences behind `reading` that have ended, and how far that leads."""
    offset, in_code = reading.offset, reading.in_code
    found: list[Sentence] = []
    while offset < len(text):
        match = _END.search(text, offset)
        if match is not None:
            end = max(match.end(), offset + 1)
        elif complete:
            end = len(text)
        elif len(text) - offset > MAX_OPEN_CHARS:
            end = offset + MAX_OPEN_CHARS
        else:
            break
        piece = text[offset:end]
        if piece.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code and (new := sentence(piece, label=label, end=end)):
            found.append(new)
        offset = end
    return tuple(found), Reading(offset, in_code)


def _stem(word: str) -> str:
    """Crude and fast: plural and verb endings off, enough to match "lists" with "list"."""
    word = word.removesuffix("'s").removesuffix("’s")
    for ending in ("ing", "ies", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word
