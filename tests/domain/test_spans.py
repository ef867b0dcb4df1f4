"""Days as a workspace has them: the same ones its quotas have."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.domain.spans import PERIODS, Span, begin_of, end_of, span_of, today_in
from workspaces.domain.windows import windows_at

# Half an hour, a quarter, clocks that change, midnights that are skipped, a day that never was.
ZONES = (
    "UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "America/Sao_Paulo",
    "Africa/Cairo", "Pacific/Apia", "America/Havana",
)  # fmt: skip


@given(
    zone=st.sampled_from(ZONES),
    now=st.datetimes(datetime(2005, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),
)
def test_a_day_is_the_one_that_quotas_count_by(zone: str, now: datetime) -> None:
    today = today_in(zone, now)
    windows = windows_at(now, zone)
    assert today.isoformat() == windows.day
    assert end_of(today, zone) == windows.day_ends
    assert begin_of(today, zone) <= now < end_of(today, zone)


@pytest.mark.parametrize("zone", ZONES)
def test_days_follow_each_other_without_gap(zone: str) -> None:
    for day in Span(date(2011, 12, 25), date(2012, 11, 10)).days:
        if (zone, day) != ("Pacific/Apia", date(2011, 12, 30)):  # they crossed the date line
            assert begin_of(day, zone) < end_of(day, zone)
        assert end_of(day, zone) == begin_of(day + timedelta(days=1), zone)
        assert begin_of(day, zone).astimezone(ZoneInfo(zone)).minute % 15 == 0


def test_named_spans_end_today() -> None:
    today = date(2026, 11, 23)
    spans = {name: span_of(name, today) for name in PERIODS}
    assert {name: len(span) for name, span in spans.items()} == {
        "today": 1,
        "7d": 7,
        "30d": 30,
        "month": 23,
    }
    assert {span.last for span in spans.values()} == {today}


def test_a_span_that_ends_before_it_begins_has_no_days() -> None:
    assert Span(date(2026, 11, 24), date(2026, 11, 23)).days == []
