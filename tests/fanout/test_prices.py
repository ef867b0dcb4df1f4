"""Prices come out of LiteLLM's table as data; what nobody knows stays unknown."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.domain.cost import FREE, Price
from orchestration.domain.routing import Provider, Target
from orchestration.fanout import prices
from orchestration.fanout.prices import max_output_tokens_of, price_of, price_of_target

OPENAI = Provider("openai", "OpenAI", "openai")
ROUTER = Provider("openrouter", "OpenRouter", "openrouter")


def price(provider: Provider, model: str) -> object:
    return price_of_target(Target(f"{provider.name}/{model}", provider.name, model), provider)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A price table of three rows in the place of the shipped one."""
    (tmp_path / "model_prices_and_context_window_backup.json").write_text(
        """{
        "small": {"input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07,
                  "cache_read_input_token_cost": 7.5e-08},
        "openrouter/small": {"input_cost_per_token": 2e-07, "output_cost_per_token": 1e-06},
        "half": {"input_cost_per_token": 1e-06, "max_output_tokens": 4096},
        "in words": {"max_output_tokens": "set it"}, "writes nothing": {"max_output_tokens": 0}}"""
    )
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(prices, "find_spec", lambda name: spec)
    prices._table.cache_clear()
    yield
    prices._table.cache_clear()


@pytest.mark.usefixtures("table")
def test_a_price_is_exact_where_a_float_would_not_be() -> None:
    assert price(OPENAI, "small") == Price(150_000, 600_000, 75_000)


@pytest.mark.usefixtures("table")
def test_the_row_of_the_provider_itself_counts_not_that_of_the_maker() -> None:
    assert price(ROUTER, "small") == Price(200_000, 1_000_000, None)


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("model", ["half", "unheard-of", ""])
def test_half_a_price_and_no_price_are_unknown_not_zero(model: str) -> None:
    assert price(OPENAI, model) is None
    assert price(ROUTER, model) is None


@pytest.mark.usefixtures("table")
def test_a_provider_that_resells_does_not_get_the_makers_price() -> None:
    lab = Provider("lab", "lab", "openai")
    assert price(OPENAI, "small") is not None
    assert price(lab, "small") is None


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    ("model", "limit"),
    [("half", 4096), ("small", None), ("in words", None), ("writes nothing", None), ("x", None)],
)
def test_the_longest_answer_of_a_model_is_in_the_table_or_unknown(
    model: str, limit: int | None
) -> None:
    target = Target(f"openai/{model}", "openai", model)
    assert max_output_tokens_of(target, OPENAI) == limit
    assert max_output_tokens_of(target, None) is None


def test_without_the_table_no_price_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices, "find_spec", lambda name: None)
    prices._table.cache_clear()
    assert price(OPENAI, "gpt-4o") is None
    prices._table.cache_clear()


def test_the_shipped_table_knows_the_models_people_ask() -> None:
    anthropic = Provider("anthropic", "Anthropic", "anthropic")
    for provider, model in ((OPENAI, "gpt-4o"), (anthropic, "claude-sonnet-4-5")):
        found = price(provider, model)
        assert isinstance(found, Price), model
        assert 0 < found.input < found.output
        assert found.cached_input is not None
        assert found.cached_input < found.input


def test_own_machines_and_replays_cost_nothing() -> None:
    assert price_of("local/brisk") == FREE
    assert price_of("recorded/41f2/A") == FREE


@pytest.mark.parametrize("model_id", ["nobody/gpt", "openai/gpt-4o", "", "local/nobody"])
def test_a_model_that_cannot_be_asked_has_no_price(model_id: str) -> None:
    assert price_of(model_id) is None


def test_the_table_is_read_without_importing_litellm() -> None:
    program = (
        "import sys, orchestration.fanout.prices as p; from orchestration.domain.routing import *;"
        "assert p.price_of_target(Target('openai/gpt-4o', 'openai', 'gpt-4o'),"
        " Provider('openai', 'OpenAI', 'openai')); assert 'litellm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
