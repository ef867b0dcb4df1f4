"""What happens beneath a call is told in order, and alike by both backends."""

import json
from itertools import count
from typing import Literal

import httpx
import pytest
from msgspec.structs import replace

from orchestration.fanout.client import FanoutRefused, ProviderClient
from orchestration.fanout.go import GoClient
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
    ImagePart,
    Message,
    Retry,
    Started,
    TextPart,
    Thought,
    Timeouts,
    encode,
)
from tests.contract.conftest import SECRET, Upstream
from tests.contract.test_golden_files import by_schema
from tests.contract.traces import call, events_of, fanout

pytestmark = pytest.mark.golang

_numbers = count(1)
_digests = (f"{number:064x}" for number in count(1))


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
    "a third attempt": (
        asked("fail-first?n=2", retry=Retry(3)),
        [
            *("1 first", "1 failed of overloaded", "2 retry", "2 failed of overloaded"),
            *("3 retry", "chunk", "finished"),
        ],
    ),
    "a restart": (
        asked("fail-first?as=cut", retry=Retry(2, restart=True)),
        ["1 first", "chunk", "1 failed of incomplete", "2 restart", "chunk", "finished"],
    ),
    "no retry after text": (
        asked("fail-first?as=cut", retry=Retry(3)),
        ["1 first", "chunk", "failed of incomplete"],
    ),
    "no retry of what cannot pass": (
        asked("http-400", retry=Retry(3)),
        ["1 first", "failed of invalid_request"],
    ),
    "no retry past the deadline": (
        asked("rate-limited?retry_after=60", retry=Retry(3)),
        ["1 first", "failed of rate_limited"],
    ),
    "a fallback": (
        asked("http-400", fallbacks=(Fallback("local", "ok"),)),
        ["1 first", "1 failed of invalid_request", "2 fallback", "chunk", "finished"],
    ),
    "a fallback after retries": (
        asked("http-500", retry=Retry(2), fallbacks=(Fallback("local", "ok?after=retries"),)),
        [
            *("1 first", "1 failed of server_error", "2 retry", "2 failed of server_error"),
            *("3 fallback", "chunk", "finished"),
        ],
    ),
    "no fallback after text": (
        asked("cut", fallbacks=(Fallback("local", "ok"),)),
        ["1 first", "chunk", "failed of incomplete"],
    ),
    "no fallback after the total": (
        asked("long", fallbacks=(Fallback("local", "ok"),), timeouts_ms=Timeouts(total=150)),
        ["1 first", "chunk", "failed of timeout.total"],
    ),
    "thoughts": (asked("reasoning", thoughts=True), ["1 first", "thought", "chunk", "finished"]),
    "thoughts nobody asked for": (asked("reasoning"), ["1 first", "chunk", "finished"]),
    "an answer asked for in one piece": (asked("ok", whole=True), ["1 first", "chunk", "finished"]),
    "its reasoning": (
        asked("reasoning", whole=True, thoughts=True),
        ["1 first", "thought", "chunk", "finished"],
    ),
    "its refusal": (asked("http-500", whole=True), ["1 first", "failed of server_error"]),
    "its end that is missing": (asked("cut", whole=True), ["1 first", "failed of incomplete"]),
    "a stream instead of it": (
        asked("stream-in-json", whole=True),
        ["1 first", "failed of bad_upstream_response"],
    ),
    "a failure after all": (
        asked("http-500", retry=Retry(2)),
        ["1 first", "1 failed of server_error", "2 retry", "failed of server_error"],
    ),
}


def told_of(name: str, events: list[Event]) -> list[str]:
    told = story(events)
    expected = STORIES[name][1]
    # What a restart overtook may never have been shown.
    if name == "a restart" and told == [*expected[:1], *expected[2:]]:
        return expected
    # In one piece the answer may stand before its reasoning.
    return expected if name == "its reasoning" and sorted(told) == sorted(expected) else told


@pytest.mark.parametrize("name", STORIES)
async def test_attempts_are_told_in_order_and_alike(
    name: str, go: ProviderClient, python: ProviderClient
) -> None:
    one, expected = STORIES[name]
    theirs = asked_again(one)
    ours = [
        await events_of(client, fanout(call_)) for client, call_ in ((go, one), (python, theirs))
    ]
    assert [told_of(name, events) for events in ours] == [expected, expected]
    assert ended(ours[0]) == ended(ours[1])


@pytest.mark.parametrize("provider", ["local", "speaks_anthropic", "speaks_gemini"])
@pytest.mark.parametrize("whole", [False, True])
async def test_every_format_gives_text_reasoning_and_counts_alike(
    provider: str, whole: bool, go: ProviderClient, python: ProviderClient
) -> None:
    one = asked("reasoning?delay_ms=0", thoughts=True, whole=whole)
    one = replace(one, provider=provider)
    ours, theirs = [await events_of(client, fanout(one)) for client in (go, python)]
    assert isinstance(ours[-1], Finished)
    for kind in (Chunk, Thought):
        texts = ["".join(e.text for e in side if isinstance(e, kind)) for side in (ours, theirs)]
        assert texts[0] == texts[1] != ""
    assert isinstance(theirs[-1], Finished)
    # The upstream counts the words of the request, which the two write differently.
    spent = [replace(end.usage, input_tokens=0) for end in (ours[-1], theirs[-1])]
    assert spent[0] == spent[1]
    assert theirs[-1].finish_reason == ours[-1].finish_reason


def asked_again(one: CallRequest) -> CallRequest:
    """The same call for another backend: of a provider and a script that remember nothing of it."""
    fresh = call("ok")
    model = f"{one.model.rpartition('=')[0]}={next(_numbers)}"
    return replace(one, provider=fresh.provider, model=model)


