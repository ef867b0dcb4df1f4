"""What a call costs, in millionths of a US dollar, as whole numbers."""

from dataclasses import dataclass
from typing import Protocol

_TOKENS_A_PRICE_IS_FOR = 1_000_000


class TokenCounts(Protocol):
    """What a provider counted: ``input_tokens`` includes ``cached_tokens``."""

    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Price:
    """Micro-dollars for a million tokens: $2.50 for a million is 2_500_000.

    ``cached_input`` is the price of input tokens the provider had in its prompt cache; None when it
    gives no discount or none is known.
    """

    input: int
    output: int
    cached_input: int | None = None


FREE = Price(0, 0)


def cost_micro_usd(usage: TokenCounts, price: Price) -> int:
    """The cost of one call, rounded **up** once, after the sum.

    So a call that cost anything never counts as free, a budget is never overrun by rounding, and a
    call is overstated by less than one micro-dollar. More cached tokens than input tokens count as
    all input being cached.
    """
    cached = min(usage.cached_tokens, usage.input_tokens)
    cached_price = price.input if price.cached_input is None else price.cached_input
    parts = (
        (usage.input_tokens - cached) * price.input
        + cached * cached_price
        + usage.output_tokens * price.output
    )
    return -(-parts // _TOKENS_A_PRICE_IS_FOR)
