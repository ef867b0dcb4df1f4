"""Numbers of use on pages: each says what it is (``<data>``), and leads to the runs it sums."""

from collections.abc import Mapping
from typing import Any, Final
from zoneinfo import ZoneInfo

from django import template
from django.urls import reverse
from django.utils import formats
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from orchestration.domain.forecast import Forecast
from orchestration.domain.run import CallState
from orchestration.quota_bars import QuotaBar
from orchestration.run_filter import RunFilter
from orchestration.templatetags.rex_format import count, money, run_word
from orchestration.usage import Usage
from orchestration.usage_sums import REPLAYS, Sums
from workspaces.domain.quotas import Dimension

register = template.Library()

_OF_THE_CACHE: Final = frozenset({"cached", "saved_tokens", "saved_micro_usd"})


@register.simple_tag
def sum_of(sums: Sums, name: str, wanted: RunFilter | None = None) -> SafeString:
    """The sum called ``name``; with ``wanted``, as a link to the runs it is the sum of."""
    unknown = {"cost_micro_usd": sums.unpriced, "saved_micro_usd": sums.saved_unpriced}
    value = _value(sums, name)
    if not value and not unknown.get(name):
        wanted = None
    elif wanted is not None and name in _OF_THE_CACHE:
        wanted = wanted.but(cached=True)
    return _data(_shown(sums, name), value, name, wanted)


@register.simple_tag
def number_of(number: int, name: str, wanted: RunFilter | None = None) -> SafeString:
    """How many runs or calls there are, as a link to them."""
    return _data(count(number), number, name, wanted if number else None)


def _data(words: str | SafeString, value: int, name: str, wanted: RunFilter | None) -> SafeString:
    number = format_html('<data value="{}" data-sum="{}">{}</data>', value, name, words)
    if wanted is None:
        return number
    return format_html('<a href="{}">{}</a>', list_address(wanted), number)


def _value(sums: Sums, name: str) -> int:
    names = {"cost_micro_usd": "known_micro_usd"}
    value: int = getattr(sums, names.get(name, name))
    return value


def _shown(sums: Sums, name: str) -> str | SafeString:
    match name:
        case "cost_micro_usd":
            return _at_least(sums.cost_micro_usd, sums.unpriced)
        case "saved_micro_usd":
            return _at_least(sums.saved, sums.saved_unpriced)
        case _:
            return count(_value(sums, name))


def _at_least(micro_usd: int | None, unpriced: int) -> str | SafeString:
    if micro_usd is None:
        return "unknown"
    if not unpriced:
        return money(micro_usd)
    least = '<span class="vh">at least </span><span aria-hidden="true">≥ </span>{}'
    return format_html(least, money(micro_usd))


@register.simple_tag
def list_address(wanted: RunFilter) -> str:
    return f"{reverse('run-list')}?{wanted.query}" if wanted.query else reverse("run-list")


@register.simple_tag
def period_address(period: str, wanted: RunFilter) -> str:
    """The usage page of a period that has a name, with the filters that are on."""
    return f"{reverse('usage')}?{RunFilter.query_of({'period': period} | wanted.params)}"


@register.filter
def key_name(member: str, names: Mapping[str, str]) -> str:
    """What the key that started runs is called; "" for a person."""
    return names.get(member, "")


@register.filter
def model_name(model: str) -> str:
    return "Replays of recorded answers" if model == REPLAYS else model


