"""Spans of whole days, in the time zone of whoever reads them."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

PERIODS: Final = {
    "today": "Today",
    "7d": "7 days",
    "30d": "30 days",
    "month": "This month",
}
"""The spans that have a name, and what people read."""

DEFAULT_PERIOD: Final = "7d"
MOST_DAYS: Final = 366


@dataclass(frozen=True, slots=True)
class Span:
    """Days from ``first`` to ``last``, both within."""

    first: date
    last: date

    def __len__(self) -> int:
        return max(0, (self.last - self.first).days + 1)

    @property
    def days(self) -> list[date]:
        return [self.first + timedelta(days=n) for n in range(len(self))]


def span_of(period: str, today: date) -> Span:
    """The span called ``period``; each of them ends with today."""
    match period:
        case "today":
            return Span(today, today)
        case "30d":
            return Span(today - timedelta(days=29), today)
        case "month":
            return Span(today.replace(day=1), today)
        case _:
            return Span(today - timedelta(days=6), today)


def begin_of(day: date, zone: str) -> datetime:
    """The first moment of ``day`` in ``zone``, in UTC: the same one at which a quota's day begins.

    Where midnight is skipped because clocks change, it is the first moment after the gap.
    """
    return datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC)


def end_of(day: date, zone: str) -> datetime:
    """The first moment after ``day``."""
    return begin_of(day + timedelta(days=1), zone)


def today_in(zone: str, now: datetime) -> date:
    return now.astimezone(ZoneInfo(zone)).date()
