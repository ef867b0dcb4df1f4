"""The fold: state + fact = state. Nothing is decided here and nothing is forgotten.

Facts that repeat what is known, come too late or name what does not exist change nothing, so a
log may be delivered twice.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, cast

from orchestration.domain import overlap as overlaps
from orchestration.domain.document import (
    Block,
    Document,
    PatchRejected,
    appended,
    split_blocks,
)
from orchestration.domain.labelling import aliases, fence
from orchestration.domain.output_checks import (
    NO_WORDS,
    REPEATS_FENCE,
    Unusable,
    without_markers,
)
from orchestration.domain.revising import attributed, document_of, kept
from orchestration.domain.synthesis_state import (
    Call,
    CallChunk,
    CallFailed,
    CallFinished,
    CallStarted,
    CancelRequested,
    Fact,
    Final,
    Finalised,
    RunFinished,
    RunStarted,
    State,
    StopRequested,
    SynthesisDelta,
    SynthesisFailed,
    SynthesisFinished,
    SynthesisStarted,
    Tick,
    Version,
    lineage,
)


def apply(state: State, fact: Fact, now: float) -> State:
    """The state after `fact` at `now` (seconds on the run's clock, never running backwards)."""
    state = replace(state, now_s=max(state.now_s, now))
    if state.finished or isinstance(fact, Tick):
        return state
    return cast(Callable[[State, Fact], State], _FOLDS[type(fact)])(state, fact)


def _run_started(state: State, fact: RunStarted) -> State:
    if state.labels:
        return state
    calls = {label: Call(label) for label in fact.labels}
    return replace(
        state, labels=fact.labels, seed=fact.seed, deadline_s=fact.deadline_s, calls=calls
    )


# --- calls --------------------------------------------------------------------------------------


def _call_started(state: State, fact: CallStarted) -> State:
    call = state.calls.get(fact.label)
    if call is None or call.status != "open" or fact.attempt <= call.attempt:
        return state
    if call.text:
        state = replace(state, overlap=overlaps.without(state.overlap, fact.label))
        state = _with_document(state, state.document)
    return _with_call(state, replace(call, attempt=fact.attempt, text="", first_s=None))


def _call_chunk(state: State, fact: CallChunk) -> State:
    call = state.calls.get(fact.label)
    if call is None or call.status != "open":
        return state
    text = _joined(call.text, fact.text, fact.offset)
    if text == call.text:
        return state
    first = state.now_s if call.first_s is None else call.first_s
    state = _with_call(state, replace(call, text=text, first_s=first))
    return _read(state, fact.label, complete=False)


def _call_finished(state: State, fact: CallFinished) -> State:
    call = state.calls.get(fact.label)
    if call is None or call.status != "open":
        return state
    if not call.text.strip():
        return _call_failed(state, CallFailed(fact.label, "bad_upstream_response"))
    others = {other.label: len(other.text) for other in state.calls.values()}
    call = replace(call, status="finished", ended_s=state.now_s, others=others)
    state = _with_call(state, call)
    return _read(state, fact.label, complete=True)


def _call_failed(state: State, fact: CallFailed) -> State:
    call = state.calls.get(fact.label)
    if call is None or call.status != "open":
        return state
    return _with_call(state, replace(call, status="failed", kind=fact.kind, ended_s=state.now_s))


def _with_call(state: State, call: Call) -> State:
    return replace(state, calls={**state.calls, call.label: call})


def _read(state: State, label: str, *, complete: bool) -> State:
    """Let the overlap read on, and note which new sentences the document already states."""
    before = state.overlap
    after = overlaps.feed(before, label, state.calls[label].text, complete=complete)
    if after is before:
        return state
    known = before.claims
    grown = [c for i, c in enumerate(after.claims) if i >= len(known) or known[i] is not c]
    stated = state.stated
    if grown and state.written:
        stated |= overlaps.stated_by(grown, state.written)
    return replace(state, overlap=after, stated=stated)


# --- synthesis ----------------------------------------------------------------------------------


def _synthesis_started(state: State, fact: SynthesisStarted) -> State:
    if fact.version != len(state.versions) + 1 or state.running:
        return state
    version = Version(
        fact.version,
        fact.kind,
        fact.base_version,
        fact.sources,
        fact.trigger,
        fact.late,
        state.now_s,
    )
    return replace(state, versions=(*state.versions, version))


def _synthesis_delta(state: State, fact: SynthesisDelta) -> State:
    version = state.running
    if version is None or version.version != fact.version:
        return state
    text = _joined(version.text, fact.text, fact.offset)
    first = state.now_s if version.first_s is None else version.first_s
    return _with_version(state, replace(version, text=text, first_s=first))


def _synthesis_finished(state: State, fact: SynthesisFinished) -> State:
    version = state.running
    if version is None or version.version != fact.version:
        return state
    version = replace(version, text=fact.text, ended_s=state.now_s)
    chain = (*lineage(state.versions, version.base_version), version)
    root = chain[0].version
    if fence(state.seed, root) in without_markers(fact.text):
        # Whoever repeats the fence may have been talked into closing it.
        return _ended(state, version, "failed", REPEATS_FENCE)
    try:
        document, changed = document_of(state, version, aliases(state.seed, root, state.labels))
    except PatchRejected as rejection:
        return _ended(state, version, "rejected", str(rejection))
    except Unusable as fault:
        return _ended(state, version, "failed", str(fault))
    if not document.blocks:
        return _ended(state, version, "failed", NO_WORDS)
    ids = tuple(block.id for block in document.blocks if block.id in changed)
    state = _with_version(state, replace(version, state="applied", changed=ids))
    return _revised(state, document)


def _synthesis_failed(state: State, fact: SynthesisFailed) -> State:
    version = state.running
    if version is None or version.version != fact.version:
        return state
    version = replace(version, ended_s=state.now_s)
    said = kept(version.text)
    if fact.kind in ("stop.user", "deadline") and version.kind == "draft" and said:
        # The reader has seen this text and nothing better will come: keep it.
        document = appended(state.document, version.version, split_blocks(said))
        document, changed = attributed(state, document, version, {})
        reason = fact.kind
        kept_version = replace(version, state="applied", reason=reason, changed=tuple(changed))
        return _revised(_with_version(state, kept_version), document)
    return _ended(state, version, "failed", fact.kind)


def _ended(
    state: State, version: Version, how: Literal["failed", "rejected"], reason: str
) -> State:
    return _with_version(state, replace(version, state=how, reason=reason))


def _with_version(state: State, version: Version) -> State:
    return replace(state, versions=(*state.versions[:-1], version))


def _revised(state: State, document: Document) -> State:
    state = replace(state, documents={**state.documents, document.version: document})
    return _with_document(state, document)


def _with_document(state: State, document: Document) -> State:
    written = overlaps.sentences(document.text)
    stated = overlaps.stated_by(state.overlap.claims, written)
    return replace(state, document=document, written=written, stated=stated)


# --- ends ---------------------------------------------------------------------------------------


def _cancel_requested(state: State, fact: CancelRequested) -> State:
    if fact.label in state.calls:
        return _with_call(state, replace(state.calls[fact.label], cancelling=True))
    if state.running and fact.label == f"v{state.running.version}":
        return _with_version(state, replace(state.running, cancelling=True))
    return state


def _finalised(state: State, fact: Finalised) -> State:
    if state.final:
        return state
    final = Final(fact.version, fact.mode, fact.label, fact.degraded, state.now_s)
    state = replace(state, final=final)
    if fact.mode != "single" or fact.label is None or fact.label not in state.calls:
        return state
    # Verbatim means one block: cutting and joining could change the blank lines.
    block = Block(f"b{state.document.next_block}", state.calls[fact.label].text)
    block = replace(block, sources=(fact.label,), status="single")
    # Version 0: made by no synthesis.
    return _revised(state, Document(0, (block,), state.document.next_block + 1))


def _stop_requested(state: State, fact: StopRequested) -> State:
    return replace(state, stop_requested=True)


def _run_finished(state: State, fact: RunFinished) -> State:
    return replace(state, finished=fact)


_FOLDS: dict[type, object] = {
    RunStarted: _run_started,
    CallStarted: _call_started,
    CallChunk: _call_chunk,
    CallFinished: _call_finished,
    CallFailed: _call_failed,
    SynthesisStarted: _synthesis_started,
    SynthesisDelta: _synthesis_delta,
    SynthesisFinished: _synthesis_finished,
    SynthesisFailed: _synthesis_failed,
    CancelRequested: _cancel_requested,
    Finalised: _finalised,
    StopRequested: _stop_requested,
    RunFinished: _run_finished,
}


def _joined(text: str, more: str, offset: int | None) -> str:
    """`text` with `more` at `offset`; what is already there is not added again. A gap cannot be
    filled by guessing, so text behind one is left out until the missing part comes."""
    if offset is None:
        return text + more
    if offset > len(text):
        return text
    return text + more[len(text) - offset :]
