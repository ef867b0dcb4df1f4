"""The usage page with something of everything on it, without a database."""

from datetime import UTC, date, datetime
from typing import Any

from orchestration.domain.errors import sentence_for
from orchestration.domain.forecast import Forecast
from orchestration.domain.spans import PERIODS, Span
from orchestration.quota_bars import Held, QuotaBar
from orchestration.run_filter import ANSWERS, SYNTHESIS, RunFilter
from orchestration.usage import Failures, Latency, Line, Usage
from orchestration.usage_sums import Sums
from workspaces.domain.quotas import Dimension, Limit, Use

NOW = datetime(2026, 11, 23, 12, 4, tzinfo=UTC)
RENEWS = datetime(2026, 11, 24, tzinfo=UTC)
SPAN = Span(date(2026, 11, 17), date(2026, 11, 23))
WANTED = RunFilter(since=SPAN.first, until=SPAN.last)

USED = Sums(184, 359, 67, 1_786_875, 285_379, 2_710_000, 7, 81_000, 229_400, 2)
SOME = Sums(48, 30, 5, 157_234, 24_616, 250_600, 0, 9_000, 12_900, 0)
UNKNOWN = Sums(calls=7, input_tokens=9_366, output_tokens=2_660, unpriced=7)


def bar(dimension: Dimension, limit: int, used: int, reserved: int = 0, **fields: Any) -> QuotaBar:
    given = {"whose": "", "wanted": WANTED, "forecast": None, **fields}
    return QuotaBar(use=Use(Limit(dimension, "", limit), used, reserved, RENEWS), **given)


BARS = [
    bar(Dimension.COST_PER_DAY, 500_000, 249_900, 60_000, forecast=Forecast(310_000, None)),
    bar(Dimension.COST_PER_MONTH, 3_000_000, 2_710_000, forecast=Forecast(3_700_000, RENEWS)),
    bar(Dimension.TOKENS_PER_DAY, 200_000, 200_100),
    bar(Dimension.CONCURRENT_RUNS, 8, 0, 1, wanted=None),
    bar(Dimension.REQUESTS_PER_MINUTE, 60, 3, wanted=None),
    bar(Dimension.FANOUT_WIDTH, 5, 0, wanted=None),
    bar(Dimension.COST_PER_DAY, 0, 0, whose="pipeline thorough"),
    bar(Dimension.COST_PER_DAY, 9_000, 4_000, whose="key averylongname" + "x" * 60, wanted=None),
]

USAGE = Usage(
    span=SPAN,
    wanted=WANTED,
    runs=184,
    totals=USED,
    by_status=[
        Line(status, WANTED.but(status=status), Sums(), 7)
        for status in ("queued", "running", "done", "degraded", "failed", "cancelled")
    ],
    by_day=[
        Line(day.isoformat(), WANTED.but(since=day, until=day), SOME if n else Sums(), n)
        for n, day in enumerate(reversed(SPAN.days))
    ],
    by_model=[
        Line("anthropic/a-model-of-some-name", WANTED.but(part=ANSWERS), SOME),
        Line("vllm/" + "averylongname" * 6, WANTED.but(part=ANSWERS), UNKNOWN),
        Line("recorded/*", WANTED.but(part=ANSWERS), Sums(calls=3)),
        Line("openai/editor", WANTED.but(part=SYNTHESIS), Sums(drafts=359)),
    ],
    by_pipeline=[Line("synthesis", WANTED, USED, 126), Line("wait-all", WANTED, SOME, 58)],
    by_member=[
        Line("<script>alert(1)</script>", WANTED, USED, 65),
        Line("key 7hq2mxk4w9ab", WANTED, SOME, 55),
    ],
    failures=[
        Failures(kind, sentence_for(kind), WANTED.but(reason=kind), 8, 8, 0)
        for kind in ("overloaded", "timeout.first_token")
    ],
    of_runs=[Latency("done", WANTED, 143, (900, 1_400), (15_100, 128_400))],
    of_models=[Latency("openai/small", WANTED, 160, (None, None), (8_000, 13_400))],
)


def usage_context(usage: Usage = USAGE, **fields: Any) -> dict[str, Any]:
    return {
        "usage": usage,
        "wanted": RunFilter(model="openai/*", member="alice"),
        "wrong": [],
        "zone": "Europe/Berlin",
        "periods": PERIODS.items(),
        "period": "7d",
        "span_query": WANTED.params,
        "bars": BARS,
        "held": Held(4_000, 60_000),
        "key_names": {"key 7hq2mxk4w9ab": "The nightly job"},
        "ever": True,
        **fields,
    }


NOTHING = Usage(SPAN, WANTED, 0, Sums(), [], [], [], [], [], [], [], [])


def empty_context() -> dict[str, Any]:
    """Of a workspace in which nothing was ever asked, and no quota is set."""
    return usage_context(
        NOTHING, wanted=RunFilter(), bars=[], held=Held(0, 0), ever=False, period=""
    )
