"""What LiteLLM's proxy alone does: it has keys, refuses models, and rewrites answers.

Known of version 1.106.2, and not for us to mend:
- Its Responses route, which it takes to servers of OpenAI's make for Anthropic's format, raises
  max_tokens to 16, loses stop sequences, and calls an answer that was cut finished.
- A Gemini stream is counted as zeros, which we take for no count at all and estimate.
- Gemini's response schema does not reach the model.
- A key it does not know is answered 400 ``no_db_connection`` when it has no database to look in.
"""

import json

import pytest

from tests.servers.asking import ask_one, call
from tests.servers.conftest import PROXIED, PROXY_KEY, THROUGH_RESPONSES, WRONG_KEY, Service

pytestmark = [pytest.mark.golang, pytest.mark.localmodel, pytest.mark.litellm]

providers = pytest.mark.parametrize("provider", ["proxy", "anthropic", "google"])
forms = pytest.mark.parametrize("whole", [False, True], ids=["streamed", "whole"])


@forms
@providers
def test_a_model_it_does_not_have_is_an_invalid_request(
    beside_proxy: Service, provider: str, whole: bool
) -> None:
    answer = ask_one(beside_proxy.url, call(provider, "Hello", model="no-such", whole=whole))
    assert (answer.kind, answer.result["status"]) == ("invalid_request", 400)
    assert not answer.result["retryable"]
    assert "no-such" not in answer.result["message"]


@forms
@providers
def test_a_key_it_does_not_know_is_told_without_the_key(
    locked_out: Service, provider: str, whole: bool
) -> None:
    answer = ask_one(locked_out.url, call(provider, "Hello", model=PROXIED, whole=whole))
    assert answer.kind == "auth"
    assert not answer.result["retryable"]
    assert WRONG_KEY not in json.dumps(answer.result)


@providers
def test_keys_prompts_and_answers_are_in_no_log(
    beside_proxy: Service, locked_out: Service, provider: str
) -> None:
    asked = call(provider, "Say canary-in-the-prompt.", model=PROXIED, max_tokens=12)
    answer = ask_one(beside_proxy.url, asked)
    ask_one(locked_out.url, asked)
    logged = beside_proxy.log.read_text() + locked_out.log.read_text()
    assert asked["model"] in logged
    for secret in (PROXY_KEY, WRONG_KEY, "canary-in-the-prompt", answer.text):
        assert secret not in logged


@forms
def test_a_system_prompt_is_read(beside_proxy: Service, whole: bool) -> None:
    for provider in ("proxy", "anthropic", *(["google"] if whole else [])):
        short, long = (
            ask_one(
                beside_proxy.url,
                call(provider, "Say hello.", model=PROXIED, whole=whole, system=system),
            )
            for system in ("Be brief.", "Be very brief. " * 20)
        )
        assert long.usage["input_tokens"] > short.usage["input_tokens"] + 50


@forms
def test_anthropics_form_of_a_schema_is_kept_to(beside_proxy: Service, whole: bool) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": ["one"]}}}
    asked = call(
        "anthropic", "Count.", model=PROXIED, whole=whole, max_tokens=60, response_format=form
    )
    answer = ask_one(beside_proxy.url, asked)
    assert answer.kind == "stop"
    assert json.loads(answer.text) == "one"


@forms
@pytest.mark.parametrize("provider", ["anthropic", "google"])
def test_what_comes_through_its_responses_route_is_an_answer(
    beside_proxy: Service, provider: str, whole: bool
) -> None:
    asked = call(provider, "Say hello.", model=THROUGH_RESPONSES, whole=whole, max_tokens=16)
    answer = ask_one(beside_proxy.url, asked)
    assert answer.text
    assert answer.kind in ("stop", "length")
    if provider == "anthropic" or whole:
        assert not answer.usage["estimated"]
        assert 0 < answer.usage["output_tokens"] <= 16
        assert answer.usage["input_tokens"] > 20
