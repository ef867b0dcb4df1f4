"""What may not become part of the document, whoever wrote it."""

import pytest

from orchestration.domain import plain_prompts, prompts
from orchestration.domain.output_checks import (
    COPIES_PROMPT,
    NO_WORDS,
    REPEATS,
    Unusable,
    loop_start,
    new_paragraphs,
    says_nothing_new,
    usable,
)
from orchestration.domain.policies import BALANCED
from orchestration.domain.synthesis import answer_text
from orchestration.domain.virtual_clock import simulate
from tests.domain.synthesis_runs import Scripted, ends, finals, leg, sentence, text_of

GOOD = text_of(0, 1, 2, 3)
STUCK = " ".join([sentence(7)] * 12)


def reason(text: str) -> str:
    with pytest.raises(Unusable) as refused:
        usable(text)
    return str(refused.value)


class TestLoops:
    def test_a_text_without_repetition_is_left_as_it_is(self) -> None:
        assert usable(GOOD) == GOOD

    def test_a_text_that_runs_into_a_loop_is_kept_up_to_it(self) -> None:
        assert usable(f"{GOOD} {STUCK}") == f"{GOOD} {sentence(7)}"

    def test_a_loop_over_paragraphs_and_items_is_a_loop_too(self) -> None:
        for glue in ("\n\n", "\n- "):
            looping = glue.join([GOOD, *[sentence(7)] * 12])
            assert usable(looping) == glue.join([GOOD, sentence(7)])

    def test_numbers_that_go_up_do_not_hide_a_loop(self) -> None:
        items = "\n".join(f"{n}. {sentence(7)}" for n in range(1, 13))
        assert usable(f"{GOOD}\n\n{items}").startswith(f"{GOOD}\n\n1. {sentence(7)}")
        assert usable(f"{GOOD}\n\n{items}").count(sentence(7)) == 1

    def test_a_text_that_comes_out_of_its_loop_is_cut_there_all_the_same(self) -> None:
        assert usable(f"{GOOD} {STUCK} {sentence(9)}") == f"{GOOD} {sentence(7)}"

    def test_a_text_that_is_a_loop_from_the_start_is_refused(self) -> None:
        assert reason("Yes, yes, yes. " + "Very true indeed it is. " * 30) == REPEATS

    def test_one_word_again_and_again_is_refused(self) -> None:
        assert reason("wheels, " * 80) == REPEATS

    def test_a_loop_without_spaces_between_words_is_found(self) -> None:
        assert loop_start("天空是蓝色的因为光被散射。" * 12) is not None

    def test_a_song_may_have_a_chorus(self) -> None:
        chorus = f"{sentence(20)}\n{sentence(21)}"
        song = "\n\n".join(f"{text_of(n, n + 1, n + 2)}\n\n{chorus}" for n in (0, 4, 8))
        assert usable(song) == song

    def test_a_text_written_out_twice_is_kept_once(self) -> None:
        assert usable(f"{GOOD}\n\n{text_of(4, 5)}\n\n{GOOD}") == f"{GOOD}\n\n{text_of(4, 5)}"

    def test_code_and_tables_may_repeat_themselves(self) -> None:
        rows = "INSERT INTO users (name, email, city, street) VALUES (?, ?, ?, ?);\n" * 40
        code = f"{GOOD}\n\n```sql\n{rows}```\n\n{sentence(9)}"
        assert usable(code) == code
        row = "| Berlin | a very large and very old city | yes |\n" * 20
        table = f"{GOOD}\n\n{row}\n{sentence(9)}"
        assert usable(table) == table

    def test_a_table_of_numbers_is_no_loop(self) -> None:
        table = "| a | b |\n| --- | --- |\n" + "\n".join(f"| {n} | {n * n} |" for n in range(40))
        assert usable(table) == table


