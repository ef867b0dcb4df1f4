"""What an answer's headers say of the asker's limits: pure, over ``Use`` and with ``now`` given.

Two families. ``x-ratelimit-…`` are what clients of OpenAI's API read: one limit of requests and one
of tokens. ``RateLimit-Policy`` and ``RateLimit`` are the fields of draft-ietf-httpapi-ratelimit-
headers-10: all limits, by name, as structured fields (RFC 9651).
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from workspaces.domain.quotas import Dimension, Limit, Refusal, Use, split_scope

# The draft's registry has requests and concurrent-requests; what it has no word for is named too,
# since a quota without a unit would be read as one of requests.
_UNITS: Final = {
    Dimension.CONCURRENT_RUNS: "concurrent-requests",
    Dimension.TOKENS_PER_DAY: "tokens",
    Dimension.COST_PER_DAY: "micro-usd",
    Dimension.COST_PER_MONTH: "micro-usd",
}
# A month has no window: its length is not the same over a sequence of answers.
_WINDOWS_S: Final = {
    Dimension.REQUESTS_PER_MINUTE: 60,
    Dimension.TOKENS_PER_DAY: 86_400,
    Dimension.COST_PER_DAY: 86_400,
}
_LARGEST: Final = 999_999_999_999_999  # of an Integer in a structured field


def rate_headers(uses: Sequence[Use], now: datetime) -> dict[str, str]:
    """How the limits of the asker stand; nothing where there are none.

    The width of a fan-out is not among them: it is used up by nothing.
    """
    told = [use for use in uses if use.limit.dimension is not Dimension.FANOUT_WIDTH]
    return _openai(told, now) | _ietf(told, [_reset_s(use, now) for use in told])


def refusal_headers(refusal: Refusal, uses: Sequence[Use], now: datetime) -> dict[str, str]:
    """``rate_headers`` and when to come again. The limit that refused says the same as
    ``Retry-After``: what others hold may come back long before its window ends."""
    told = [use for use in uses if use.limit.dimension is not Dimension.FANOUT_WIDTH]
    resets = [
        refusal.retry_after_s if use.limit == refusal.use.limit else _reset_s(use, now)
        for use in told
    ]
    headers = _openai(told, now) | _ietf(told, resets)
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    if not refusal.should_retry:
        # Without it a client of OpenAI's API asks twice more, within seconds.
        headers["x-should-retry"] = "false"
    return headers


def _openai(uses: Sequence[Use], now: datetime) -> dict[str, str]:
    headers = {}
    for kind, dimension in (
        ("requests", Dimension.REQUESTS_PER_MINUTE),
        ("tokens", Dimension.TOKENS_PER_DAY),
    ):
        known = [use for use in uses if use.limit.dimension is dimension]
        if not known:
            continue
        # Of several (the workspace's, the key's) the one that is used up first.
        use = min(known, key=lambda each: each.remaining)
        headers[f"x-ratelimit-limit-{kind}"] = str(use.limit.value)
        headers[f"x-ratelimit-remaining-{kind}"] = str(use.remaining)
        if use.renews_at is not None:
            headers[f"x-ratelimit-reset-{kind}"] = _span(use.renews_at - now)
    return headers


def _ietf(uses: Sequence[Use], resets_s: Sequence[int | None]) -> dict[str, str]:
    if not uses:
        return {}
    return {
        "RateLimit-Policy": ", ".join(_policy(use.limit) for use in uses),
        "RateLimit": ", ".join(
            f"{_name(use.limit)};r={min(use.remaining, _LARGEST)}"
            + ("" if reset_s is None else f";t={reset_s}")
            for use, reset_s in zip(uses, resets_s, strict=True)
        ),
    }


def _policy(limit: Limit) -> str:
    item = f"{_name(limit)};q={min(limit.value, _LARGEST)}"
    if limit.dimension in _UNITS:
        item += f';qu="{_UNITS[limit.dimension]}"'
    if limit.dimension in _WINDOWS_S:
        item += f";w={_WINDOWS_S[limit.dimension]}"
    if limit.burst:
        item += f";rex-burst={limit.capacity}"
    return item


def _name(limit: Limit) -> str:
    """A String: ``"runs"`` of the workspace, ``"key.runs"``, ``"pipeline.council.runs"``."""
    kind, name = split_scope(limit.scope)
    of = {"workspace": "", "key": "key."}.get(kind, f"pipeline.{name}.")
    plain = f"{of}{limit.dimension.value}".encode("ascii", "replace").decode()
    # Neither a quote nor a control character of a pipeline's name may end the String.
    return (
        '"'
        + "".join(char if char.isprintable() and char not in '"\\' else "?" for char in plain)
        + '"'
    )


def _reset_s(use: Use, now: datetime) -> int | None:
    """Whole seconds until there is more of it; None where nothing is used, or nobody knows."""
    if use.renews_at is None or not use.used:
        return None
    wait = use.renews_at - now
    if use.limit.dimension is Dimension.REQUESTS_PER_MINUTE:
        # All of the burst is back then; the first of it comes back the others' spacings earlier.
        wait -= use.limit.rate.spacing * (use.used - 1)
    return max(0, -(-wait // timedelta(seconds=1)))


def _span(wait: timedelta) -> str:
    """As OpenAI's clients parse it: ``120ms``, ``1s``, ``6m0s``, ``1h0m0s``."""
    if wait < timedelta(seconds=1):
        return f"{max(0, -(-wait // timedelta(milliseconds=1)))}ms"
    minutes, seconds = divmod(-(-wait // timedelta(seconds=1)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
