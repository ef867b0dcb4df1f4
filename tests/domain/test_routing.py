"""Model ids lead to providers, and nowhere else is a provider named."""

import pytest

from orchestration.domain.routing import (
    PERSONAS,
    Provider,
    ProviderNotConfigured,
    Target,
    UnknownModel,
    catalogue,
    resolve,
)

PROVIDERS = {
    p.name: p
    for p in (
        Provider("local", "Embedded model", "openai", served_model="smollm2-135m", free=True),
        Provider("openai", "OpenAI", "openai"),
        Provider("openrouter", "OpenRouter", "openrouter"),
        Provider("anthropic", "Anthropic", "anthropic", missing_env="ANTHROPIC_API_KEY"),
    )
}


def test_a_persona_is_the_one_embedded_model_under_instructions_of_its_own() -> None:
    targets = [resolve(f"local/{name}", PROVIDERS) for name in PERSONAS]
    assert {target.upstream_model for target in targets} == {"smollm2-135m"}
    for part in ("system", "temperature", "seed", "max_tokens"):
        assert len({getattr(target, part) for target in targets}) == len(targets), part


def test_the_three_that_answer_end_at_clearly_different_times() -> None:
    brisk, plain, thorough = (PERSONAS[n].max_tokens for n in ("brisk", "plain", "thorough"))
    assert brisk * 1.5 < plain < thorough / 1.5


@pytest.mark.parametrize(
    ("model_id", "provider", "upstream"),
    [
        ("openai/gpt-4o", "openai", "gpt-4o"),
        ("openrouter/meta-llama/llama-3.3-70b:free", "openrouter", "meta-llama/llama-3.3-70b:free"),
        ("local/smollm2-135m", "local", "smollm2-135m"),
        ("recorded/41f2/A", "recorded", "41f2/A"),
    ],
)
def test_an_id_is_the_provider_and_its_own_name(
    model_id: str, provider: str, upstream: str
) -> None:
    assert resolve(model_id, PROVIDERS) == Target(model_id, provider, upstream)


@pytest.mark.parametrize(
    "model_id",
    [
        "",
        "/",
        "openai",
        "openai/",
        "nobody/gpt",
        "local/qwen",
        "local/",
        "recorded/41f2",
        "recorded//A",
        "openai/two words",
        "openai/line\nbreak",
        "openai/" + "x" * 257,
    ],
)
def test_an_id_that_leads_nowhere_is_unknown(model_id: str) -> None:
    with pytest.raises(UnknownModel) as unknown:
        resolve(model_id, PROVIDERS)
    assert unknown.value.code == "unknown_model"
    assert len(str(unknown.value)) < 250


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("local/brsk", "local/brisk"), ("openia/gpt-4o", "openai/gpt-4o")],
)
def test_a_slip_of_the_keyboard_is_answered_with_what_was_meant(typed: str, meant: str) -> None:
    with pytest.raises(UnknownModel, match=f"Did you mean {meant}"):
        resolve(typed, PROVIDERS)


def test_a_provider_that_is_not_configured_is_never_what_was_meant() -> None:
    with pytest.raises(UnknownModel) as unknown:
        resolve("anthropc/claude", PROVIDERS)
    assert unknown.value.close == ()
    given_its_key = PROVIDERS | {"anthropic": Provider("anthropic", "Anthropic", "anthropic")}
    with pytest.raises(UnknownModel, match="Did you mean anthropic/claude"):
        resolve("anthropc/claude", given_its_key)


def test_a_provider_without_its_key_is_refused_naming_the_variable() -> None:
    with pytest.raises(ProviderNotConfigured, match="set ANTHROPIC_API_KEY") as refused:
        resolve("anthropic/claude", PROVIDERS)
    assert refused.value.code == "provider_not_configured"


def test_the_catalogue_offers_what_can_be_asked_now() -> None:
    offered = {model.id: model for model in catalogue(PROVIDERS)}
    assert list(offered) == [
        "local/brisk",
        "local/plain",
        "local/thorough",
        "local/editor",
        "openai/*",
        "openrouter/*",
    ]
    assert offered["local/editor"].role == "synthesis"
    assert [id for id, model in offered.items() if model.wildcard] == ["openai/*", "openrouter/*"]
    for model in offered.values():
        if not model.wildcard:
            resolve(model.id, PROVIDERS)
