"""The days and months of a workspace, in its own time zone."""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

NOW = ""
"""The window of what is counted at this moment rather than over a span."""


@dataclass(frozen=True, slots=True)
class Windows:
    """``day`` ("2026-11-23") and ``month`` ("2026-11") that a moment lies in, and their ends."""

    day: str
    month: str
    day_ends: datetime
    month_ends: datetime


def windows_at(now: datetime, zone: str) -> Windows:
    """The windows of ``now``. A day of 23 or 25 hours, where clocks change, ends at midnight too;
    where midnight itself is skipped, at the first moment of the next day."""
    place = ZoneInfo(zone)
    today = now.astimezone(place).date()
    tomorrow = today + timedelta(days=1)
    next_month = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    return Windows(
        day=today.isoformat(),
        month=f"{today:%Y-%m}",
        day_ends=_begin_of(tomorrow, place),
        month_ends=_begin_of(next_month, place),
    )


def _begin_of(day: date, place: ZoneInfo) -> datetime:
    # By way of UTC: an hour that does not exist then reads as the one after it.
    return datetime.combine(day, time(), place).astimezone(ZoneInfo("UTC"))
