"""What the service does beneath a call is told in an order that its client believes."""

import json
from itertools import count

import httpx
import pytest
from msgspec.structs import replace

from orchestration.fanout.client import ProviderClient
from orchestration.fanout.wire import (
    AttemptFailed,
    CacheUse,
    CallRequest,
    Chunk,
    Event,
    Failed,
    Fallback,
    Finished,
    Hedge,
    Retry,
    Started,
    Thought,
    encode,
)
from tests.contract.test_golden_files import by_schema
from tests.contract.traces import call, events_of, fanout

pytestmark = pytest.mark.golang

_numbers = count(1)


def asked(script: str, **more: object) -> CallRequest:
    """A call of a script that has a memory of its own."""
    return replace(call(f"{script}{'&' if '?' in script else '?'}id={next(_numbers)}"), **more)


def story(events: list[Event]) -> list[str]:
    """What happened, pieces of text as one."""
    told: list[str] = []
    for event in events:
        match event:
            case Started():
                word = f"{event.attempt} {event.reason}"
            case AttemptFailed():
                word = f"{event.attempt} failed of {event.kind}"
            case Failed():
                word = f"failed of {event.kind}"
            case _:
                word = type(event).__name__.lower()
        if told[-1:] != [word]:
            told.append(word)
    return told


STORIES = {
    "a retry": (
        asked("fail-first", retry=Retry(2)),
        ["1 first", "1 failed of overloaded", "2 retry", "chunk", "finished"],
    ),
    "a restart": (
        asked("fail-first?as=cut", retry=Retry(2, restart=True)),
        ["1 first", "chunk", "1 failed of incomplete", "2 restart", "chunk", "finished"],
    ),
    "a fallback": (
        asked("http-400", fallbacks=(Fallback("local", "ok"),)),
        ["1 first", "1 failed of invalid_request", "2 fallback", "chunk", "finished"],
    ),
    "thoughts": (asked("reasoning", thoughts=True), ["1 first", "thought", "chunk", "finished"]),
    "an answer asked for in one piece": (asked("ok", whole=True), ["1 first", "chunk", "finished"]),
    "a failure after all": (
        asked("http-500", retry=Retry(2)),
        ["1 first", "1 failed of server_error", "2 retry", "failed of server_error"],
    ),
}


@pytest.mark.parametrize("name", STORIES)
async def test_attempts_are_told_in_order(name: str, go: ProviderClient) -> None:
    one, expected = STORIES[name]
    told = story(await events_of(go, fanout(one)))
    # What a restart overtook may never have been shown.
    assert told == expected or (name == "a restart" and told == [*expected[:1], *expected[2:]])


async def test_a_hedge_answers_where_the_first_attempt_says_nothing(go: ProviderClient) -> None:
    one = asked("slow-first-token", hedge=Hedge(20, "local", "ok"))
    events = await events_of(go, fanout(one))
    (lost,) = (event for event in events if isinstance(event, AttemptFailed))
    assert (lost.attempt, lost.kind, lost.wait_ms) == (1, "stop.superseded", None)
    assert isinstance(events[-1], Finished)
    assert (events[-1].attempt, events[-1].provider, events[-1].model) == (2, "local", "ok")


async def test_a_replay_keeps_all_of_an_answer_and_says_how_old_it_is(go: ProviderClient) -> None:
    one = asked("reasoning?cached=2", thoughts=True, cache=CacheUse("5c" * 32, "read_write"))
    fresh, replayed = [
        await events_of(go, replace(fanout(one), workspace="ws:1")) for _ in range(2)
    ]
    assert story(replayed) == ["0 cache", "thought", "chunk", "finished"]
    for kind in (Thought, Chunk):
        texts = [
            "".join(e.text for e in events if isinstance(e, kind)) for events in (fresh, replayed)
        ]
        assert texts[0] == texts[1] != ""
    first, again = fresh[-1], replayed[-1]
    assert isinstance(first, Finished)
    assert isinstance(again, Finished)
    assert again.cached_age_ms is not None
    assert (again.usage, again.finish_reason, again.model) == (
        first.usage,
        first.finish_reason,
        first.model,
    )
    other = await events_of(go, replace(fanout(one), workspace="ws:2"))
    assert story(other)[0] == "1 first", "another workspace has not seen it"


async def test_a_whole_answer_fits_its_schema(service_url: str) -> None:
    request = replace(fanout(asked("ok"), replace(asked("http-500"), id="B")), stream=False)
    async with httpx.AsyncClient(base_url=service_url, timeout=30) as http:
        answer = await http.post(
            "/fanout", content=encode(request), headers={"Content-Type": "application/json"}
        )
    whole = json.loads(answer.content)
    by_schema("whole").validate(whole)
    assert [each["result"]["type"] for each in whole["calls"]] == ["finished", "failed"]