def ended(events: list[Event]) -> tuple[object, ...]:
    """What both backends must agree on, besides the order: texts, counts, and each failure."""
    said = {
        kind: "".join(e.text for e in events if isinstance(e, kind)) for kind in (Chunk, Thought)
    }
    failures = [
        (e.kind, e.retryable, e.status, e.retry_after_ms, e.usage)
        for e in events
        if isinstance(e, AttemptFailed | Failed) and e.kind != "timeout.total"
    ]
    last = events[-1]
    if isinstance(last, Finished):
        return said[Chunk][-20:], said[Thought], failures, last.usage, last.finish_reason
    return said[Thought], failures


async def test_a_wait_is_never_shorter_than_the_provider_asked_for(client: ProviderClient) -> None:
    one = asked("window?window_ms=700", retry=Retry(2))
    events = await events_of(client, fanout(one))
    assert story(events) == ["1 first", "1 failed of rate_limited", "2 retry", "chunk", "finished"]
    (failed,) = (event for event in events if isinstance(event, AttemptFailed))
    # The header counts whole seconds.
    assert failed.wait_ms is not None
    assert failed.wait_ms >= (failed.retry_after_ms or 0) >= 700
    second = [event for event in events if isinstance(event, Started)][1]
    assert second.at_ms - failed.at_ms >= failed.wait_ms - 1


async def test_images_arrive_alike(
    go: ProviderClient, python: ProviderClient, upstream: Upstream
) -> None:
    parts = (
        TextPart("What is on these?"),
        ImagePart(media_type="image/png", data="iVBORw0KGgo="),
        ImagePart(url="https://images.example/one.png"),
    )
    said = []
    for backend in (go, python):
        one = replace(asked("echo"), messages=(Message("user", parts),))
        events = await events_of(backend, fanout(one))
        said.append("".join(event.text for event in events if isinstance(event, Chunk)))
    assert json.loads(said[0]) == json.loads(said[1])
    assert "data:image/png;base64,iVBORw0KGgo=" in said[0]


@pytest.mark.parametrize("field", ["fallbacks", "hedge"])
async def test_a_stranger_among_the_targets_is_refused_with_its_field(
    field: str, client: ProviderClient
) -> None:
    more: dict[str, object] = {"fallbacks": (Fallback("local", "ok"), Fallback("nobody", "m"))}
    path = "calls[0].fallbacks[1].provider"
    if field == "hedge":
        more, path = {"hedge": Hedge(20, "nobody", "m")}, "calls[0].hedge.provider"
    with pytest.raises(FanoutRefused) as refused:
        await events_of(client, fanout(asked("ok", **more)))
    assert (refused.value.status, refused.value.field) == (422, path)


async def test_a_key_that_is_refused_is_followed_by_the_next(
    client: ProviderClient, upstream: Upstream
) -> None:
    backend = "go" if isinstance(client, GoClient) else "python"
    one = replace(asked("http-401"), provider=f"pair_{backend}")
    events = await events_of(client, fanout(one))
    assert story(events) == ["1 first", "1 failed of auth", "2 retry", "failed of auth"]
    used = [row["key_hash"] for row in upstream.log(one.model)]
    assert len(set(used)) == len(used) == 2
    assert SECRET not in repr(events)


async def test_a_hedge_answers_where_the_first_attempt_says_nothing(go: ProviderClient) -> None:
    one = asked("slow-first-token", hedge=Hedge(20, "local", "ok"))
    events = await events_of(go, fanout(one))
    (lost,) = (event for event in events if isinstance(event, AttemptFailed))
    assert (lost.attempt, lost.kind, lost.wait_ms) == (1, "stop.superseded", None)
    assert isinstance(events[-1], Finished)
    assert (events[-1].attempt, events[-1].provider, events[-1].model) == (2, "local", "ok")


async def test_a_replay_keeps_all_of_an_answer_and_says_how_old_it_is(
    client: ProviderClient,
) -> None:
    use = CacheUse(next(_digests), "read_write")
    one = asked("reasoning?cached=2", thoughts=True, cache=use)
    fresh, replayed = [
        await events_of(client, replace(fanout(one), workspace="ws:1")) for _ in range(2)
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
    other = await events_of(client, replace(fanout(one), workspace="ws:2"))
    assert story(other)[0] == "1 first", "another workspace has not seen it"


async def test_only_whole_answers_are_kept_and_a_call_that_only_writes_is_sent(
    client: ProviderClient,
) -> None:
    async def first(script: str, mode: Literal["read_write", "read", "write"], digest: str) -> str:
        one = asked(script, cache=CacheUse(digest, mode))
        return story(await events_of(client, replace(fanout(one), workspace="ws:1")))[0]

    digest, short, broken = next(_digests), next(_digests), next(_digests)
    assert await first("ok", "read", digest) == "1 first"
    assert await first("ok", "write", digest) == "1 first", "who only reads keeps nothing"
    assert await first("ok", "write", digest) == "1 first", "who only writes does not read"
    assert await first("ok", "read", digest) == "0 cache"
    for script, key in (("length", short), ("cut", broken)):
        assert await first(script, "read_write", key) == "1 first"
        assert await first("ok", "read", key) == "1 first", script


async def test_a_whole_answer_fits_its_schema(service_url: str) -> None:
    request = replace(fanout(asked("ok"), replace(asked("http-500"), id="B")), stream=False)
    async with httpx.AsyncClient(base_url=service_url, timeout=30) as http:
        answer = await http.post(
            "/fanout", content=encode(request), headers={"Content-Type": "application/json"}
        )
    whole = json.loads(answer.content)
    by_schema("whole").validate(whole)
    assert [each["result"]["type"] for each in whole["calls"]] == ["finished", "failed"]
