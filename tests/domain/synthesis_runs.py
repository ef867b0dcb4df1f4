"""Set-up for tests of the synthesis: legs, a scripted synthesizer, and readings of a trace."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from orchestration.domain.synthesis import (
    Fact,
    Finalise,
    FinishRun,
    StartSynthesis,
    State,
    apply,
)
from orchestration.domain.virtual_clock import Leg, Trace, Written

_WORDS = """
harbour lantern orchard granite velvet copper meadow whisper compass thunder saffron marble willow
ember quarry tundra falcon ribbon anchor cinder glacier bramble summit prairie
"""
WORDS = _WORDS.split()


def sentence(number: int, of: str = "") -> str:
    """A sentence whose words no other number shares; the same number is the same claim."""
    # Letters only: numbers in the text would be read as figures to be compared.
    words = [f"{WORDS[(number * 5 + i) % len(WORDS)]}{_letters(number)}" for i in range(7)]
    return f"The {of}{words[0]} keeps every {' '.join(words[1:])}."


def text_of(*numbers: int) -> str:
    return " ".join(sentence(number) for number in numbers)


def leg(
    label: str,
    text: str,
    *,
    first_s: float = 1.0,
    end_s: float = 5.0,
    fails: str | None = None,
    pieces: int = 20,
) -> Leg:
    """A call that streams `text` evenly from `first_s` to `end_s`."""
    size = max(1, -(-len(text) // pieces))
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    step = (end_s - first_s) / max(len(parts), 1)
    chunks = tuple((first_s + step * i, part) for i, part in enumerate(parts))
    return Leg(label, chunks, end_s, fails)


def edits(base: int, *ops: Mapping[str, object]) -> str:
    return json.dumps({"base_version": base, "ops": list(ops)})


@dataclass
class Scripted:
    """A synthesizer that answers after `after_s`: `script[version]` is a text, or an exception's
    worth of kind as ("fails", kind); otherwise it repeats the sources (as an edit for patches)."""

    script: dict[int, str | tuple[str, str]] = field(default_factory=dict)
    after_s: float = 1.0
    asked: list[StartSynthesis] = field(default_factory=list)

    def write(self, command: StartSynthesis, state: State) -> Written:
        self.asked.append(command)
        said = self.script.get(command.version, self.default(command, state))
        if isinstance(said, tuple):
            return Written(((self.after_s / 2, "Half a"),), self.after_s, said[1])
        return Written(((self.after_s / 2, said),), self.after_s)

    def default(self, command: StartSynthesis, state: State) -> str:
        base = state.documents.get(command.base_version)
        said = " ".join(state.calls[s.label].text[: s.chars] for s in command.sources)
        if command.kind != "patch":
            return said
        last = base.blocks[-1].id if base else state.document.blocks[-1].id
        return edits(command.base_version, {"op": "insert_after", "block": last, "md": said})


def started(trace: Trace) -> list[StartSynthesis]:
    return [c for _, c in trace.issued if isinstance(c, StartSynthesis)]


def finals(trace: Trace) -> list[tuple[float, Finalise]]:
    return [(t, c) for t, c in trace.issued if isinstance(c, Finalise)]


def ends(trace: Trace) -> list[FinishRun]:
    return [c for _, c in trace.issued if isinstance(c, FinishRun)]


def fold(log: list[tuple[float, Fact]], start: State | None = None) -> State:
    state = start or State()
    for at_s, fact in log:
        state = apply(state, fact, at_s)
    return state


def when(trace: Trace, wanted: Callable[[Fact], bool]) -> float | None:
    return next((at_s for at_s, fact in trace.log if wanted(fact)), None)


def _letters(number: int) -> str:
    letters = ""
    while True:
        number, digit = divmod(number, 26)
        letters = chr(97 + digit) + letters
        if not number:
            return letters
