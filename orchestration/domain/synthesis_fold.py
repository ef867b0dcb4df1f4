"""The fold: state + fact = state. Nothing is decided here and nothing is forgotten.

Facts that repeat what is known, come too late or name what does not exist change nothing, so a
log may be delivered twice.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, cast

from orchestration.domain import overlap as overlaps
from orchestration.domain.document import (
    Block,
    Document,
    Op,
    PatchRejected,
    Status,
    appended,
    apply_ops,
    parse_ops,
    rewritten,
    split_blocks,
    with_blocks,
)
from orchestration.domain.labelling import aliases, fence, take_citations
from orchestration.domain.output_checks import (
    NO_WORDS,
    REPEATS_FENCE,
    Unusable,
    new_paragraphs,
    says_nothing_new,
    usable,
    without_markers,
)
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

_CONTACT = re.compile(r"https?://[^\s)>\]\"'`]+|[\w.+-]+@[\w-]+\.[\w.-]+")
_SENTENCE_END = re.compile(r"[.!?…:)\]`|*\"”»。！？]\s*\Z")
_LAST_SENTENCE = re.compile(
    r"\A(.*[.!?。！？][\"')\]*]*(?:[ \t]*\[[^\[\]\n]{1,20}\])*)(?=\s)", re.S
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
        document, changed = _document(state, version, aliases(state.seed, root, state.labels))
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
    kept = _kept(version.text)
    if fact.kind in ("stop.user", "deadline") and version.kind == "draft" and kept:
        # The reader has seen this text and nothing better will come: keep it.
        document = appended(state.document, version.version, split_blocks(kept))
        document, changed = _attributed(state, document, version, {})
        reason = fact.kind
        kept_version = replace(version, state="applied", reason=reason, changed=tuple(changed))
        return _revised(_with_version(state, kept_version), document)
    return _ended(state, version, "failed", fact.kind)


def _kept(text: str) -> str:
    """The whole sentences of a text that was stopped; empty when they are of no use."""
    try:
        return _without_open_sentence(usable(text))
    except Unusable:
        return ""


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


def _document(state: State, version: Version, shown: dict[str, str]) -> tuple[Document, set[str]]:
    """(the document `version` makes, ids of its new or changed blocks). Raises PatchRejected."""
    if version.kind == "patch":
        base, ops = parse_ops(version.text)
        if base not in (None, version.base_version) or (
            version.base_version != state.document.version
        ):
            raise PatchRejected("another base version")
        ops = _useful(ops, state.document.text)
        document, changed = apply_ops(state.document, version.version, ops)
        return _attributed(state, document, version, shown, only=changed)
    texts = split_blocks(_new_text(state, version))
    if version.kind == "rewrite":
        document = rewritten(state.document, version.version, new_paragraphs(texts))
    else:
        written = [block.md for block in state.document.blocks]
        document = appended(state.document, version.version, new_paragraphs(texts, written))
    return _attributed(state, document, version, shown)


def _new_text(state: State, version: Version) -> str:
    """What a draft or rewrite adds to the page. Empty for a further part of the draft that only
    says again what is written. Raises Unusable."""
    further = version.kind == "draft" and bool(state.document.blocks)
    if further and not version.text.strip():
        return ""
    text = usable(version.text)
    if further and says_nothing_new(text, state.document.text):
        return ""
    return _without_open_sentence(text) if further or version.is_step else text


def _useful(ops: tuple[Op, ...], written: str) -> tuple[Op, ...]:
    """The edits without insertions that say again what is written. Raises PatchRejected where the
    text of one is no text."""
    kept = []
    for op in ops:
        if op.op in ("replace", "insert_after"):
            try:
                op = replace(op, md=usable(op.md))
            except Unusable as fault:
                raise PatchRejected(str(fault)) from None
        if op.op != "insert_after" or not says_nothing_new(op.md, written):
            kept.append(op)
    return tuple(kept)


def _attributed(
    state: State,
    document: Document,
    version: Version,
    shown: dict[str, str],
    only: set[str] | None = None,
) -> tuple[Document, set[str]]:
    """The document with provenance for its new blocks, and the ids of those."""
    old = {block.id: block for block in state.document.blocks}
    if only is None:
        only = {b.id for b in document.blocks if b.id not in old or old[b.id].md != b.md}
    allowed = {source.label for source in version.sources}
    new = with_blocks(
        document, lambda b: _provenance(state, b, allowed, shown) if b.id in only else b
    )
    blocks = tuple(block for block in new.blocks if block.md)
    return replace(new, blocks=blocks), only & {block.id for block in blocks}


def _provenance(state: State, block: Block, allowed: set[str], shown: dict[str, str]) -> Block:
    """Who says what a block says: by word overlap with every answer, plus the labels the model
    cites. Addresses that fewer than two answers contain make a block single or unsupported,
    whatever the words around them say."""
    md, cited = take_citations(block.md, shown)
    real = {alias: label for label, alias in shown.items()}
    agree = {label for label in cited if label in allowed}
    agree |= {real[alias] for alias in block.sources if real.get(alias) in allowed}
    oppose: set[str] = set()
    read = overlaps.sentences(md)
    for sentence in read:
        say_so, say_otherwise = overlaps.supporters(sentence, state.overlap.claims)
        agree |= say_so
        oppose |= say_otherwise
    if not read:
        agree |= {c.label for c in state.calls.values() if md and md in c.text}
    oppose -= agree
    status: Status = "disputed" if oppose else _STATUS_BY_SUPPORT[min(len(agree), 2)]
    if contacts := set(_CONTACT.findall(md)):
        know = [c.label for c in state.calls.values() if all(x in c.text for x in contacts)]
        if len(know) < 2 and status != "disputed":
            status = _STATUS_BY_SUPPORT[len(know)]
            agree = set(know)
    return replace(
        block, md=md, sources=tuple(sorted(agree)), disputes=tuple(sorted(oppose)), status=status
    )


_STATUS_BY_SUPPORT: tuple[Status, Status, Status] = ("unsupported", "single", "agreed")


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


def _without_open_sentence(text: str) -> str:
    """Text that ends with a whole sentence: a length-bounded step may stop in the middle of one,
    and the next step would go on as if it were complete."""
    text = text.strip()
    if not text or _SENTENCE_END.search(text) or "```" in text:
        return text
    whole = _LAST_SENTENCE.match(text)
    return whole[1] if whole else text
