"""What calls used: the sums that the list of runs, the usage page, CSV and the API all show.

**Tokens** are those a provider was asked for. An answer from the cache is counted with what it
would have used (``saved_*``: its tokens at the price that was in force), and one that is played
again from a recording with nothing. **Cost** is the sum of the prices that are known; ``unpriced``
counts what used tokens at a price nobody knows, so a sum that has any is a least.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from django.db.models import (
    BigIntegerField,
    Case,
    CharField,
    Count,
    ExpressionWrapper,
    F,
    Func,
    Q,
    QuerySet,
    Sum,
    Value,
    When,
)
from django.db.models.functions import Coalesce, Least

from orchestration.domain.routing import RECORDED
from orchestration.domain.run import CallState
from orchestration.models import Call, Synthesis

REPLAYS: Final = f"{RECORDED}/*"


@dataclass(frozen=True, slots=True)
class Sums:
    """``calls`` to the models asked, ``cached`` of them answered from the cache; ``drafts`` of the
    synthesis. Tokens and micro-dollars as above."""

    calls: int = 0
    drafts: int = 0
    cached: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    known_micro_usd: int = 0
    unpriced: int = 0
    saved_tokens: int = 0
    saved_micro_usd: int = 0
    saved_unpriced: int = 0

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*(getattr(self, name) + getattr(other, name) for name in _NAMES))

    @property
    def cost_micro_usd(self) -> int | None:
        """None where no price is known; with ``unpriced``, the least it can be."""
        return None if self.unpriced and not self.known_micro_usd else self.known_micro_usd

    @property
    def saved(self) -> int | None:
        """Micro-dollars the cache saved, as ``cost_micro_usd``."""
        return None if self.saved_unpriced and not self.saved_micro_usd else self.saved_micro_usd

    def as_json(self) -> dict[str, int | None]:
        return {
            "calls": self.calls,
            "drafts": self.drafts,
            "cached": self.cached,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost_micro_usd": self.cost_micro_usd,
            "unpriced": self.unpriced,
            "saved_tokens": self.saved_tokens,
            "saved_micro_usd": self.saved,
            "saved_unpriced": self.saved_unpriced,
        }


_NAMES: Final = tuple(each.name for each in fields(Sums))


class _PriceOf(Func):
    """A number of the JSON a price is stored as; NULL where it has none."""

    output_field = BigIntegerField()

    def __init__(self, name: str) -> None:
        super().__init__(F("price"), name=name)

    def as_sqlite(self, compiler: Any, connection: Any, **_: Any) -> tuple[str, Any]:
        template = "JSON_EXTRACT(%(expressions)s, '$.%(name)s')"
        return self.as_sql(compiler, connection, template=template)

    def as_postgresql(self, compiler: Any, connection: Any, **_: Any) -> tuple[str, Any]:
        template = "((%(expressions)s)->>'%(name)s')::bigint"
        return self.as_sql(compiler, connection, template=template)


def _saved() -> Any:
    """What a cached answer would have cost: ``domain.cost.cost_micro_usd``, in the database."""
    known = Least(F("cached_tokens"), F("input_tokens"))
    parts = (
        (F("input_tokens") - known) * _PriceOf("input")
        + known * Coalesce(_PriceOf("cached_input"), _PriceOf("input"))
        + F("output_tokens") * _PriceOf("output")
    )
    return ExpressionWrapper((parts + 999_999) / 1_000_000, output_field=BigIntegerField())


_PLAYED = Q(model__startswith=REPLAYS[:-1])
_UNPRICED = Q(cost_micro_usd__isnull=True) & (Q(input_tokens__gt=0) | Q(output_tokens__gt=0))
_CACHED = Q(state=CallState.CACHED)


def sums_of_calls() -> dict[str, Any]:
    """The aggregates of ``Sums`` over calls, but for what the cache saved. All of it is in the
    index ``call_usage``: the rows themselves are long, with their texts."""
    return {
        "calls": Count("pk"),
        "cached": Count("pk", filter=_CACHED),
        **_sums(~_CACHED & ~_PLAYED),
    }


def sums_of_cached() -> dict[str, Any]:
    """What the cache saved, over calls that were answered from it (``from_cache``)."""
    return {
        "saved_tokens": Sum(F("input_tokens") + F("output_tokens")),
        "saved_micro_usd": Sum(_saved()),
        "saved_unpriced": Count("pk", filter=Q(price__isnull=True)),
    }


def from_cache(calls: QuerySet[Call]) -> QuerySet[Call]:
    return calls.filter(_CACHED)


def sums_of_drafts() -> dict[str, Any]:
    """The same over drafts, which are never cached."""
    return {"drafts": Count("pk"), **_sums(~_PLAYED)}


def _sums(asked: Q) -> dict[str, Any]:
    return {
        "sum_input": Sum("input_tokens", filter=asked),
        "sum_output": Sum("output_tokens", filter=asked),
        "known_micro_usd": Sum("cost_micro_usd"),
        "unpriced": Count("pk", filter=_UNPRICED),
    }


def read_sums(row: Mapping[str, Any]) -> Sums:
    """A row of those aggregates; a sum of nothing is NULL to a database."""
    names = {"input_tokens": "sum_input", "output_tokens": "sum_output"}
    return Sums(**{name: row.get(names.get(name, name)) or 0 for name in _NAMES})


def total_of(calls: QuerySet[Call], drafts: QuerySet[Synthesis]) -> Sums:
    """Three queries."""
    rows = (
        calls.aggregate(**sums_of_calls()),
        from_cache(calls).aggregate(**sums_of_cached()),
        drafts.aggregate(**sums_of_drafts()),
    )
    return sum(map(read_sums, rows), Sums())


def asked_model() -> Case:
    """The model, all recordings as one: each replay names recordings of its own."""
    return Case(When(_PLAYED, then=Value(REPLAYS)), default=F("model"), output_field=CharField())
