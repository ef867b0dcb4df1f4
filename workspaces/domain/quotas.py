"""Whether work fits into a workspace's quotas: pure, over the counters and with ``now`` given."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from workspaces.domain.gcra import Rate, judge
from workspaces.domain.windows import NOW, Windows

WORKSPACE = ""
"""The scope of a workspace as a whole; others are ``key:<lineage>`` and ``pipeline:<name>``."""

_FASTEST = 60_000_000
# When a run ends or gives back what it does not need, nobody knows beforehand.
SLOT_WAIT = timedelta(seconds=2)
HELD_WAIT = timedelta(seconds=5)


class Dimension(StrEnum):
    REQUESTS_PER_MINUTE = "requests_per_minute"
    CONCURRENT_RUNS = "concurrent_runs"
    FANOUT_WIDTH = "fanout_width"
    TOKENS_PER_DAY = "tokens_per_day"
    COST_PER_DAY = "cost_micro_usd_per_day"
    COST_PER_MONTH = "cost_micro_usd_per_month"

    @property
    def caption(self) -> str:
        return _CAPTIONS[self]

    def window(self, windows: Windows) -> str:
        """The window its counter is in."""
        if self in (Dimension.TOKENS_PER_DAY, Dimension.COST_PER_DAY):
            return windows.day
        return windows.month if self is Dimension.COST_PER_MONTH else NOW


MONEY = frozenset({Dimension.COST_PER_DAY, Dimension.COST_PER_MONTH})
BUDGETS = MONEY | {Dimension.TOKENS_PER_DAY}
"""The dimensions that are used up, rather than free again when the work has ended."""

_CAPTIONS = {
    Dimension.REQUESTS_PER_MINUTE: "Requests a minute",
    Dimension.CONCURRENT_RUNS: "Runs at once",
    Dimension.FANOUT_WIDTH: "Models a run may ask",
    Dimension.TOKENS_PER_DAY: "Tokens a day",
    Dimension.COST_PER_DAY: "Money a day, in micro-dollars",
    Dimension.COST_PER_MONTH: "Money a month, in micro-dollars",
}


def key_scope(lineage: str) -> str:
    """The scope of an API key and those that replace it, named by the first one's public part."""
    return f"key:{lineage}"


def pipeline_scope(name: str) -> str:
    return f"pipeline:{name}"


def split_scope(scope: str) -> tuple[str, str | None]:
    """Whose limit: ``("workspace", None)``, ``("key", <lineage>)`` or ``("pipeline", <name>)``."""
    kind, _, name = scope.partition(":")
    return (kind, name) if kind else ("workspace", None)


def scopes_of(key_public: str, pipeline: str) -> list[str]:
    """What work counts in, widest first; ``key_public`` is empty where a person asked."""
    return [WORKSPACE, *([key_scope(key_public)] if key_public else []), pipeline_scope(pipeline)]


@dataclass(frozen=True, slots=True)
class Limit:
    """A quota as it is in force now; ``burst`` is for requests per minute alone. ``usual`` is what
    holds again after ``until``, where an override is in force."""

    dimension: Dimension
    scope: str
    value: int
    burst: int = 0
    usual: int | None = None
    until: datetime | None = None

    @property
    def rate(self) -> Rate:
        """Of requests per minute; ``value`` must not be 0. Beyond one a microsecond there is none:
        a moment is kept no finer."""
        per_minute = min(self.value, _FASTEST)
        return Rate(per_minute=per_minute, burst=min(self.burst or per_minute, _FASTEST))

    @property
    def capacity(self) -> int:
        """How much there is when nothing is used: of requests per minute, what may come at once."""
        if self.dimension is Dimension.REQUESTS_PER_MINUTE and self.value:
            return self.rate.burst
        return self.value


@dataclass(frozen=True, slots=True)
class Standing:
    """What a counter says."""

    runs: int = 0
    tat: datetime | None = None
    tokens: int = 0
    tokens_reserved: int = 0
    cost_micro_usd: int = 0
    cost_reserved_micro_usd: int = 0


Standings = Mapping[tuple[str, str], Standing]
"""(scope, window) → what its counter says; one that is missing is all zeros."""


@dataclass(frozen=True, slots=True)
class Hold:
    """The most that one call may use: what its lease is for."""

    name: str
    tokens: int
    cost_micro_usd: int


@dataclass(frozen=True, slots=True)
class Offer:
    """Work that may be let in as a whole. ``width`` is how many models it asks."""

    width: int
    holds: tuple[Hold, ...] = field(default=())

    @property
    def tokens(self) -> int:
        return sum(hold.tokens for hold in self.holds)

    @property
    def cost_micro_usd(self) -> int:
        return sum(hold.cost_micro_usd for hold in self.holds)