class TestCopies:
    def test_candidates_as_they_were_quoted_are_refused(self) -> None:
        assert reason('The answer is: [{"label": "A", "text": "Rain falls."}]') == COPIES_PROMPT
        assert reason('{ "label" : "B", "text" : "' + GOOD) == COPIES_PROMPT

    @pytest.mark.parametrize("rules", [prompts.SYSTEM, plain_prompts.SYSTEM])
    def test_our_own_rules_are_refused(self, rules: str) -> None:
        assert reason(rules) == COPIES_PROMPT
        assert reason(f"{GOOD}\n\n{rules}") == COPIES_PROMPT

    def test_json_that_answers_the_question_is_no_copy(self) -> None:
        answer = 'Send this:\n\n```json\n{"label": "urgent", "colour": "red"}\n```'
        assert usable(answer) == answer

    def test_marker_lines_around_a_text_are_taken_off(self) -> None:
        assert usable(f"<c-0f1e2d3c4b5a6978>\n{GOOD}\n</c-0f1e2d3c4b5a6978>") == GOOD


class TestWords:
    @pytest.mark.parametrize("text", ["", "  \n", "```\n```", "...", "<c-0f1e2d3c4b5a6978>"])
    def test_marks_without_words_are_refused(self, text: str) -> None:
        assert reason(text) == NO_WORDS

    @pytest.mark.parametrize("text", ["42", "π", "Да.", "雨"])
    def test_the_shortest_answers_are_answers(self, text: str) -> None:
        assert usable(text) == text


class TestNews:
    def test_a_paragraph_comes_once(self) -> None:
        first, second, third = text_of(0, 1, 2), text_of(3, 4, 5), text_of(6, 7, 8)
        assert new_paragraphs([first, second, first, third]) == (first, second, third)
        assert new_paragraphs([second, third], written=[first, third]) == (second,)

    def test_a_chorus_and_a_short_line_come_again(self) -> None:
        chorus = f"{sentence(0)}\n{sentence(1)}\n{sentence(2)}"
        song = (text_of(3, 4), chorus, "And again:", text_of(5, 6), chorus, "And again:")
        assert new_paragraphs(song) == song

    def test_what_is_written_already_is_no_news(self) -> None:
        assert says_nothing_new(sentence(2), GOOD)
        assert says_nothing_new(sentence(2).upper(), GOOD)
        assert not says_nothing_new(sentence(9), GOOD)
        assert not says_nothing_new(f"{sentence(2)} {sentence(9)}", GOOD)


class TestFallback:
    """A synthesizer that writes nothing of use, every time it is asked."""

    NONSENSE = '[{"label": "A", "text": "Rain falls."}, ' * 20

    def run(self, *answers: str) -> tuple[str | None, bool]:
        legs = [leg(k, text, end_s=5) for k, text in zip("ABC", answers, strict=False)]
        trace = simulate(BALANCED, legs, Scripted(dict.fromkeys(range(1, 11), self.NONSENSE)))
        assert not trace.state.applied
        return answer_text(trace.state), finals(trace)[0][1].degraded

    def test_the_best_answer_stands_and_is_marked_degraded(self) -> None:
        assert self.run(text_of(0, 1), text_of(0, 1, 2), sentence(9)) == (text_of(0, 1, 2), True)

    def test_the_longest_answer_is_not_the_best_when_it_loops(self) -> None:
        looping = f"{text_of(0, 1, 2)} {STUCK}"
        assert self.run(text_of(0, 1), looping, sentence(9)) == (text_of(0, 1), True)

    def test_of_a_run_with_nothing_but_text_of_a_stopped_call_that_text_is_the_answer(self) -> None:
        stopped = leg("A", text_of(*range(9)), end_s=5, fails="stop.user")
        trace = simulate(BALANCED, [stopped], Scripted({}))
        assert [end.status for end in ends(trace)] == ["degraded"]
        assert answer_text(trace.state) == text_of(*range(9))
        assert not trace.state.versions, "one text needs no merging"
