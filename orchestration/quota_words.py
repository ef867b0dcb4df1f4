"""Quotas as people and programs read them: a refusal in a sentence, a limit as JSON."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from orchestration.templatetags.rex_format import money
from workspaces.domain.quotas import BUDGETS, Dimension, Refusal, Use, split_scope

_MINUTE: Final = 60
_HOUR: Final = 3_600
_DAY: Final = 86_400


def quota_json(use: Use) -> dict[str, Any]:
    """The members that ``GET /api/quotas`` and a refusal share. Amounts are in the unit that the
    name tells, of requests per minute those that may come at once."""
    scope, scope_name = split_scope(use.limit.scope)
    return {
        "name": use.limit.dimension.value,
        "scope": scope,
        "scope_name": scope_name,
        "limit": use.limit.value,
        "used": use.used,
        "reserved": use.reserved,
        "renews_at": use.renews_at.isoformat() if use.renews_at else None,
    }


def refusal_json(refusal: Refusal) -> dict[str, Any]:
    """The member ``quota`` of a refusal's problem."""
    return quota_json(refusal.use) | {
        "asked": refusal.asked,
        "retry_after_s": refusal.retry_after_s,
    }


def refusal_sentence(refusal: Refusal) -> str:
    """What is in the way, with its numbers, and what helps."""
    return f"{_what_is_in_the_way(refusal)} {_what_helps(refusal)}"


def pause_sentence(reason: str) -> str:
    """That the workspace is paused, and the operator's ``reason``, which may be empty."""
    why = f" {reason}" if reason else ""
    return f"This workspace is paused; nothing new is started in it.{why}"


def _what_is_in_the_way(refusal: Refusal) -> str:
    use, limit = refusal.use, refusal.use.limit
    who = _WHO[split_scope(limit.scope)[0]].format(split_scope(limit.scope)[1])
    if limit.value == 0:
        return f"{who} may have {_NOTHING[limit.dimension]}."
    match limit.dimension:
        case Dimension.REQUESTS_PER_MINUTE:
            at_once = f", {limit.capacity:,} of them at once" if limit.burst else ""
            used = "it is used" if limit.value == 1 else "they are used"
            return f"{who} may start {_many(limit.value, 'run')} a minute{at_once}; {used}."
        case Dimension.CONCURRENT_RUNS:
            under_way = "1 is" if use.reserved == 1 else f"{use.reserved:,} are"
            return f"{who} may have {_many(limit.value, 'run')} at once, and {under_way} under way."
        case Dimension.FANOUT_WIDTH:
            return (
                f"{who} may ask {_many(limit.value, 'model')} in a run, "
                f"and this one asks {refusal.asked:,}."
            )
        case _:
            written = _UNITS[limit.dimension]
            held = f", {written(use.reserved)} held for runs under way" if use.reserved else ""
            return (
                f"{who} may {_SPENDS[limit.dimension].format(written(limit.value))}: "
                f"{written(use.used)} {'is' if written is money else 'are'} used{held}, "
                f"and this run may need {written(refusal.asked)}."
            )


def _what_helps(refusal: Refusal) -> str:
    limit, wait_s = refusal.use.limit, refusal.retry_after_s
    if wait_s is not None:
        return f"Try again in {_wait(wait_s)}."
    if limit.value == 0:
        return "An operator of Rex can raise that."
    if limit.dimension in BUDGETS:
        return "Waiting does not help: ask fewer models, or a shorter question."
    return "Ask fewer models."


_WHO: Final = {
    "workspace": "This workspace",
    "key": "This API key",
    "pipeline": "The {} pipeline",
}
_NOTHING: Final[Mapping[Dimension, str]] = {
    Dimension.REQUESTS_PER_MINUTE: "no runs: its quota of runs a minute is 0",
    Dimension.CONCURRENT_RUNS: "no runs: its quota of runs at once is 0",
    Dimension.FANOUT_WIDTH: "no runs: its quota of models in a run is 0",
    Dimension.TOKENS_PER_DAY: "no tokens: its quota a day is 0",
    Dimension.COST_PER_DAY: "no money: its quota a day is $0",
    Dimension.COST_PER_MONTH: "no money: its quota a month is $0",
}
_SPENDS: Final[Mapping[Dimension, str]] = {
    Dimension.TOKENS_PER_DAY: "use {} a day",
    Dimension.COST_PER_DAY: "spend {} a day",
    Dimension.COST_PER_MONTH: "spend {} a month",
}


def _many(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


_UNITS: Final[Mapping[Dimension, Callable[[int], str]]] = {
    Dimension.TOKENS_PER_DAY: lambda number: _many(number, "token"),
    Dimension.COST_PER_DAY: money,
    Dimension.COST_PER_MONTH: money,
}


def _wait(seconds: int) -> str:
    """Rounded up, in its largest unit that says enough."""
    if seconds < 2 * _MINUTE:
        return _many(seconds, "second")
    if seconds < 2 * _HOUR:
        return _many(-(-seconds // _MINUTE), "minute")
    if seconds < 2 * _DAY:
        hours, minutes = divmod(-(-seconds // _MINUTE), 60)
        return _many(hours, "hour") + (f" and {_many(minutes, 'minute')}" if minutes else "")
    return _many(-(-seconds // _DAY), "day")
