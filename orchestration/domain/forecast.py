"""When a budget will be used up, if it goes on as it has: a guess, and none from too little."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

HOUR: Final = timedelta(hours=1)
# With less of the window behind, one busy hour would be taken for the whole day.
LEAST_SHARE: Final = 0.1
LEAST_DAYS: Final = 3


@dataclass(frozen=True, slots=True)
class Forecast:
    """``expected`` is what will be used when the window ends, in the budget's unit; ``used_up_at``
    when the limit is reached, None where it is not."""

    expected: int
    used_up_at: datetime | None


def forecast_day(
    *, used: int, limit: int, begin: datetime, now: datetime, weights: Sequence[float]
) -> Forecast | None:
    """What the day that began at ``begin`` comes to, if the rest of it is to what was used so far
    as ``weights`` say: one for each hour of the day, how much other days used in it. None where
    too little of the day's work is behind to tell, or the budget is used up already.
    """
    total = sum(weights)
    if not used or used >= limit or total <= 0:
        return None
    share = _share_until(weights, (now - begin) / HOUR) / total
    if share < LEAST_SHARE:
        return None
    expected = max(used, round(used / share))
    if expected < limit:
        return Forecast(expected, None)
    hours = _hours_until(weights, share * limit / used * total)
    return Forecast(expected, max(now, begin + hours * HOUR))


def forecast_at_pace(
    *, used: int, limit: int, now: datetime, end: datetime, per_day: float
) -> Forecast | None:
    """What the window that ends at ``end`` comes to, if ``per_day`` goes on being used."""
    if per_day <= 0 or used >= limit:
        return None
    expected = used + round(per_day * ((end - now) / timedelta(days=1)))
    if expected < limit:
        return Forecast(expected, None)
    return Forecast(expected, min(end, now + timedelta(days=(limit - used) / per_day)))


def _share_until(weights: Sequence[float], hours: float) -> float:
    """The weight of the first ``hours``, the last of them in part."""
    whole = max(0, min(int(hours), len(weights)))
    part = weights[whole] * (hours - whole) if whole < len(weights) else 0
    return sum(weights[:whole]) + part


def _hours_until(weights: Sequence[float], weight: float) -> float:
    """After how many hours so much weight is behind; all of them where it never is."""
    for hour, each in enumerate(weights):
        if weight <= each and each > 0:
            return hour + weight / each
        weight -= each
    return float(len(weights))
