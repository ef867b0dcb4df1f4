"""The synthesized text as a list of blocks, and the edits a model may make to it.

A block is a paragraph, a list, a heading or a fenced code block; its id never changes while its
text may. An edit names blocks of one base version and applies whole or not at all.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Status = Literal["agreed", "single", "disputed", "unsupported"]
OpName = Literal["replace", "insert_after", "delete", "noop"]

MAX_TOUCHED_SHARE = 0.6
"""A patch that replaces or deletes more of the blocks is a rewrite in disguise."""
SMALL_DOCUMENT_BLOCKS = 3
"""Up to this size any share may be touched: two edits of three blocks are ordinary."""
MAX_OPS = 40

_FENCE = re.compile(r"^\s*(```|~~~)")
_CODE_WRAP = re.compile(r"\A\s*```[a-z]*\s*\n(.*?)\n?\s*```\s*\Z", re.S)


@dataclass(frozen=True, slots=True)
class Block:
    id: str
    md: str
    sources: tuple[str, ...] = ()
    """Labels of the answers that say this, sorted."""
    disputes: tuple[str, ...] = ()
    """Labels of the answers that say otherwise, sorted."""
    status: Status = "unsupported"


@dataclass(frozen=True, slots=True)
class Document:
    version: int = 0
    blocks: tuple[Block, ...] = ()
    next_block: int = 1
    """Number of the next new block: ids are never used twice in a run."""

    @property
    def text(self) -> str:
        return "\n\n".join(block.md for block in self.blocks)


@dataclass(frozen=True, slots=True)
class Op:
    op: OpName
    block: str = ""
    md: str = ""
    sources: tuple[str, ...] = ()
    """Labels the model cites, as the model wrote them."""


class PatchRejected(ValueError):
    """The edit cannot be applied. The message is one of a few fixed reasons, free of model text."""


def split_blocks(md: str) -> tuple[str, ...]:
    """Paragraphs of a Markdown text, without the blank lines between; fenced code stays whole."""
    blocks: list[str] = []
    lines: list[str] = []
    fence = ""
    for line in md.split("\n"):
        if mark := _FENCE.match(line):
            fence = "" if fence == mark[1] else fence or mark[1]
        if line.strip() or fence:
            lines.append(line.rstrip())
        elif lines:
            blocks.append("\n".join(lines))
            lines = []
    if lines:
        blocks.append("\n".join(lines))
    return tuple(blocks)


def appended(document: Document, version: int, texts: Iterable[str]) -> Document:
    """The document with new blocks behind the old ones."""
    new = tuple(Block(f"b{document.next_block + index}", text) for index, text in enumerate(texts))
    return Document(version, document.blocks + new, document.next_block + len(new))


def rewritten(document: Document, version: int, texts: Iterable[str]) -> Document:
    """A document of new blocks only. A block whose text did not change keeps its id, so that a
    reader's page does not mark it as changed."""
    ids = {block.md: block.id for block in document.blocks}
    fresh = Document(version, (), document.next_block)
    for text in texts:
        kept = ids.pop(text, None)
        fresh = appended(fresh, version, [text])
        if kept is not None:
            last = replace(fresh.blocks[-1], id=kept)
            fresh = replace(fresh, blocks=(*fresh.blocks[:-1], last))
    return fresh


def edits_format(
    base_version: int,
    blocks: Sequence[str],
    *,
    labels: Sequence[str] = (),
    ops: Sequence[OpName] = ("replace", "insert_after", "delete", "noop"),
    max_ops: int = MAX_OPS,
    max_md_chars: int | None = None,
) -> dict[str, Any]:
    """The `response_format` of edits to one version: a decoder held to it can name no other
    version, block or label. Every property is required because strict schemas demand it; a bound
    on the text is for decoders that know one (OpenAI's strict mode refuses the keyword)."""
    md: dict[str, Any] = {"type": "string"}
    if max_md_chars is not None:
        md |= {"minLength": 1, "maxLength": max_md_chars}
    edit: dict[str, Any] = {
        "op": {"type": "string", "enum": list(ops)},
        "block": {"type": "string", "enum": list(blocks)},
        "md": md,
    }
    if labels:
        label = {"type": "string", "enum": list(labels)}
        edit["sources"] = {"type": "array", "maxItems": len(labels), "items": label}
    items = _closed_object(edit)
    edits = {"type": "array", "minItems": 1, "maxItems": max_ops, "items": items}
    schema = _closed_object(
        {"base_version": {"type": "integer", "const": base_version}, "ops": edits}
    )
    named = {"name": "edits", "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": named}


