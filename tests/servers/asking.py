"""Fan-outs of the service as any client would send them; every line is held to the contract."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from launcher.weights import DEFAULT_MODEL
from tests.contract.test_golden_files import by_schema

Event = dict[str, Any]
DEADLINE_MS = 90_000  # a slow machine is no failure of any server
# An answer that takes the better part of a minute. Where the form does not reach the model, a story
# of some seconds.
LONG: dict[str, Any] = {
    "max_tokens": 3500,
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "name": "pages",
            "schema": {
                "type": "array",
                "minItems": 400,
                "items": {"type": "string", "minLength": 20},
            },
        },
    },
}
_LINE, _WHOLE = by_schema("line"), by_schema("whole")


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one call: its text, its reasoning, and its ``finished`` or ``failed``."""

    text: str
    thoughts: str
    result: Event

    @property
    def kind(self) -> str:
        """The kind of its failure, or how it finished."""
        return str(self.result.get("kind") or self.result["finish_reason"])

    @property
    def usage(self) -> dict[str, Any]:
        usage: dict[str, Any] = self.result["usage"]
        return usage


def call(
    provider: str,
    prompt: str,
    *,
    name: str = "A",
    model: str = DEFAULT_MODEL,
    system: str = "",
    whole: bool = False,
    attempts: int = 2,
    thoughts: bool = False,
    **params: Any,
) -> dict[str, Any]:
    """A call of one question. A server may close a kept connection just when it is used again,
    which is what the second attempt is for."""
    messages = [{"role": "system", "content": system}] if system else []
    return {
        "id": name,
        "provider": provider,
        "model": model,
        "messages": [*messages, {"role": "user", "content": prompt}],
        "params": {"temperature": 0, "max_tokens": 4} | params,
        "timeouts_ms": {"first_token": DEADLINE_MS, "stall": DEADLINE_MS},
        "whole": whole,
        "thoughts": thoughts,
        "retry": {"attempts": attempts},
    }


def fanout(*calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "v": 2,
        "id": f"test-{uuid.uuid4()}",
        "deadline_ms": DEADLINE_MS,
        "calls": list(calls),
    } | more


@contextmanager
def following(url: str, request: dict[str, Any]) -> Iterator[Iterator[Event]]:
    """The events of a fan-out as they come; leaving ends it."""
    with (
        httpx.Client(timeout=DEADLINE_MS / 1000, trust_env=False) as http,
        http.stream("POST", f"{url}/fanout", json=request) as response,
    ):
        assert response.status_code == 200, response.read()
        yield _events(response.iter_lines())


def _events(lines: Iterator[str]) -> Iterator[Event]:
    line: dict[str, Any] = {}
    for number, text in enumerate(lines, start=1):
        line = json.loads(text)
        _LINE.validate(line)
        assert line["n"] == number
        for event in line["ev"]:
            if event["type"] == "attempt_failed":
                assert event["kind"] == "connection", "only a closed connection is asked twice"
            yield event
    assert "end" in line, "the stream was cut"


def ask(url: str, *calls: dict[str, Any], **more: Any) -> dict[str, Answer]:
    """The answers by the names of their calls."""
    texts, thoughts = ({each["id"]: "" for each in calls} for _ in range(2))
    results: dict[str, Event] = {}
    with following(url, fanout(*calls, **more)) as events:
        for event in events:
            name = event["call"]
            assert name not in results, "an event behind the last"
            match event["type"]:
                case "started":
                    texts[name] = thoughts[name] = ""
                case "thought":
                    thoughts[name] += event["text"]
                case "chunk":
                    texts[name] += event["text"]
                case "finished" | "failed":
                    results[name] = event
    assert results.keys() == texts.keys()
    return {name: Answer(texts[name], thoughts[name], results[name]) for name in texts}


def ask_one(url: str, asked: dict[str, Any], **more: Any) -> Answer:
    return ask(url, asked, **more)[asked["id"]]


def ask_in_one_piece(url: str, *calls: dict[str, Any]) -> dict[str, Answer]:
    """The same answers by the form that does not stream."""
    request = fanout(*calls, stream=False)
    response = httpx.post(
        f"{url}/fanout", json=request, timeout=DEADLINE_MS / 1000, trust_env=False
    )
    assert response.status_code == 200, response.text
    _WHOLE.validate(response.json())
    return {
        row["call"]: Answer(row["text"], row.get("thoughts", ""), row["result"])
        for row in response.json()["calls"]
    }


def cancel(url: str, request: dict[str, Any]) -> None:
    response = httpx.delete(f"{url}/fanout/{request['id']}", timeout=30, trust_env=False)
    assert response.status_code == 204
