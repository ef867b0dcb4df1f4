"""Requests a minute, by the generic cell rate algorithm (ATM Forum TM 4.0; redis_rate's too).

One moment is kept: the *theoretical arrival time*, when the next request would be due if requests
came evenly. A request may be early by as much as ``burst`` requests take.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

MINUTE = timedelta(minutes=1)
# How far behind the last admission's time an honest one may be: a statement's time is when it came,
# and it may have waited for others since. Beyond that a clock was set back.
SLACK = timedelta(minutes=1)
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Rate:
    """``per_minute`` requests, of which ``burst`` may come at once; both at least 1."""

    per_minute: int
    burst: int

    @property
    def spacing(self) -> timedelta:
        """Rounded up to the microsecond, so that it is never more than ``per_minute``."""
        return -(-MINUTE // (self.per_minute * _TICK)) * _TICK

    @property
    def tolerance(self) -> timedelta:
        return self.spacing * self.burst


@dataclass(frozen=True, slots=True)
class Verdict:
    """``tat`` is to be kept where ``allowed``. ``wait`` is until one request fits, zero where one
    does; ``remaining`` how many fit now, this one taken; ``full_in`` until all of the burst does.
    """

    allowed: bool
    tat: datetime
    wait: timedelta
    remaining: int
    full_in: timedelta


def judge(rate: Rate, tat: datetime | None, now: datetime, *, take: int = 1) -> Verdict:
    """Whether ``take`` requests may be made now; 0 asks how things stand.

    In any span t at most burst + rate·t requests are allowed. A ``tat`` that no admission could
    have left (the clock was set back, or the limit was another) leaves room for one request, and
    with it a sound ``tat``: it grants no burst, and blocks for no longer than SLACK and one
    request take.
    """
    latest = now + rate.tolerance
    due = now if tat is None else max(tat, now)
    if due > latest + SLACK:
        due = latest - rate.spacing
    after = due + rate.spacing * take
    wait = after - rate.tolerance - now
    allowed = wait <= timedelta(0)
    left = after if allowed else due
    return Verdict(
        allowed=allowed,
        tat=left,
        wait=max(timedelta(0), wait),
        remaining=max(0, (latest - left) // rate.spacing),
        full_in=left - now,
    )
