"""Blocks and edits: an edit applies whole or not at all."""

import json

import pytest

from orchestration.domain.document import (
    Block,
    Document,
    Op,
    PatchRejected,
    appended,
    apply_ops,
    parse_ops,
    rewritten,
    split_blocks,
)

DOCUMENT = appended(Document(), 1, ["One.", "Two.", "Three.", "Four.", "Five."])


def texts(document: Document) -> list[str]:
    return [block.md for block in document.blocks]


class TestBlocks:
    def test_paragraphs_lists_and_headings_are_blocks(self) -> None:
        md = "# Title\n\nText of\ntwo lines.\n\n\n- one\n- two\n"
        assert split_blocks(md) == ("# Title", "Text of\ntwo lines.", "- one\n- two")

    def test_fenced_code_stays_whole(self) -> None:
        code = "```python\na = 1\n\n\nb = 2\n```"
        assert split_blocks(f"Before.\n\n{code}\n\nAfter.") == ("Before.", code, "After.")

    def test_an_open_fence_takes_the_rest(self) -> None:
        assert len(split_blocks("```\na\n\nb")) == 1

    def test_the_text_is_the_blocks_with_blank_lines_between(self) -> None:
        assert DOCUMENT.text == "One.\n\nTwo.\n\nThree.\n\nFour.\n\nFive."

    def test_a_rewrite_keeps_the_ids_of_blocks_that_did_not_change(self) -> None:
        new = rewritten(DOCUMENT, 2, ["New.", "Two.", "Two."])
        assert [b.id for b in new.blocks] == ["b6", "b2", "b8"]
        assert len({b.id for b in new.blocks}) == 3


class TestApplying:
    def test_replace_insert_and_delete(self) -> None:
        ops = (
            Op("replace", "b1", "1."),
            Op("insert_after", "b2", "2.5."),
            Op("delete", "b3"),
            Op("noop"),
        )
        document, changed = apply_ops(DOCUMENT, 2, ops)
        assert texts(document) == ["1.", "Two.", "2.5.", "Four.", "Five."]
        assert changed == {"b1", "b6"}
        assert document.version == 2

    def test_insertions_behind_one_block_keep_their_order(self) -> None:
        ops = (Op("insert_after", "b1", "a\n\nb"), Op("insert_after", "b1", "c"))
        assert texts(apply_ops(DOCUMENT, 2, ops)[0])[:4] == ["One.", "a", "b", "c"]

    def test_ids_are_never_used_twice(self) -> None:
        first, _ = apply_ops(DOCUMENT, 2, [Op("insert_after", "b5", "Six.")])
        second, _ = apply_ops(first, 3, [Op("delete", "b6"), Op("insert_after", "b5", "6.")])
        assert second.blocks[-1].id == "b7"

    def test_the_same_text_is_no_change(self) -> None:
        document, changed = apply_ops(DOCUMENT, 2, [Op("replace", "b1", " One. ")])
        assert changed == set()
        assert document.blocks == DOCUMENT.blocks

    @pytest.mark.parametrize(
        ("ops", "reason"),
        [
            ([Op("replace", "b9", "x")], "unknown block"),
            ([Op("insert_after", "", "x")], "unknown block"),
            ([Op("insert_after", "b5", "x"), Op("replace", "b6", "y")], "block edited twice"),
            ([Op("replace", "b1", "x"), Op("delete", "b1")], "block edited twice"),
            ([Op("delete", "b1"), Op("delete", "b1")], "block edited twice"),
            ([Op("delete", "b1"), Op("insert_after", "b1", "x")], "block edited twice"),
            ([Op("delete", f"b{n}") for n in (1, 2, 3, 4)], "too much changed"),
        ],
    )
    def test_an_edit_that_does_not_fit_rejects_all(self, ops: list[Op], reason: str) -> None:
        fitting = Op("insert_after", "b2", "Fine.")
        apply_ops(DOCUMENT, 2, [fitting])
        with pytest.raises(PatchRejected, match=reason):
            apply_ops(DOCUMENT, 2, [fitting, *ops])

    def test_a_small_document_may_change_altogether_but_not_vanish(self) -> None:
        small = appended(Document(), 1, ["One.", "Two."])
        apply_ops(small, 2, [Op("replace", "b1", "1."), Op("replace", "b2", "2.")])
        with pytest.raises(PatchRejected, match="nothing left"):
            apply_ops(small, 2, [Op("delete", "b1"), Op("delete", "b2")])


EDIT = {"op": "replace", "block": "b1", "md": "1.", "sources": ["A"]}
PARSED = Op("replace", "b1", "1.", ("A",))


class TestParsing:
    @pytest.mark.parametrize(
        "text",
        [
            json.dumps({"base_version": 3, "ops": [EDIT]}),
            json.dumps([{**EDIT, "base_version": 3}]),
            json.dumps({**EDIT, "base_version": 3}),
            "```json\n" + json.dumps({"base_version": 3, "ops": [EDIT]}) + "\n```",
            json.dumps({**EDIT, "base_version": 3}) + "\n",
        ],
        ids=["object", "array", "one edit", "in a fence", "one line"],
    )
    def test_every_shape_models_use_is_read(self, text: str) -> None:
        assert parse_ops(text) == (3, (PARSED,))

    def test_one_edit_a_line_is_read_and_the_base_is_optional(self) -> None:
        lines = "\n".join([json.dumps(EDIT), '{"op": "noop"}'])
        assert parse_ops(lines) == (None, (PARSED, Op("noop")))

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("I cannot do that.", "not JSON"),
            ("", "no edits"),
            ("[]", "no edits"),
            ('"text"', "an edit is not an object"),
            ('[{"op": "explode", "block": "b1"}]', "unknown edit"),
            ('[{"op": "replace", "block": 1, "md": "x"}]', "unknown block"),
            ('[{"op": "replace", "block": "b1", "md": " "}]', "an edit has no text"),
            ('[{"op": "replace", "block": "b1", "md": ["x"]}]', "an edit has no text"),
            ('{"base_version": "3", "ops": [{"op": "noop"}]}', "base version is not a number"),
            ('{"base_version": true, "ops": [{"op": "noop"}]}', "base version is not a number"),
            ("[" * 100_000, "not JSON"),
            (json.dumps([EDIT] * 41), "too many edits"),
        ],
    )
    def test_anything_else_is_rejected_with_a_fixed_reason(self, text: str, reason: str) -> None:
        with pytest.raises(PatchRejected, match=f"^{reason}$"):
            parse_ops(text)


def test_a_block_says_unsupported_until_someone_is_found() -> None:
    assert Block("b1", "x").status == "unsupported"
