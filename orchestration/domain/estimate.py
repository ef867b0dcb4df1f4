"""What a run may use before it has begun: at the least, as a rule, and at the most."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestration.domain.cost import Price


@dataclass(frozen=True, slots=True)
class PricedAt:
    """A price and where it is from: ``version`` is "litellm-1.106.2", "override-17" or "free"."""

    price: Price
    version: str

    def to_json(self) -> dict[str, Any]:
        """As ``price`` of a call's row has it."""
        return {
            "version": self.version,
            "input": self.price.input,
            "output": self.price.output,
            "cached_input": self.price.cached_input,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "PricedAt":
        price = Price(stored["input"], stored["output"], stored["cached_input"])
        return cls(price, stored["version"])


@dataclass(frozen=True, slots=True)
class Amount:
    """``cost_micro_usd`` is None where a price is not known."""

    tokens: int
    cost_micro_usd: int | None


@dataclass(frozen=True, slots=True)
class Part:
    """One call of a run (``name`` is its label), or all drafts of its synthesis together."""

    name: str
    model: str
    priced_at: PricedAt | None
    low: Amount
    expected: Amount
    worst: Amount


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """``synthesis`` is None where the pipeline writes none."""

    calls: tuple[Part, ...]
    synthesis: Part | None
