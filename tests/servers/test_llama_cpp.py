"""What the llama.cpp server alone can be held to: grammars, seeds, and many at once."""

import json
from typing import Any

import pytest

from tests.servers.asking import (
    LONG,
    ask,
    ask_in_one_piece,
    ask_one,
    call,
    cancel,
    fanout,
    following,
)
from tests.servers.conftest import ModelServer, Service

pytestmark = [pytest.mark.golang, pytest.mark.localmodel]

_ANSWER = {
    "type": "object",
    "properties": {"yes": {"type": "boolean"}},
    "required": ["yes"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("whole", [False, True], ids=["streamed", "whole"])
@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_object", "schema": _ANSWER},
        {"type": "json_schema", "json_schema": {"name": "answer", "schema": _ANSWER}},
    ],
    ids=["json_object", "json_schema"],
)
def test_an_answer_in_json_can_be_parsed(
    beside_llama: Service, form: dict[str, object], whole: bool
) -> None:
    asked = call("local", "Is it so?", whole=whole, max_tokens=60, response_format=form)
    answer = ask_one(beside_llama.url, asked)
    assert answer.kind == "stop"
    assert json.loads(answer.text)["yes"] in (True, False)


def test_json_without_a_schema_begins_as_an_object(beside_llama: Service) -> None:
    json_mode: dict[str, Any] = {"response_format": {"type": "json_object"}}
    plain, formed = (
        ask_one(beside_llama.url, call("local", "Say hello.", max_tokens=8, **params))
        for params in ({}, json_mode)
    )
    assert not plain.text.lstrip().startswith("{")
    assert formed.text.lstrip().startswith("{")


def test_the_seed_decides_the_answer(beside_llama: Service) -> None:
    def asked(seed: int) -> str:
        prompt = "Tell me something about rivers."
        drawn = call("local", prompt, seed=seed, temperature=0.9, max_tokens=16)
        return ask_one(beside_llama.url, drawn).text

    assert asked(5) == asked(5)
    assert {asked(seed) for seed in (6, 7, 8)} != {asked(5)}


def test_an_answer_is_the_same_in_one_piece(beside_llama: Service) -> None:
    asked = [call("local", "Say hello.", whole=whole, max_tokens=12) for whole in (False, True)]
    streamed, whole = (ask_one(beside_llama.url, each) for each in asked)
    assert streamed.text == whole.text
    assert streamed.usage["output_tokens"] == whole.usage["output_tokens"]
    not_streamed = ask_in_one_piece(beside_llama.url, asked[0])["A"]
    assert not_streamed.text == streamed.text
    assert not_streamed.result["finish_reason"] == streamed.result["finish_reason"]


def test_a_system_prompt_is_read(beside_llama: Service) -> None:
    """By both formats: its words are counted."""
    for provider in ("local", "anthropic"):
        short, long = (
            ask_one(beside_llama.url, call(provider, "Say hello.", system=system))
            for system in ("Be brief.", "Be very brief. " * 20)
        )
        assert long.usage["input_tokens"] > short.usage["input_tokens"] + 50


def test_answers_at_once_do_not_mix(beside_llama: Service) -> None:
    """Eight calls of a server with six slots; each may say its own name and nothing else."""
    names = [f"call-{number}" for number in range(8)]
    forms = [
        {"type": "json_schema", "json_schema": {"name": "name", "schema": {"enum": [name]}}}
        for name in names
    ]
    asked = [
        call("local", "Who are you?", name=name, max_tokens=60, response_format=form)
        for name, form in zip(names, forms, strict=True)
    ]
    answers = ask(beside_llama.url, *asked)
    for name in names:
        assert answers[name].kind == "stop"
        assert json.loads(answers[name].text) == name
        assert not answers[name].usage["estimated"]


def test_a_call_that_waits_for_its_whole_answer_is_cancelled_too(
    beside_llama: Service, model_server: ModelServer
) -> None:
    asked = call("local", "Write a very long story.", whole=True, **LONG)
    request = fanout(asked)
    with following(beside_llama.url, request) as events:
        assert next(events)["type"] == "started"
        model_server.wait_until_at_work()
        cancel(beside_llama.url, request)
        assert [event["kind"] for event in events] == ["stop.user"]
    model_server.wait_until_it_gave_up()


def test_the_deadline_stops_the_model(beside_llama: Service, model_server: ModelServer) -> None:
    asked = call("local", "Write a very long story.", **LONG)
    answer = ask_one(beside_llama.url, asked, deadline_ms=4000)
    assert answer.kind == "deadline"
    model_server.wait_until_it_gave_up()
