"""The vocabulary of a run's synthesis: facts, commands, and the state the facts fold to.

Times (`*_s`) are seconds on the run's clock, 0 = run start. Offsets and sizes count code points.
A `label` names one call ("A"); "v3" names the stream of synthesis version 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from orchestration.domain.document import Document
from orchestration.domain.overlap import Overlap, Sentence

Kind = Literal["draft", "patch", "rewrite"]
Trigger = Literal[
    "chunks",
    "first_answer",
    "new_answer",
    "new_claims",
    "dispute",
    "quorum",
    "all",
    "deadline",
    "patch_rejected",
]
Mode = Literal["promote", "rewrite", "single"]
FinalStatus = Literal["done", "degraded", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Source:
    """The first `chars` characters of an answer."""

    label: str
    chars: int


# --- facts: what happened -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunStarted:
    labels: tuple[str, ...]
    seed: str = ""
    """Random and unknown to every candidate model (>= 128 bits): the prompt's fences and the
    shuffled labels come from it. Never published."""
    deadline_s: float | None = None
    """Everything ends here. The final is begun early enough to be ready."""


@dataclass(frozen=True, slots=True)
class CallStarted:
    label: str
    attempt: int = 1
    """A higher attempt than before starts the answer's text over."""


@dataclass(frozen=True, slots=True)
class CallChunk:
    label: str
    text: str
    offset: int | None = None
    """Where `text` begins in the answer; with it a repeated delivery changes nothing."""


@dataclass(frozen=True, slots=True)
class CallFinished:
    label: str


@dataclass(frozen=True, slots=True)
class CallFailed:
    label: str
    kind: str


@dataclass(frozen=True, slots=True)
class SynthesisStarted:
    version: int
    kind: Kind
    base_version: int
    sources: tuple[Source, ...]
    trigger: Trigger
    late: bool = False


@dataclass(frozen=True, slots=True)
class SynthesisDelta:
    version: int
    text: str
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class SynthesisFinished:
    version: int
    text: str
    """The whole text as the model wrote it."""


@dataclass(frozen=True, slots=True)
class SynthesisFailed:
    version: int
    kind: str


@dataclass(frozen=True, slots=True)
class CancelRequested:
    label: str
    reason: str


@dataclass(frozen=True, slots=True)
class Finalised:
    version: int | None
    mode: Mode
    label: str | None = None
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class StopRequested:
    pass


@dataclass(frozen=True, slots=True)
class RunFinished:
    status: FinalStatus
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """Nothing but time has passed."""


Fact = (
    RunStarted
    | CallStarted
    | CallChunk
    | CallFinished
    | CallFailed
    | SynthesisStarted
    | SynthesisDelta
    | SynthesisFinished
    | SynthesisFailed
    | CancelRequested
    | Finalised
    | StopRequested
    | RunFinished
    | Tick
)


# --- commands: what to do -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartSynthesis:
    """Call the synthesizer. `sources` is everything the new version will rest on, what its base
    rests on included, so sources(version) contains sources(base_version).

    draft: with base_version 0 a new text, else the next part behind the base; patch: edits of the
    base; rewrite: a new text from the sources (base_version 0), shown when it is complete."""

    version: int
    kind: Kind
    base_version: int
    sources: tuple[Source, ...]
    trigger: Trigger
    late: bool = False


@dataclass(frozen=True, slots=True)
class CancelCall:
    label: str
    """A call's label, or "v<N>" for synthesis version N."""
    reason: str


@dataclass(frozen=True, slots=True)
class Finalise:
    """The document now in the state is the answer, or with mode "single" the answer of `label`,
    verbatim. Comes once; later versions only amend."""

    version: int | None
    mode: Mode
    label: str | None = None
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class FinishRun:
    status: FinalStatus
    reason: str | None = None


Command = StartSynthesis | CancelCall | Finalise | FinishRun


# --- state --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    label: str
    status: Literal["open", "finished", "failed"] = "open"
    text: str = ""
    attempt: int = 0
    first_s: float | None = None
    ended_s: float | None = None
    others: Mapping[str, int] = field(default_factory=dict)
    """Characters every call had written when this one finished."""
    kind: str | None = None
    """Error kind of a failed call."""
    cancelling: bool = False

    @property
    def cut(self) -> bool:
        """Ended by us or the user: what it said until then is still good."""
        return self.status == "failed" and (self.kind or "").startswith("stop.")


