"""Limits as operators write them: nothing is lost between dollars and millionths of one."""

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from workspaces.admin.units import MOST, dollars, limit_of_text, micro_usd_of, shown
from workspaces.domain.quotas import Dimension


@given(st.integers(0, MOST))
def test_what_is_shown_can_be_written_again_and_means_the_same(micro_usd: int) -> None:
    assert micro_usd_of(dollars(micro_usd)) == micro_usd
    assert micro_usd_of(shown(Dimension.COST_PER_DAY, micro_usd)) == micro_usd


@given(st.integers(0, MOST))
def test_a_number_can_be_written_with_its_commas(number: int) -> None:
    assert limit_of_text(Dimension.TOKENS_PER_DAY, f"{number:,}") == number


@given(st.text(max_size=30))
def test_any_text_is_an_amount_or_is_refused(text: str) -> None:
    for dimension in (Dimension.COST_PER_DAY, Dimension.TOKENS_PER_DAY):
        try:
            limit = limit_of_text(dimension, text)
        except ValidationError:
            continue
        assert 0 <= limit <= MOST


@pytest.mark.parametrize(
    ("micro_usd", "text"),
    [(0, "0.00"), (1, "0.000001"), (12_500_000, "12.50"), (100_000_000, "100.00")],
)
def test_dollars_have_two_decimals_or_as_many_as_it_takes(micro_usd: int, text: str) -> None:
    assert dollars(micro_usd) == text
