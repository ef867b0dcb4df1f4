"""What models cost: the operator's word first, then LiteLLM's table."""

from collections.abc import Iterable

from django.db.models import Max

from orchestration.domain.cost import FREE, Price
from orchestration.domain.estimate import PricedAt
from orchestration.domain.routing import RECORDED
from orchestration.fanout.prices import price_of, table_version
from orchestration.models import ModelPrice


def prices_of(models: Iterable[str]) -> dict[str, PricedAt | None]:
    """The price of each Rex model id, None where nobody knows one. One query.

    A replay is free whatever anybody says; so is a model on an own machine, unless an operator says
    what it costs.
    """
    wanted = set(models)
    newest = ModelPrice.objects.filter(model__in=wanted).values("model").annotate(newest=Max("pk"))
    said = {
        row.model: _said(row) for row in ModelPrice.objects.filter(pk__in=newest.values("newest"))
    }
    return {model: _price_of(model, said.get(model)) for model in wanted}


def _said(row: ModelPrice) -> PricedAt | None:
    if row.input is None or row.output is None:
        return None  # the model was given back to the table
    return PricedAt(Price(row.input, row.output, row.cached_input), f"override-{row.pk}")


def _price_of(model: str, said: PricedAt | None) -> PricedAt | None:
    played = model.partition("/")[0] == RECORDED
    if said is not None and not played:
        return said
    price = price_of(model)
    if price is None:
        return None
    return PricedAt(price, "free" if price is FREE else table_version())