@dataclass(frozen=True, slots=True)
class Version:
    version: int
    kind: Kind
    base_version: int
    sources: tuple[Source, ...]
    trigger: Trigger
    late: bool
    started_s: float
    first_s: float | None = None
    ended_s: float | None = None
    state: Literal["running", "applied", "rejected", "failed"] = "running"
    reason: str | None = None
    """Error kind of a failed version, or why its edits were rejected."""
    text: str = ""
    """What the model wrote, raw; of a running version what it wrote so far."""
    changed: tuple[str, ...] = ()
    """Ids of the blocks this version added or changed."""
    cancelling: bool = False

    @property
    def is_step(self) -> bool:
        """A step of the staircase: its own length is bounded, so it may have had to leave out
        claims of its sources."""
        return is_step(self)


@dataclass(frozen=True, slots=True)
class Final:
    version: int | None
    mode: Mode
    label: str | None
    degraded: bool
    at_s: float


@dataclass(frozen=True, slots=True)
class State:
    labels: tuple[str, ...] = ()
    seed: str = field(default="", repr=False)
    deadline_s: float | None = None
    now_s: float = 0.0
    calls: Mapping[str, Call] = field(default_factory=dict)
    overlap: Overlap = field(default_factory=Overlap, repr=False)
    document: Document = field(default_factory=Document)
    written: tuple[Sentence, ...] = field(default=(), repr=False)
    """The document's sentences."""
    stated: frozenset[int] = frozenset()
    """Ids of the overlap's claims that the document states."""
    documents: Mapping[int, Document] = field(default_factory=dict, repr=False)
    """The document as each applied version left it; an answer shown verbatim is version 0."""
    versions: tuple[Version, ...] = ()
    stop_requested: bool = False
    final: Final | None = None
    finished: RunFinished | None = None

    @property
    def running(self) -> Version | None:
        last = self.versions[-1] if self.versions else None
        return last if last is not None and last.state == "running" else None

    @property
    def applied(self) -> tuple[Version, ...]:
        return tuple(v for v in self.versions if v.state == "applied")

    @property
    def lineage(self) -> tuple[Version, ...]:
        """The versions the document was made by, the oldest first."""
        return lineage(self.versions, self.document.version)

    @property
    def open(self) -> tuple[Call, ...]:
        return tuple(c for c in self.calls.values() if c.status == "open")

    @property
    def answers(self) -> tuple[Call, ...]:
        """Finished calls, in the order they finished."""
        done = [c for c in self.calls.values() if c.status == "finished"]
        return tuple(sorted(done, key=lambda c: c.ended_s or 0.0))

    @property
    def amended(self) -> bool:
        return self.final is not None and any(v.late for v in self.applied)

    def version(self, number: int) -> Version | None:
        return self.versions[number - 1] if 0 < number <= len(self.versions) else None


def is_step(call: Version | StartSynthesis | SynthesisStarted) -> bool:
    return call.kind == "draft" and call.trigger in ("chunks", "first_answer")


def lineage(versions: tuple[Version, ...], number: int) -> tuple[Version, ...]:
    """Version `number` and what it was built on, the oldest first; empty for 0."""
    chain: list[Version] = []
    while number:
        chain.append(versions[number - 1])
        number = chain[-1].base_version
    return tuple(reversed(chain))


def given(state: State) -> dict[str, int]:
    """Characters of each answer that the document's lineage was shown."""
    made_by = state.version(state.document.version)
    return {s.label: s.chars for s in made_by.sources} if made_by else {}


def considered(state: State) -> dict[str, int]:
    """As `given`, but only where the synthesizer was free to use all of it."""
    for version in reversed(state.lineage):
        if not version.is_step:
            return {s.label: s.chars for s in version.sources}
    return {}


def readable(state: State, label: str) -> int:
    """Characters of an answer that can be shown to the synthesizer: all of a finished one, else
    up to the end of the last complete sentence."""
    call = state.calls[label]
    if call.status == "finished":
        return len(call.text)
    reading = state.overlap.readings.get(label)
    return reading.offset if reading else 0
