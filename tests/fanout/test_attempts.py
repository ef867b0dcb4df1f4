"""What follows a failed attempt: decided by pure rules, and carried out in order."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.domain.errors import ErrorKind, row_of
from orchestration.fanout.attempts import (
    BUDGET_FLOOR,
    BUDGET_WINDOW_S,
    CAP_S,
    FINAL,
    Budget,
    Next,
    Progress,
    following,
    wait_s,
)
from orchestration.fanout.call_sink import CallFault
from orchestration.fanout.wire import Retry

FRESH = Progress(Retry(3), tried=1, fallbacks=0, said=False, now=0.0, deadline=60.0)
kinds = st.sampled_from(list(ErrorKind))


def rich() -> bool:
    return True


def poor() -> bool:
    return False


def after(
    kind: ErrorKind | str,
    at: Progress = FRESH,
    *,
    spend: Callable[[], bool] = rich,
    retry_after_ms: int | None = None,
    next_key: bool = False,
) -> Next | None:
    fault = CallFault(ErrorKind(kind), retry_after_ms=retry_after_ms, next_key=next_key)
    return following(at, fault, 0.5, spend)


def test_a_failure_that_may_pass_is_tried_again() -> None:
    assert after("overloaded") == Next("retry", 0.125)


def test_attempts_end_with_what_was_asked_for() -> None:
    assert after("overloaded", replace(FRESH, tried=3)) is None
    assert after("overloaded", replace(FRESH, retry=Retry())) is None


def test_what_cannot_pass_is_not_tried_again() -> None:
    assert after("auth") is None
    assert after("invalid_request") is None


def test_nothing_is_tried_again_after_text_unless_it_may_start_over() -> None:
    said = replace(FRESH, said=True, fallbacks=1)
    assert after("incomplete", said) is None
    assert after("incomplete", replace(said, retry=Retry(3, restart=True))) == Next(
        "restart", 0.125
    )


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    assert after("rate_limited", retry_after_ms=60_000) is None
    assert after("rate_limited", retry_after_ms=59_875) is None
    assert after("rate_limited", retry_after_ms=59_000) == Next("retry", 59.125)


def test_without_budget_the_next_target_is_asked() -> None:
    assert after("overloaded", spend=poor) is None
    assert after("overloaded", replace(FRESH, fallbacks=1), spend=poor) == Next("fallback")


def test_another_key_is_asked_at_once_whatever_the_attempts() -> None:
    assert after("auth", replace(FRESH, retry=Retry()), next_key=True, spend=poor) == Next("retry")


@given(kinds, st.booleans())
def test_nothing_follows_a_final_kind_and_a_fallback_every_other(
    kind: ErrorKind, retried: bool
) -> None:
    at = replace(FRESH, tried=1 if retried else 3, fallbacks=1)
    then = after(kind, at)
    assert (then is None) is (kind in FINAL)
    if then and not (retried and row_of(kind).retryable):
        assert then == Next("fallback")


@given(st.integers(1, 3), st.none() | st.integers(0, 100_000), st.floats(0, 1))
def test_a_wait_is_full_jitter_on_top_of_what_the_provider_asked_for(
    tried: int, asked_ms: int | None, chance: float
) -> None:
    jitter_s = wait_s(tried, asked_ms, chance) - (asked_ms or 0) / 1000
    assert jitter_s == pytest.approx(chance * min(CAP_S, 0.25 * 2 ** (tried - 1)))


@pytest.mark.parametrize(("firsts", "room"), [(0, 5), (10, 6), (100, 15)])
def test_a_budget_is_a_tenth_of_the_first_attempts_above_a_floor(firsts: int, room: int) -> None:
    budget = Budget()
    for _ in range(firsts):
        budget.first(1.0)
    assert [budget.spend(1.0) for _ in range(room + 1)] == [True] * room + [False]


def test_a_budget_comes_back_with_time() -> None:
    budget = Budget()
    for _ in range(BUDGET_FLOOR):
        assert budget.spend(0.0)
    assert not budget.spend(BUDGET_WINDOW_S - 0.1)
    assert budget.spend(BUDGET_WINDOW_S)
