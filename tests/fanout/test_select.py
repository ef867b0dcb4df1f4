"""The settings name the backend; a replay stands in front of either."""

import asyncio
from typing import Any

import pytest

from orchestration.domain.routing import ProviderNotConfigured, UnknownModel
from orchestration.fanout import select
from orchestration.fanout.go import GoClient
from orchestration.fanout.inprocess import InProcessClient
from orchestration.fanout.providers import endpoints, read_endpoints
from orchestration.fanout.recorded import RecordedClient, Recording
from orchestration.fanout.select import (
    get_client,
    make_client,
    models_problem,
    offered_models,
    resolve_model,
)
from tests.fanout.asking import call, events_of, fanout, text_of


async def load(run_id: str, label: str) -> Recording:
    return Recording(f"{label} of {run_id}", ())


@pytest.mark.parametrize(("backend", "kind"), [("go", GoClient), ("python", InProcessClient)])
async def test_either_backend_stands_behind_the_replays(backend: str, kind: type) -> None:
    client = make_client(backend, "http://127.0.0.1:9", read_endpoints({}), load)
    assert isinstance(client, RecordedClient)
    assert isinstance(client.live, kind)
    events = await events_of(client, fanout(call("r1/A", provider="recorded")))
    assert text_of(events) == "A of r1"
    await client.aclose()


async def test_one_event_loop_has_one_client(settings: Any) -> None:
    settings.FANOUT_BACKEND = "go"
    assert get_client() is get_client()


def test_another_event_loop_has_another_client() -> None:
    async def client_here() -> object:
        return get_client()

    with asyncio.Runner() as one, asyncio.Runner() as other:
        assert one.run(client_here()) is not other.run(client_here())


def test_what_can_be_asked_is_what_the_environment_configures() -> None:
    assert [model.id for model in offered_models()] == [
        "local/brisk",
        "local/plain",
        "local/thorough",
        "local/editor",
    ]
    assert resolve_model("local/brisk").provider == "local"
    with pytest.raises(UnknownModel):
        resolve_model("local/nobody")
    with pytest.raises(ProviderNotConfigured):
        resolve_model("openai/gpt-4o")


def test_the_problem_of_a_model_is_a_sentence_and_a_good_one_has_none() -> None:
    assert models_problem("local/brisk") == ""
    assert models_problem("openai/gpt-4o") == (
        "openai/gpt-4o needs OpenAI, which is not configured: set OPENAI_API_KEY."
    )


def test_a_setting_that_cannot_be_used_is_the_problem_of_every_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REX_PROVIDER_LAB_BASE_URL", "no address")
    endpoints.cache_clear()
    try:
        assert "REX_PROVIDER_LAB_BASE_URL" in select.models_problem("local/brisk")
    finally:
        endpoints.cache_clear()
