"""What a run uses: sums for its rows, and charges for the leases that hold room for it.

A charge leaves in the batch of the very fact it follows from. docs/adr/0006-reserve-then-settle.md
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestration.domain.budget import INSTRUCTION_CHARS
from orchestration.domain.cost import Price, cost_micro_usd
from orchestration.domain.estimate import SYNTHESIS, Amount, PricedAt
from orchestration.domain.policies import CHARS_PER_TOKEN
from orchestration.domain.routing import RECORDED
from orchestration.fanout import wire
from orchestration.fanout.prices import price_of
from workspaces.actions.settle import Charge


@dataclass(frozen=True, slots=True)
class Terms:
    """What a run is billed by. ``price_of`` gives None for unknown models. ``pool`` is the most
    its synthesis may use, None for a run from before there were reservations."""

    price_of: Callable[[str], Price | None]
    pool: Amount | None = None
    question_chars: int = 0


class Bill:
    def __init__(self, models: Mapping[str, str], terms: Terms) -> None:
        self.totals = {"input_tokens": 0, "output_tokens": 0}
        self.cost_micro_usd: int | None = 0
        self._models = models
        self._terms = terms
        self._drafted = Amount(0, 0)

    def restore(self, stream: str, spent: Mapping[str, Any]) -> None:
        """What another driver had counted of ``stream``, and charged; empty where it had not."""
        if not spent:
            return
        cost = spent["cost_micro_usd"]
        for name in self.totals:
            self.totals[name] += spent[name]
        self._add_cost(cost)
        if stream not in self._models:
            tokens = spent["input_tokens"] + spent["output_tokens"]
            self._drafted += Amount(tokens, cost or 0)

    def affords(self, draft: Amount) -> bool:
        """Whether a draft that may use so much fits in what is left of the pool."""
        pool = self._terms.pool
        if pool is None:
            return True
        tokens = self._drafted.tokens + draft.tokens
        cost = (self._drafted.cost_micro_usd or 0) + (draft.cost_micro_usd or 0)
        return tokens <= pool.tokens and cost <= (pool.cost_micro_usd or 0)

    def count(
        self, stream: str, usage: wire.Usage, model: str, before: Mapping[str, Any], *, cached: bool
    ) -> tuple[dict[str, Any], Charge]:
        """Count an attempt of ``stream``; ``before`` is what its attempts had used until then.

        Returns the sums with it, as a row has them, and the charge for its lease. The tokens of a
        cached answer are told, and were paid for when it was made; a replay's likewise.
        """
        price = Price(0, 0) if cached else self._terms.price_of(model)
        cost = None if price is None else cost_micro_usd(usage, price)
        self.totals["input_tokens"] += usage.input_tokens
        self.totals["output_tokens"] += usage.output_tokens
        self._add_cost(cost)
        before_cost = before.get("cost_micro_usd", 0)
        sums = {
            "input_tokens": before.get("input_tokens", 0) + usage.input_tokens,
            "output_tokens": before.get("output_tokens", 0) + usage.output_tokens,
            "cached_tokens": before.get("cached_tokens", 0) + usage.cached_tokens,
            "usage_estimated": before.get("usage_estimated", False) or usage.estimated,
            "cost_micro_usd": None if cost is None or before_cost is None else before_cost + cost,
        }
        played = cached or model.startswith(f"{RECORDED}/")
        tokens = 0 if played else usage.input_tokens + usage.output_tokens
        if stream not in self._models:
            self._drafted += Amount(tokens, cost or 0)
        return sums, Charge(self.lease_of(stream), tokens, cost or 0)

    def _add_cost(self, cost: int | None) -> None:
        # One unknown price makes the sum unknown: a sum without it would be a wrong number.
        known = cost is not None and self.cost_micro_usd is not None
        self.cost_micro_usd = (self.cost_micro_usd or 0) + (cost or 0) if known else None

    def lease_of(self, stream: str) -> str:
        return stream if stream in self._models else SYNTHESIS

    def estimated(self, *, read_chars: int, written_chars: int) -> wire.Usage:
        """The usage of a call that was sent and whose end nobody told: by what went each way. The
        provider may have counted more, or less; that nobody knows is no reason to count nothing."""
        return wire.Usage(
            input_tokens=_tokens(self._terms.question_chars + read_chars),
            output_tokens=_tokens(written_chars),
            cached_tokens=0,
            reasoning_tokens=0,
            estimated=True,
        )


def price_in(fixed: Mapping[str, PricedAt], model: str) -> Price | None:
    """The price fixed for ``model`` when the run was accepted; for a model that only an attempt
    turned to, and for runs from before prices were kept, the table's."""
    found = fixed.get(model)
    return price_of(model) if found is None else found.price


def read_by_draft(source_chars: int) -> int:
    """Characters a draft was given besides the question, about."""
    return INSTRUCTION_CHARS + source_chars


def _tokens(chars: int) -> int:
    return -(-chars // CHARS_PER_TOKEN)
