"""Money is counted in whole micro-dollars, rounded up once."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.domain.cost import FREE, Price, cost_micro_usd


@dataclass(frozen=True)
class Counts:
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


PRICE = Price(input=2_500_000, output=10_000_000, cached_input=1_250_000)
tokens = st.integers(0, 10_000_000)


@pytest.mark.parametrize(
    ("counts", "cost"),
    [
        (Counts(1_000_000, 0), 2_500_000),
        (Counts(0, 1_000_000), 10_000_000),
        (Counts(1_000, 500), 7_500),
        (Counts(1_000, 0, cached_tokens=400), 2_000),
        (Counts(1, 0), 3),  # 2.5 rounded up
        (Counts(), 0),
    ],
)
def test_the_cost_is_tokens_times_price(counts: Counts, cost: int) -> None:
    assert cost_micro_usd(counts, PRICE) == cost


def test_without_a_price_for_cached_tokens_they_cost_as_much_as_others() -> None:
    full = Price(PRICE.input, PRICE.output)
    assert cost_micro_usd(Counts(1_000, cached_tokens=900), full) == 2_500


def test_more_cached_tokens_than_input_tokens_count_as_all_cached() -> None:
    assert cost_micro_usd(Counts(1_000, cached_tokens=5_000), PRICE) == 1_250


@given(tokens, tokens, tokens)
def test_a_call_is_overstated_by_less_than_one_micro_dollar(i: int, o: int, c: int) -> None:
    cached = min(i, c)
    exact = ((i - cached) * 2_500_000 + cached * 1_250_000 + o * 10_000_000) / 1_000_000
    assert 0 <= cost_micro_usd(Counts(i, o, c), PRICE) - exact < 1
    assert cost_micro_usd(Counts(i, o, c), FREE) == 0