def _closed_object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }


def parse_ops(text: str) -> tuple[int | None, tuple[Op, ...]]:
    """(base version if the model named one, the edits). Reads {"base_version", "ops": [...]}, a
    bare array, and one object a line, each also inside a code fence.

    Raises PatchRejected."""
    if wrapped := _CODE_WRAP.match(text):
        text = wrapped[1]
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError):
        data = _json_lines(text)
    base = None
    if isinstance(data, dict) and "ops" in data:
        base, data = data.get("base_version"), data["ops"]
    rows = data if isinstance(data, list) else [data]
    if not rows:
        raise PatchRejected("no edits")
    if len(rows) > MAX_OPS:
        raise PatchRejected("too many edits")
    for row in rows:
        if isinstance(row, dict) and row.get("base_version") is not None:
            base = row["base_version"]
    if base is not None and type(base) is not int:
        raise PatchRejected("base version is not a number")
    return base, tuple(_op(row) for row in rows)


def apply_ops(document: Document, version: int, ops: Iterable[Op]) -> tuple[Document, set[str]]:
    """(the document after all edits, ids of the blocks that are new or changed).

    Only blocks of `document` can be named, not those the same patch adds. Raises PatchRejected
    when one edit does not apply; nothing is applied then."""
    blocks = list(document.blocks)
    next_block = document.next_block
    touched: set[str] = set()
    changed: set[str] = set()
    place = {block.id: block.id for block in blocks}
    for op in ops:
        if op.op == "noop":
            continue
        ids = [block.id for block in blocks]
        target = place.get(op.block) if op.op == "insert_after" else op.block
        if target not in ids:
            raise PatchRejected("block edited twice" if op.block in touched else "unknown block")
        index = ids.index(target)
        if op.op == "insert_after":
            for text in split_blocks(op.md):
                index += 1
                blocks.insert(index, Block(f"b{next_block}", text, op.sources))
                changed.add(f"b{next_block}")
                # The next insertion behind the same block follows this one: models list
                # insertions in reading order.
                place[op.block] = f"b{next_block}"
                next_block += 1
            continue
        if op.block not in place or op.block in touched:
            raise PatchRejected("block edited twice")
        touched.add(op.block)
        if op.op == "delete":
            del blocks[index]
        elif blocks[index].md != op.md.strip():
            blocks[index] = Block(op.block, op.md.strip(), op.sources)
            changed.add(op.block)
    total = len(document.blocks)
    if total > SMALL_DOCUMENT_BLOCKS and len(touched) > MAX_TOUCHED_SHARE * total:
        raise PatchRejected("too much changed")
    if not blocks:
        raise PatchRejected("nothing left")
    return Document(version, tuple(blocks), next_block), changed


def with_blocks(document: Document, change: Callable[[Block], Block]) -> Document:
    return replace(document, blocks=tuple(change(block) for block in document.blocks))


def _json_lines(text: str) -> list[Any]:
    lines = [line.strip().rstrip(",") for line in text.splitlines()]
    try:
        return [json.loads(line) for line in lines if line not in ("", "[", "]")]
    except (ValueError, RecursionError):
        raise PatchRejected("not JSON") from None


def _op(row: Any) -> Op:
    if not isinstance(row, dict):
        raise PatchRejected("an edit is not an object")
    match row.get("op"):
        case "noop":
            return Op("noop")
        case "replace" | "insert_after" | "delete" as name:
            pass
        case _:
            raise PatchRejected("unknown edit")
    block, md = row.get("block"), row.get("md", "")
    if not isinstance(block, str):
        raise PatchRejected("unknown block")
    if not isinstance(md, str) or (name != "delete" and not md.strip()):
        raise PatchRejected("an edit has no text")
    cited = row.get("sources")
    labels = cited if isinstance(cited, list) else []
    return Op(name, block, md, tuple(label for label in labels if isinstance(label, str)))
