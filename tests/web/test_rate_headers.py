"""The headers of limits, as structured fields and as OpenAI's clients parse them."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from orchestration.quota_words import refusal_sentence
from orchestration.rate_headers import rate_headers, refusal_headers
from workspaces.domain.quotas import Dimension, Limit, Refusal, Use

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
# RFC 9651: a List of Strings with Parameters, as far as these fields use it.
ITEM = r'"[ !#-\[\]-~]*"(;[a-z][a-z-]*=(\d{1,15}|"[a-z-]+"))*'
LIST = re.compile(rf"{ITEM}(, {ITEM})*")


def use(
    dimension: Dimension,
    value: int,
    used: int = 0,
    *,
    scope: str = "",
    burst: int = 0,
    s: float = 0,
) -> Use:
    return Use(Limit(dimension, scope, value, burst), used, 0, NOW + timedelta(seconds=s))


def test_a_burst_that_is_not_a_minutes_worth_is_told_apart() -> None:
    # Three of ten are gone, so the first comes back in a second and the last in three.
    headers = rate_headers([use(Dimension.REQUESTS_PER_MINUTE, 60, 3, burst=10, s=3)], NOW)
    assert headers["RateLimit-Policy"] == '"requests_per_minute";q=60;w=60;rex-burst=10'
    assert headers["RateLimit"] == '"requests_per_minute";r=7;t=1'
    assert headers["x-ratelimit-remaining-requests"] == "7"
    assert headers["x-ratelimit-reset-requests"] == "3s"


def test_a_month_has_no_window_and_what_is_unused_no_reset() -> None:
    headers = rate_headers([use(Dimension.COST_PER_MONTH, 5_000_000, s=86_400)], NOW)
    assert headers["RateLimit-Policy"] == '"cost_micro_usd_per_month";q=5000000;qu="micro-usd"'
    assert headers["RateLimit"] == '"cost_micro_usd_per_month";r=5000000'


@pytest.mark.parametrize("name", ['a"b\\c', "naïve", "tab\there", "line\nbreak", ""])
@pytest.mark.parametrize("value", [0, 1, 2**63 - 1])
def test_whatever_a_pipeline_is_called_and_a_limit_is_the_fields_are_well_formed(
    name: str, value: int
) -> None:
    scope = f"pipeline:{name}"
    headers = rate_headers(
        [use(each, value, min(value, 1), scope=scope) for each in Dimension], NOW
    )
    assert LIST.fullmatch(headers["RateLimit-Policy"])
    assert LIST.fullmatch(headers["RateLimit"])


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0ms"), (0.0121, "13ms"), (1, "1s"), (59.2, "1m0s"), (360, "6m0s"), (3_661, "1h1m1s")],
)
def test_spans_are_told_as_openai_tells_them(seconds: float, told: str) -> None:
    headers = rate_headers([use(Dimension.TOKENS_PER_DAY, 10, 1, s=seconds)], NOW)
    assert headers["x-ratelimit-reset-tokens"] == told


@pytest.mark.parametrize(
    ("wait", "retry_after", "should_retry"),
    [
        (timedelta(seconds=0.2), "1", None),
        (timedelta(seconds=60), "60", None),
        (timedelta(seconds=60.1), "61", "false"),
        (None, None, "false"),
    ],
)
def test_clients_are_told_to_retry_where_a_minute_helps(
    wait: timedelta | None, retry_after: str | None, should_retry: str | None
) -> None:
    full = use(Dimension.TOKENS_PER_DAY, 10, 10, s=9_000)
    headers = refusal_headers(Refusal(full, 5, wait), [full], NOW)
    assert headers.get("Retry-After") == retry_after
    assert headers.get("x-should-retry") == should_retry
    ending = f";t={retry_after}" if retry_after else ";r=0"
    assert headers["RateLimit"].endswith(ending), "never later than Retry-After"


@pytest.mark.parametrize(
    ("dimension", "wait", "sentence"),
    [
        (
            Dimension.COST_PER_DAY,
            timedelta(hours=5),
            "This workspace may spend $5.00 a day: $4.50 is used, and this run may need $0.7500. "
            "Try again in 5 hours.",
        ),
        (
            Dimension.COST_PER_MONTH,
            None,
            "This workspace may spend $5.00 a month: $4.50 is used, and this run may need $0.7500. "
            "Waiting does not help: ask fewer models, or a shorter question.",
        ),
    ],
)
def test_money_is_told_in_dollars(
    dimension: Dimension, wait: timedelta | None, sentence: str
) -> None:
    refusal = Refusal(use(dimension, 5_000_000, 4_500_000), 750_000, wait)
    assert refusal_sentence(refusal) == sentence
