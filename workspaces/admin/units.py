"""Limits as operators read and write them: money in dollars, everything else as it is counted."""

import re
from decimal import Decimal, InvalidOperation

from django.core.exceptions import ValidationError

from workspaces.domain.quotas import MONEY, Dimension
from workspaces.words import MICRO

# A billion dollars, and far from where sums over many rows would leave 64 bits.
MOST = 10**15
# "2.000" is two thousand to half of the world. Nobody writes dollars so, and no page of ours does.
_DOUBTFUL = re.compile(r"\$?[1-9]\d{0,2}\.\d\d0")
_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+(?![\d,])")

_CAPTIONS = {
    Dimension.REQUESTS_PER_MINUTE: "Requests a minute",
    Dimension.CONCURRENT_RUNS: "Runs at once",
    Dimension.FANOUT_WIDTH: "Models a run may ask",
    Dimension.TOKENS_PER_DAY: "Tokens a day",
    Dimension.COST_PER_DAY: "Dollars a day",
    Dimension.COST_PER_MONTH: "Dollars a month",
}

CHOICES = [("", "Choose one"), *((each.value, caption) for each, caption in _CAPTIONS.items())]


def caption(dimension: str) -> str:
    """ "Dollars a day": what a limit counts, with its unit."""
    return _CAPTIONS[Dimension(dimension)]


def dollars(micro_usd: int) -> str:
    """Exactly, with two decimals or as many as it takes: 12_500_000 → "12.50", 1 → "0.000001"."""
    text = f"{Decimal(micro_usd) / MICRO:.6f}".rstrip("0")
    whole, _, part = text.partition(".")
    return f"{whole}.{part:0<2}"


def shown(dimension: str, value: int) -> str:
    """ "$12.50", "1,000,000"."""
    return f"${dollars(value)}" if Dimension(dimension) in MONEY else f"{value:,}"


def written(dimension: str, value: int) -> str:
    """As the field that is filled in again has it: "12.50", "1000000"."""
    return dollars(value) if Dimension(dimension) in MONEY else str(value)


def micro_usd_of(text: str) -> int:
    """ "12.50" → 12_500_000, exactly. Raises ValidationError."""
    try:
        micro = Decimal(_without_thousands(text.strip().removeprefix("$"))) * MICRO
    except InvalidOperation:
        raise ValidationError("Write an amount in dollars, like 12.50.") from None
    if not micro.is_finite() or micro < 0 or micro > MOST:
        raise ValidationError("Write an amount from 0 to 1,000,000,000 dollars.")
    if micro != int(micro):
        raise ValidationError("A millionth of a dollar is the least there is: six decimals.")
    return int(micro)


def limit_of_text(dimension: str, text: str) -> int:
    """What was written for ``dimension``, in its unit. Raises ValidationError."""
    if Dimension(dimension) in MONEY:
        if _DOUBTFUL.fullmatch(text.strip()):
            raise ValidationError("A point parts dollars from cents. Write 2000, or 2.00.")
        return micro_usd_of(text)
    digits = _without_thousands(text.strip())
    if not (digits.isascii() and digits.isdigit()):
        raise ValidationError("Write a whole number, 0 for none at all.")
    if len(digits) > 16 or int(digits) > MOST:
        raise ValidationError(f"Write a number up to {MOST:,}.")
    return int(digits)


def _without_thousands(text: str) -> str:
    """ "1,000" → "1000". A comma that parts no thousands stays, and is refused by whoever reads
    on: "1,5" is one and a half to half of the world, and must not become fifteen."""
    return text.replace(",", "") if _THOUSANDS.match(text) else text