@dataclass(frozen=True, slots=True)
class Use:
    """How one limit stands: ``used`` and ``reserved`` in its dimension's unit, ``renews_at`` when
    the used part is forgotten (None: as work ends)."""

    limit: Limit
    used: int
    reserved: int
    renews_at: datetime | None

    @property
    def remaining(self) -> int:
        return max(0, self.limit.capacity - self.used - self.reserved)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why work was not let in. ``wait`` is None where no waiting helps: it asks for more than the
    quota has when it is empty. ``should_retry`` is False where it helps only after minutes."""

    use: Use
    asked: int
    wait: timedelta | None

    @property
    def retry_after_s(self) -> int | None:
        """Rounded up: whoever waits so long is not too early."""
        return None if self.wait is None else max(1, -(-self.wait // timedelta(seconds=1)))

    @property
    def should_retry(self) -> bool:
        return self.retry_after_s is not None and self.retry_after_s <= 60


def use_of(limit: Limit, standings: Standings, now: datetime, windows: Windows) -> Use:
    """How ``limit`` stands now. Used requests per minute are those of the burst that are gone."""
    standing = standings.get((limit.scope, limit.dimension.window(windows)), Standing())
    match limit.dimension:
        case Dimension.REQUESTS_PER_MINUTE if limit.value:
            verdict = judge(limit.rate, standing.tat, now, take=0)
            gone = limit.rate.burst - verdict.remaining
            return Use(limit, gone, 0, now + verdict.full_in)
        case Dimension.CONCURRENT_RUNS:
            return Use(limit, 0, standing.runs, None)
        case Dimension.TOKENS_PER_DAY:
            return Use(limit, standing.tokens, standing.tokens_reserved, windows.day_ends)
        case Dimension.COST_PER_DAY | Dimension.COST_PER_MONTH:
            ends = (
                windows.day_ends
                if limit.dimension is Dimension.COST_PER_DAY
                else windows.month_ends
            )
            return Use(limit, standing.cost_micro_usd, standing.cost_reserved_micro_usd, ends)
        case _:
            return Use(limit, 0, 0, None)


def refusal_of(
    limits: Iterable[Limit], standings: Standings, offer: Offer, now: datetime, windows: Windows
) -> Refusal | None:
    """None where ``offer`` fits into every limit; else the refusal that lasts longest, so that
    whoever waits as long as it says is not refused by another."""
    refusals = []
    for limit in limits:
        use = use_of(limit, standings, now, windows)
        if refusal := _refusal(use, standings, offer, now, windows):
            refusals.append(refusal)
    if not refusals:
        return None
    return longest(refusals)


def longest(refusals: Sequence[Refusal]) -> Refusal:
    """Of several, at least one: the one that lasts longest."""
    return max(refusals, key=lambda each: (each.wait is None, each.wait or timedelta(0)))


def _refusal(
    use: Use, standings: Standings, offer: Offer, now: datetime, windows: Windows
) -> Refusal | None:
    limit = use.limit
    match limit.dimension:
        case Dimension.REQUESTS_PER_MINUTE:
            if limit.value == 0:
                return Refusal(use, 1, None)
            standing = standings.get((limit.scope, NOW), Standing())
            verdict = judge(limit.rate, standing.tat, now)
            return None if verdict.allowed else Refusal(use, 1, verdict.wait)
        case Dimension.CONCURRENT_RUNS:
            if use.reserved < limit.value:
                return None
            return Refusal(use, 1, SLOT_WAIT if limit.value else None)
        case Dimension.FANOUT_WIDTH:
            return None if offer.width <= limit.value else Refusal(use, offer.width, None)
        case Dimension.TOKENS_PER_DAY:
            return _over_budget(use, offer.tokens, now)
        case Dimension.COST_PER_DAY | Dimension.COST_PER_MONTH:
            return _over_budget(use, offer.cost_micro_usd, now)


def _over_budget(use: Use, asked: int, now: datetime) -> Refusal | None:
    # What costs nothing fits into what is used up; but an overshoot blocks all that costs.
    if asked == 0 or use.used + use.reserved + asked <= use.limit.value:
        return None
    if asked > use.limit.value or use.renews_at is None:
        return Refusal(use, asked, None)
    if use.used + asked <= use.limit.value:
        # Only what others hold is in the way, and most of that comes back unused.
        return Refusal(use, asked, HELD_WAIT)
    return Refusal(use, asked, use.renews_at - now)
