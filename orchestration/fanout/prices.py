"""Prices of models, out of the table LiteLLM ships; read as data, LiteLLM itself is not imported.

A price is the one for a request of ordinary length: the surcharge some providers take for very long
prompts (over 128,000 tokens and more) is not in it.
"""

import json
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from orchestration.domain.cost import FREE, Price
from orchestration.domain.routing import RECORDED, Provider, RoutingError, Target, resolve
from orchestration.fanout.providers import endpoints, providers_of

_TABLE = "model_prices_and_context_window_backup.json"
_MICRO_USD_PER_MILLION = 10**12  # a dollar a token, in micro-dollars for a million tokens


def price_of(model_id: str) -> Price | None:
    """What a Rex model id costs here; None when nobody knows it."""
    providers = providers_of(endpoints())
    try:
        target = resolve(model_id, providers)
    except RoutingError:
        return None
    return price_of_target(target, providers.get(target.provider))


def price_of_target(target: Target, provider: Provider | None) -> Price | None:
    """The price of ``target``; None when nobody knows it. A replay and an own machine are free.

    The first look-up reads the table (some megabytes); later ones cost nothing.
    """
    if target.provider == RECORDED:
        return FREE
    if provider is None:
        return None
    if provider.free:
        return FREE
    return _price(_row(target, provider))


def table_version() -> str:
    """Which table prices are from: LiteLLM's own version, as "litellm-1.106.2"."""
    return f"litellm-{version('litellm')}"


def max_output_tokens_of(target: Target, provider: Provider | None) -> int | None:
    """The longest answer of ``target`` by the table; None where it does not say."""
    found = None if provider is None else _row(target, provider).get("max_output_tokens")
    # A zero stands with models that write no text; and there is a row that says it in words.
    return found if isinstance(found, int) and found > 0 else None


def _row(target: Target, provider: Provider) -> dict[str, Any]:
    """The table's row of ``target``; empty where it has none."""
    row = _table().get(f"{provider.litellm}/{target.upstream_model}")
    if row is None and provider.name == provider.litellm:
        # Some providers, OpenAI and Anthropic among them, stand in the table without a prefix.
        row = _table().get(target.upstream_model)
    return row or {}


def _price(row: dict[str, Any]) -> Price | None:
    given, written = row.get("input_cost_per_token"), row.get("output_cost_per_token")
    if given is None or written is None:
        return None
    cached = row.get("cache_read_input_token_cost")
    return Price(_micro(given), _micro(written), None if cached is None else _micro(cached))


def _micro(dollars_a_token: Decimal | int) -> int:
    return int(dollars_a_token * _MICRO_USD_PER_MILLION)


@cache
def _table() -> dict[str, dict[str, Any]]:
    spec = find_spec("litellm")
    if spec is None or not spec.submodule_search_locations:
        return {}
    file = Path(spec.submodule_search_locations[0]) / _TABLE
    try:
        # Decimal: as a float, 1.5e-07 dollars times 10**12 is not 150000.
        table: dict[str, dict[str, Any]] = json.loads(file.read_bytes(), parse_float=Decimal)
    except (OSError, ValueError):
        return {}
    return table