@register.simple_tag
def filters_on(wanted: RunFilter, keep: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """What ``wanted`` asks for in words, each with the query of the page without it."""
    chips = []
    for parameter in wanted.params:
        rest = {**(keep or {}), **wanted.without(parameter).params}
        chips.append({"words": _words(wanted, parameter), "query": RunFilter.query_of(rest)})
    return chips


def _words(wanted: RunFilter, parameter: str) -> str:
    match parameter:
        case "from":
            return f"from {_day(wanted.since)}"
        case "to":
            return f"to {_day(wanted.until)}"
        case "model":
            return "replays" if wanted.model == REPLAYS else f"model {wanted.model}"
        case "part":
            return f"{wanted.part} only"
        case "pipeline":
            return f"pipeline {wanted.pipeline}"
        case "member":
            return f"started by {wanted.member}"
        case "status":
            return f"runs that are {run_word(wanted.status)}"
        case "reason":
            return f"with {wanted.reason}"
        case "state":
            return f"calls that are {_CALL_WORDS.get(wanted.state, wanted.state)}"
        case _:
            return "from the cache"


_CALL_WORDS: Final[Mapping[str, str]] = {
    CallState.TIMEOUT: "timed out",
    CallState.CANCELLED: "stopped",
}


def _day(day: Any) -> str:
    return formats.date_format(day, "j M Y")


@register.simple_tag
def day_chart(usage: Usage) -> dict[str, Any]:
    """A column for each day, oldest first: of cost, or of tokens where nothing cost anything."""
    costs = usage.totals.known_micro_usd > 0
    values = [
        each.sums.known_micro_usd if costs else each.sums.input_tokens + each.sums.output_tokens
        for each in reversed(usage.by_day)
    ]
    most = max(values, default=0)
    return {
        "what": "Cost" if costs else "Tokens",
        "most": money(most) if costs else count(most),
        "columns": _columns(values, most) if most else "",
    }


def _columns(values: list[int], most: int) -> SafeString:
    """SVG placed in percent, so that it fits any width and needs no style attribute."""
    step = 100 / len(values)
    gap = step * (0.25 if len(values) < 60 else 0)
    return format_html_join(
        "",
        '<rect x="{}%" y="{}%" width="{}%" height="{}%"></rect>',
        (
            (
                f"{n * step + gap / 2:.3f}",
                f"{100 - _height(value, most):.2f}",
                f"{step - gap:.3f}",
                f"{_height(value, most):.2f}",
            )
            for n, value in enumerate(values)
            if value
        ),
    )


def _height(value: int, most: int) -> float:
    return max(1.5, 100 * value / most)


@register.filter
def quota_caption(bar: QuotaBar) -> str:
    """With a burst, the bar is of the requests that may come at once."""
    limit = bar.use.limit
    if limit.dimension is Dimension.REQUESTS_PER_MINUTE and limit.capacity != limit.value:
        return f"Requests at once, {count(limit.value)} a minute"
    return _CAPTIONS.get(bar.use.limit.dimension, bar.use.limit.dimension.caption)


_CAPTIONS: Final = {
    Dimension.COST_PER_DAY: "Money a day",
    Dimension.COST_PER_MONTH: "Money a month",
}


@register.simple_tag
def amount(bar: QuotaBar, value: int) -> str:
    """A number of the quota's unit."""
    return money(value) if bar.is_money else count(value)


@register.simple_tag
def used_of(bar: QuotaBar) -> SafeString:
    """What is used of a budget, as a link to the runs that used it."""
    name = "known_micro_usd" if bar.is_money else "tokens"
    words = money(bar.use.used) if bar.is_money else count(bar.use.used)
    return _data(words, bar.use.used, name, bar.wanted if bar.use.used else None)


@register.simple_tag
def quota_svg(bar: QuotaBar) -> SafeString:
    """The used part, behind it the reserved one, and a mark where a fifth is left."""
    limit = bar.use.limit.capacity
    used = min(100.0, 100 * bar.use.used / limit) if limit else 100.0
    held = min(100.0 - used, 100 * bar.use.reserved / limit) if limit else 0.0
    return format_html(
        '<rect class="used" width="{}%" height="100%"></rect>'
        '<rect class="held" x="{}%" width="{}%" height="100%"></rect>'
        '<line x1="80%" x2="80%" y1="0" y2="100%"></line>',
        f"{used:.2f}",
        f"{used:.2f}",
        f"{held:.2f}",
    )


@register.filter
def quota_level(bar: QuotaBar) -> str:
    """``full``, ``high`` from 80 %, or ``low``."""
    return "full" if bar.percent >= 100 else "high" if bar.percent >= 80 else "low"


@register.simple_tag
def forecast_sentence(bar: QuotaBar, zone: str) -> str:
    """Where it is going, as far as can be told; "" where nothing can."""
    dimension = bar.use.limit.dimension
    if not bar.is_budget:
        return ""
    if bar.use.used >= bar.use.limit.value:
        return "It is used up."
    forecast = bar.forecast
    if forecast is None:
        return "There is too little use yet for a forecast." if bar.use.used else ""
    if dimension is Dimension.COST_PER_MONTH:
        if forecast.used_up_at:
            day = formats.date_format(forecast.used_up_at.astimezone(ZoneInfo(zone)), "j F")
            return f"At the pace of the last days the month's budget is used up on about {day}."
        expected = _about(bar, forecast.expected)
        return f"At the pace of the last days: {expected} by the end of the month."
    if forecast.used_up_at:
        return f"At this pace the day's budget is used up at about {_clock(forecast, zone)}."
    return f"At this pace: {_about(bar, forecast.expected)} by the end of the day."


def _about(bar: QuotaBar, value: int) -> str:
    """To two figures: a forecast knows no more."""
    rounded = round(value, -max(0, len(str(value)) - 2))
    if not bar.is_money:
        return f"about {count(rounded)} tokens"
    if rounded >= 10_000:
        return f"about ${rounded / 1e6:,.2f}"
    return f"about {money(rounded)}"


def _clock(forecast: Forecast, zone: str) -> str:
    """To ten minutes: more would be a promise."""
    assert forecast.used_up_at is not None
    at = forecast.used_up_at.astimezone(ZoneInfo(zone))
    minutes = min(round((at.hour * 60 + at.minute) / 10) * 10, 24 * 60 - 10)
    return f"{minutes // 60:02d}:{minutes % 60:02d}"
