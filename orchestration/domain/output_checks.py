"""What a synthesizer wrote, before it becomes part of the document: is it text at all?

Small models, and large ones on a bad day, repeat a sentence until the token limit, copy the prompt
they were given, or return marks without words. None of that may reach the page. The checks are
deterministic and the same for every model; whoever fails them is treated as a call that failed.

A loop is found by its words: runs of `GRAM` words that came before. Said twice it may be style (a
refrain, a definition taken up again); a long stretch said three times, or nearly half of a text
said twice, is a loop. Code and tables repeat themselves by nature and are left alone.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import accumulate

from orchestration.domain.plain_prompts import INSTRUCTIONS as PLAIN_INSTRUCTIONS
from orchestration.domain.prompts import INSTRUCTIONS as QUOTED_INSTRUCTIONS

NO_WORDS = "it has no words"
REPEATS = "it repeats itself"
COPIES_PROMPT = "it copies its prompt"
REPEATS_FENCE = "it repeats its fence"

GRAM = 5
"""Words of one run: shorter ones repeat in any text about one thing."""
LOOP_WORDS = 36
"""A loop is at least so many words said for the third time or more …"""
LOOP_SHARE = 0.25
"""… and this share of the text: the chorus of a song is less."""
TWICE_SHARE = 0.4
"""Or this share of the text is repetition of any kind; of a song's words it is a third."""
STRETCH_WORDS = 20
REPEATED = 0.8
"""A stretch of `STRETCH_WORDS` is repetition when this share of it was said before."""
PARAGRAPH_WORDS = 20
LEAST_KEPT_WORDS = 12
"""What stands before a loop is kept from this length on."""
COPIED_WORDS = 9
"""So many words in a row of our own instructions are no coincidence."""

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\d_]+")
_MARKER = r"\s*</?[a-z]-[0-9a-f]{6,}>?[ \t]*"
_MARKER_LINE = re.compile(rf"\A{_MARKER}(?:\n|\Z)|\n{_MARKER}\Z")
_QUOTED_ROW = re.compile(r'\{\s*"label"\s*:\s*"[^"]{0,40}"\s*,\s*"text"\s*:')
_CODE_OR_TABLE = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1|\Z)|^[ \t]*\|.*?$", re.M | re.S)
_ALNUM = re.compile(r"[^\W_]")
_SENTENCE = re.compile(r"[.!?…。！？][\"'”’)\]*]*(?=\s|\Z)|[。！？]")


class Unusable(ValueError):
    """The text may not become part of the document. The message is one of the fixed reasons."""


def usable(text: str) -> str:
    """The part of a written text that may be shown: without prompt markers around it, up to where
    it begins to loop. Raises Unusable."""
    text = without_markers(text)
    if not _ALNUM.search(text):
        raise Unusable(NO_WORDS)
    if _QUOTED_ROW.search(text) or copies_instructions(text):
        raise Unusable(COPIES_PROMPT)
    start = loop_start(text)
    if start is None:
        return text
    kept = _whole_sentences(text[:start])
    if len(_WORD.findall(kept)) < LEAST_KEPT_WORDS:
        raise Unusable(REPEATS)
    return kept


def without_markers(text: str) -> str:
    """The text without marker lines before and behind it: a model that closes what it saw opened
    has done no harm, one that uses a marker in the middle has."""
    before = None
    while before != text:
        before, text = text, _MARKER_LINE.sub("", text).strip()
    return text


def loop_start(text: str) -> int | None:
    """Where a text that loops begins to repeat itself, as an offset in code points; None when it
    does not loop. Nothing says that what follows a loop is any better than the loop."""
    prose = _CODE_OR_TABLE.sub(lambda match: " " * len(match[0]), text)
    found = list(_WORD.finditer(prose))
    counts = _earlier_runs([match[0].casefold() for match in found])
    again = [0, *accumulate(count >= 1 for count in counts)]
    thrice = sum(count >= 2 for count in counts)
    if thrice < max(LOOP_WORDS, LOOP_SHARE * len(counts)) and (
        again[-1] < max(LOOP_WORDS, TWICE_SHARE * len(counts))
    ):
        return None
    for at, count in enumerate(counts):
        end = min(at + STRETCH_WORDS, len(counts))
        if count and again[end] - again[at] >= REPEATED * (end - at):
            return found[at].start()
    return found[next(at for at, count in enumerate(counts) if count)].start()


def says_nothing_new(text: str, written: str) -> bool:
    """Whether a text is, nearly word for word, made of what is written already."""
    old, new = _fold(written), _fold(text)
    if len(new) < GRAM:
        return " ".join(new) in " ".join(old)
    counts = _earlier_runs(old + new)[len(old) :]
    return sum(count >= 1 for count in counts) >= REPEATED * len(new)


def new_paragraphs(blocks: Iterable[str], written: Iterable[str] = ()) -> tuple[str, ...]:
    """The blocks without paragraphs that stand before them or in `written`, word for word. Only
    prose of `PARAGRAPH_WORDS` words on one line: a chorus and a line of code come again."""
    known = {_fold(block) for block in written}
    kept = []
    for block in blocks:
        words = _fold(block)
        if len(words) < PARAGRAPH_WORDS or "\n" in block or words not in known:
            kept.append(block)
        known.add(words)
    return tuple(kept)


def copies_instructions(text: str) -> bool:
    return any(run in _OURS for run in _runs(_fold(text), COPIED_WORDS))


def _fold(text: str) -> tuple[str, ...]:
    return tuple(word.casefold() for word in _WORD.findall(text))


def _earlier_runs(words: Sequence[str]) -> list[int]:
    """Per word: how often the best-known run of `GRAM` words that covers it occurred before."""
    counts = [0] * len(words)
    seen: dict[tuple[str, ...], int] = {}
    for at, run in enumerate(_runs(words, GRAM)):
        before = seen.get(run, 0)
        seen[run] = before + 1
        for index in range(at, at + GRAM):
            counts[index] = max(counts[index], before)
    return counts


def _whole_sentences(text: str) -> str:
    """The text up to its last sentence end; all of it when it has none."""
    ends = [match.end() for match in _SENTENCE.finditer(text)]
    return text[: max(ends, default=0)].rstrip() or text.rstrip()


def _runs(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + length]) for at in range(len(words) - length + 1)]


_OURS = frozenset(
    run
    for text in (*QUOTED_INSTRUCTIONS, *PLAIN_INSTRUCTIONS)
    for run in _runs(_fold(text), COPIED_WORDS)
)
