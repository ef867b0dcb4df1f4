"""When a budget is used up, if it goes on as it has."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.domain.forecast import HOUR, forecast_at_pace, forecast_day

MIDNIGHT = datetime(2026, 11, 23, tzinfo=UTC)
EVENLY = [1.0] * 24


def day(used: int, hours: float, *, limit: int = 1_000, weights: list[float] = EVENLY) -> Any:
    return forecast_day(
        used=used, limit=limit, begin=MIDNIGHT, now=MIDNIGHT + hours * HOUR, weights=weights
    )


def test_an_even_day_brings_as_much_again_in_its_second_half() -> None:
    told = day(400, 12)
    assert (told.expected, told.used_up_at) == (800, None)
    told = day(600, 12)
    assert (told.expected, told.used_up_at) == (1_200, MIDNIGHT + 20 * HOUR)


def test_hours_in_which_other_days_used_nothing_bring_nothing() -> None:
    working = [0.0] * 8 + [1.0] * 8 + [0.0] * 8
    assert day(600, 16, weights=working).expected == 600
    assert day(600, 20, weights=working).expected == 600
    told = day(600, 12, weights=working)
    assert (told.expected, told.used_up_at) == (1_200, MIDNIGHT + 14 * HOUR + 40 * HOUR / 60)


@pytest.mark.parametrize("hours", [0, 1, 2.3])
def test_there_is_no_forecast_from_the_first_hours(hours: float) -> None:
    assert day(10, hours) is None
    assert day(10, 2.5) is not None


def test_there_is_no_forecast_of_nothing_or_of_what_is_used_up() -> None:
    assert day(0, 12) is None
    assert day(1_000, 12) is None
    assert day(5, 12, weights=[0.0] * 24) is None
    assert day(999, 12) is not None


def test_a_day_of_25_hours_has_25() -> None:
    assert day(100, 12.5, weights=[1.0] * 25).expected == 200


@given(
    used=st.integers(1, 10**12),
    limit=st.integers(1, 10**12),
    hours=st.floats(0, 24),
    weights=st.lists(st.floats(0, 1e9), min_size=24, max_size=24),
)
def test_a_forecast_is_never_less_than_what_is_used_nor_in_the_past(
    used: int, limit: int, hours: float, weights: list[float]
) -> None:
    told = day(used, hours, limit=limit, weights=weights)
    if told is None:
        return
    assert told.expected >= used
    assert (told.used_up_at is None) == (told.expected < limit)
    if told.used_up_at:
        assert MIDNIGHT + hours * HOUR <= told.used_up_at <= MIDNIGHT + 24 * HOUR + HOUR


def test_a_month_goes_on_at_the_pace_of_its_last_days() -> None:
    end = MIDNIGHT + timedelta(days=8)

    def month(used: int, per_day: float) -> Any:
        return forecast_at_pace(used=used, limit=1_000, now=MIDNIGHT, end=end, per_day=per_day)

    told = month(200, 50)
    assert (told.expected, told.used_up_at) == (600, None)
    told = month(200, 200)
    assert (told.expected, told.used_up_at) == (1_800, MIDNIGHT + timedelta(days=4))
    assert month(200, 0) is None
    assert month(1_000, 10) is None
