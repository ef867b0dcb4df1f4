"""From what a synthesizer wrote to the document: checks, edits, blocks, and who says what.

Pure: given a state and a version with its whole text.
"""

import re
from dataclasses import replace

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
from orchestration.domain.labelling import take_citations
from orchestration.domain.output_checks import Unusable, new_paragraphs, says_nothing_new, usable
from orchestration.domain.synthesis_state import State, Version

_CONTACT = re.compile(r"https?://[^\s)>\]\"'`]+|[\w.+-]+@[\w-]+\.[\w.-]+")
_SENTENCE_END = re.compile(r"[.!?…:)\]`|*\"”»。！？]\s*\Z")
_LAST_SENTENCE = re.compile(
    r"\A(.*[.!?。！？][\"')\]*]*(?:[ \t]*\[[^\[\]\n]{1,20}\])*)(?=\s)", re.S
)
_STATUS_BY_SUPPORT: tuple[Status, Status, Status] = ("unsupported", "single", "agreed")


def document_of(state: State, version: Version, shown: dict[str, str]) -> tuple[Document, set[str]]:
    """(the document `version` makes, ids of its new or changed blocks). Raises PatchRejected."""
    if version.kind == "patch":
        base, ops = parse_ops(version.text)
        if base not in (None, version.base_version) or (
            version.base_version != state.document.version
        ):
            raise PatchRejected("another base version")
        ops = _useful(ops, state.document.text)
        document, changed = apply_ops(state.document, version.version, ops)
        return attributed(state, document, version, shown, only=changed)
    texts = split_blocks(_new_text(state, version))
    if version.kind == "rewrite":
        document = rewritten(state.document, version.version, new_paragraphs(texts))
    else:
        written = [block.md for block in state.document.blocks]
        document = appended(state.document, version.version, new_paragraphs(texts, written))
    return attributed(state, document, version, shown)


def kept(text: str) -> str:
    """The whole sentences of a text that was stopped; empty when they are of no use."""
    try:
        return _without_open_sentence(usable(text))
    except Unusable:
        return ""


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


def attributed(
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


def _without_open_sentence(text: str) -> str:
    """Text that ends with a whole sentence: a length-bounded step may stop in the middle of one,
    and the next step would go on as if it were complete."""
    text = text.strip()
    if not text or _SENTENCE_END.search(text) or "```" in text:
        return text
    whole = _LAST_SENTENCE.match(text)
    return whole[1] if whole else text
