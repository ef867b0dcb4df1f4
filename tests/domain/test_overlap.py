"""What the answers say alike and where they differ, from their words alone."""

import pytest

from orchestration.domain import overlap as overlaps
from orchestration.domain.overlap import Overlap, feed, sentences, view

LIMIT = "The default recursion limit of Python is 1000 frames."
MUTABLE = "Python lists are mutable objects and tuples are not."
ALONE = "Dictionaries keep the insertion order of their keys."


def read(**answers: str) -> Overlap:
    overlap = Overlap()
    for label, text in answers.items():
        overlap = feed(overlap, label, text, complete=True)
    return overlap


def test_what_two_say_is_agreed_and_what_one_says_is_counted() -> None:
    seen = view(read(A=f"{LIMIT} {MUTABLE}", B=f"{LIMIT} {ALONE}"))
    assert seen["agreed"] == [{"text": LIMIT, "labels": ["A", "B"]}]
    assert seen["single"] == {"A": 1, "B": 1}
    assert seen["disputed"] == []


def test_what_most_say_comes_first() -> None:
    answers = {"A": f"{MUTABLE} {LIMIT}", "B": f"{LIMIT} {MUTABLE}", "C": LIMIT}
    assert [row["labels"] for row in view(read(**answers))["agreed"]] == [
        ["A", "B", "C"],
        ["A", "B"],
    ]


@pytest.mark.parametrize(
    "other",
    [LIMIT.replace("1000", "3000"), LIMIT.replace("is 1000", "is not 1000")],
    ids=["another number", "the opposite"],
)
def test_the_same_words_with_another_number_or_sign_are_a_dispute(other: str) -> None:
    seen = view(read(A=LIMIT, B=other))
    variants = [{"label": "A", "text": LIMIT}, {"label": "B", "text": other}]
    assert seen["disputed"] == [{"variants": variants}]
    assert seen["agreed"] == []


def test_an_additional_number_is_no_dispute() -> None:
    more = LIMIT.replace("frames", "frames since version 2")
    assert view(read(A=LIMIT, B=more))["disputed"] == []


def test_one_answer_cannot_agree_with_itself() -> None:
    assert view(read(A=f"{LIMIT} {LIMIT}"))["agreed"] == []


def test_bullets_numbers_and_headings_are_not_part_of_a_sentence() -> None:
    assert [s.text for s in sentences(f"# Notes\n\n- {LIMIT}\n2. {MUTABLE}\n")] == [LIMIT, MUTABLE]


def test_fenced_code_is_not_read() -> None:
    text = f"{LIMIT}\n```python\nfor every item in all the items: print(item)\n```\n{MUTABLE}"
    assert [s.text for s in sentences(text)] == [LIMIT, MUTABLE]


def test_a_sentence_is_read_when_it_has_ended() -> None:
    text = f"{LIMIT} {MUTABLE[:-5]}"
    open_end = feed(Overlap(), "A", text, complete=False)
    assert [c.sentences[0].text for c in open_end.claims] == [LIMIT]
    assert len(feed(open_end, "A", text, complete=True).claims) == 2


@pytest.mark.parametrize("size", [1, 7, 64])
def test_reading_in_pieces_equals_reading_at_once(size: int) -> None:
    code = "```\ncode is not read here at all\n```"
    text = f"{LIMIT} {MUTABLE}\n\n- {ALONE}\n{code}\nThe very end of it"
    overlap = Overlap()
    for end in range(size, len(text) + size, size):
        overlap = feed(overlap, "A", text[:end], complete=end >= len(text))
    assert overlap == read(A=text)


def test_sentence_ends_are_offsets_into_the_answer() -> None:
    text = f"{LIMIT} {MUTABLE}"
    for claim in read(A=text).claims:
        said = claim.sentences[0]
        assert text[: said.end].rstrip().endswith(said.text)


def test_more_text_reads_only_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = dict.fromkeys("ABCDEFGH", f"{LIMIT} {ALONE} " * 60)
    overlap = read(**answers)
    read_now: list[str] = []
    original = overlaps.sentence

    def watched(text: str, **kwargs: object) -> object:
        read_now.append(text)
        return original(text, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(overlaps, "sentence", watched)
    longer = f"{answers['C']}{MUTABLE} And the beginning of"
    feed(overlap, "C", longer, complete=False)
    assert [text.strip() for text in read_now] == [MUTABLE]


def test_text_without_any_sentence_end_is_cut_rather_than_read_again_and_again() -> None:
    endless = "word after word " * 1000
    overlap = feed(Overlap(), "A", endless, complete=False)
    assert len(endless) - overlap.readings["A"].offset <= overlaps.MAX_OPEN_CHARS


def test_a_call_that_starts_over_takes_its_claims_with_it() -> None:
    overlap = overlaps.without(read(A=LIMIT, B=f"{LIMIT} {ALONE}"), "B")
    assert overlap == read(A=LIMIT)


def test_too_few_words_claim_nothing() -> None:
    assert sentences("Sure! Of course. Here it is:\n\n42.") == ()
