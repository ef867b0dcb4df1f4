"""Cache keys: two questions share one only where an answer to either serves both."""

import re
from dataclasses import fields, replace
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from orchestration.domain.cache_key import Question, cache_key

SECRET = b"a secret of the server"

texts = st.text(max_size=12)
parts = st.fixed_dictionaries({"type": st.just("text"), "text": texts})
messages = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user", "assistant"]),
            "content": texts | st.lists(parts, min_size=1, max_size=2),
        }
    ),
    min_size=1,
    max_size=3,
)
params = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.integers(1, 9),
        "temperature": st.sampled_from([0, 0.0, 0.5, 1, 1.0]),
        "seed": st.integers(0, 3),
        "stop": st.lists(texts, min_size=1, max_size=2),
        "response_format": st.dictionaries(texts, st.none() | st.booleans() | texts, max_size=2),
    },
)
questions = st.builds(
    Question,
    workspace=texts,
    pipeline=texts,
    pipeline_version=st.integers(1, 9),
    provider=texts,
    address=texts,
    model=texts,
    messages=messages,
    params=params,
    candidate=st.integers(0, 3),
    thoughts=st.booleans(),
)


def reordered(value: Any) -> Any:
    """The same JSON value with the names of every object the other way round."""
    if isinstance(value, dict):
        return {name: reordered(value[name]) for name in reversed(value)}
    return [reordered(each) for each in value] if isinstance(value, list) else value


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal; Python takes ``True`` for 1, and no model does."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@given(questions)
def test_a_key_is_64_digits_and_always_the_same(question: Question) -> None:
    key = cache_key(SECRET, question)
    assert re.fullmatch("[0-9a-f]{64}", key)
    assert cache_key(SECRET, question) == key


@given(questions)
def test_the_order_of_parameters_does_not_matter(question: Question) -> None:
    turned = replace(
        question, messages=reordered(question.messages), params=reordered(question.params)
    )
    assert cache_key(SECRET, turned) == cache_key(SECRET, question)


@given(questions, questions, st.sampled_from([field.name for field in fields(Question)]))
def test_a_difference_in_anything_is_another_key(
    question: Question, other: Question, name: str
) -> None:
    """Field by field, all others equal: so is the workspace, and two of them never share."""
    value = getattr(other, name)
    assume(not same(value, getattr(question, name)))
    assert cache_key(SECRET, replace(question, **{name: value})) != cache_key(SECRET, question)


@given(questions, questions)
def test_only_equal_questions_share_a_key(one: Question, other: Question) -> None:
    equal = all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(Question))
    assert (cache_key(SECRET, one) == cache_key(SECRET, other)) is equal


def test_text_cannot_move_from_one_field_to_the_next() -> None:
    question = Question(
        "w", "p", 1, "local", "http://a", "m", [{"role": "user", "content": ""}], {}
    )
    moved = replace(question, provider="loca", address="lhttp://a")
    assert cache_key(SECRET, moved) != cache_key(SECRET, question)


@given(questions)
def test_without_the_secret_nobody_makes_the_key(question: Question) -> None:
    assert cache_key(b"another", question) != cache_key(SECRET, question)
