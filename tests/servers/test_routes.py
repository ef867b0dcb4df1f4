"""What holds on every way to the model, by every format, streamed and in one piece."""

from typing import Any

import pytest

from launcher.weights import DEFAULT_MODEL
from tests.servers.asking import LONG, ask_one, call, cancel, fanout, following
from tests.servers.conftest import PROXIED, ModelServer, Route

_LLAMA = [pytest.mark.golang, pytest.mark.localmodel]
_PROXY = [*_LLAMA, pytest.mark.litellm]


@pytest.fixture(
    params=[
        pytest.param(("beside_llama", "local", DEFAULT_MODEL), id="llama-openai", marks=_LLAMA),
        pytest.param(
            ("beside_llama", "anthropic", DEFAULT_MODEL), id="llama-anthropic", marks=_LLAMA
        ),
        pytest.param(("beside_proxy", "proxy", PROXIED), id="litellm-openai", marks=_PROXY),
        pytest.param(("beside_proxy", "anthropic", PROXIED), id="litellm-anthropic", marks=_PROXY),
        pytest.param(("beside_proxy", "google", PROXIED), id="litellm-gemini", marks=_PROXY),
    ]
)
def route(request: pytest.FixtureRequest) -> Route:
    service, provider, model = request.param
    # LiteLLM sends zeros for all the counts of a Gemini stream.
    counts = provider != "google"
    return Route(request.getfixturevalue(service).url, provider, model, counts)


@pytest.fixture(params=[False, True], ids=["streamed", "whole"])
def whole(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_an_answer_is_cut_at_the_limit_and_counted(route: Route, whole: bool) -> None:
    prompt = "Count from one to a hundred."
    answer = ask_one(route.url, call(route.provider, prompt, model=route.model, whole=whole))
    assert answer.text
    assert answer.kind == "length"
    assert answer.result["model"] == route.model
    if route.counts_streams or whole:
        assert answer.usage["output_tokens"] == 4
        assert answer.usage["input_tokens"] > 20
    assert answer.usage["estimated"] is not (route.counts_streams or whole)


def test_it_ends_before_a_stop_sequence(route: Route, whole: bool) -> None:
    asked: dict[str, Any] = {"model": route.model, "whole": whole, "max_tokens": 24}
    free = ask_one(route.url, call(route.provider, "Say hello.", **asked))
    stopped = ask_one(route.url, call(route.provider, "Say hello.", stop=[" "], **asked))
    assert " " in free.text
    assert stopped.kind == "stop"
    assert stopped.text == free.text.partition(" ")[0]


def test_a_system_prompt_that_does_not_fit_is_told_as_such(route: Route, whole: bool) -> None:
    system = "Be brief. " * 2500
    asked = call(route.provider, "Say hello.", model=route.model, whole=whole, system=system)
    answer = ask_one(route.url, asked)
    assert answer.kind == "context_too_long"
    assert answer.result["status"] == 400
    assert "Be brief" not in answer.result["message"]


def test_text_outside_the_alphabet_arrives_and_comes_back(route: Route, whole: bool) -> None:
    """Half a code point at the edge of a token is what the servers must not send alone."""
    asked = call(
        route.provider,
        "Repeat: 🌍 naïve 日本 \u2028 \ufeff \x7f 🏳️‍🌈",
        model=route.model,
        whole=whole,
        max_tokens=16,
    )
    answer = ask_one(route.url, asked)
    assert answer.kind in ("stop", "length")
    assert answer.text


@pytest.mark.parametrize("way", ["cancel", "leave"])
def test_the_model_stops_when_nobody_wants_the_answer(
    route: Route, model_server: ModelServer, way: str
) -> None:
    prompt = "Write a very long story."
    request = fanout(call(route.provider, prompt, model=route.model, **LONG))
    with following(route.url, request) as events:
        assert "chunk" in (event["type"] for event in events)
        assert model_server.at_work() == 1
        if way == "cancel":
            cancel(route.url, request)
            assert list(events)[-1]["kind"] == "stop.user"
    model_server.wait_until_it_gave_up()
