"""The scripted backend plays what it is told, the same each time, and records what was asked."""

import asyncio
from contextlib import aclosing

import pytest

from orchestration.domain.errors import ErrorKind
from orchestration.domain.routing import UnknownModel
from orchestration.fanout.call_sink import Counted
from orchestration.fanout.client import CallFailed, FanoutRefused, FanoutUnavailable
from orchestration.fanout.scripted import Cut, Fail, Finish, Hang, Script, ScriptedClient
from orchestration.fanout.wire import Chunk, Failed, Finished, Message, Params, Started
from tests.fanout.asking import PROVIDERS, call, events_of, fanout, text_of

TWO_WORDS = [(1.0, "Hello "), (0.5, "world")]


async def test_a_script_is_played_at_the_moments_it_names_without_waiting_for_them() -> None:
    events = await events_of(ScriptedClient({"*": Script(TWO_WORDS, Finish(after_s=2))}), fanout())
    assert [(type(event), event.at_ms) for event in events] == [
        (Started, 0),
        (Chunk, 1000),
        (Chunk, 1500),
        (Finished, 3500),
    ]
    end = events[-1]
    assert isinstance(end, Finished)
    assert (end.timing_ms.first_token, end.timing_ms.last_token) == (1000, 1500)


async def test_calls_interleave_by_the_times_of_their_scripts() -> None:
    client = ScriptedClient({"A": Script([(2, "late")]), "B": Script([(1, "early")])})
    events = await events_of(client, fanout(call(), call(call_id="B")))
    assert [event.call for event in events if isinstance(event, Chunk)] == ["B", "A"]


async def test_the_same_scripts_give_the_same_events_every_time() -> None:
    scripts = {"A": Script(TWO_WORDS), "B": Script(TWO_WORDS, Fail("rate_limited", status=429))}
    request = fanout(call(), call(call_id="B"))
    first, second = [await events_of(ScriptedClient(scripts), request) for _ in range(2)]
    assert first == second


async def test_a_script_is_found_by_call_then_by_model_then_by_the_star() -> None:
    client = ScriptedClient(
        {
            "A": Script([(0, "by call")]),
            "local/special": Script([(0, "by model")]),
            "*": lambda asked: Script([(0, f"made for {asked.id}")]),
        }
    )
    request = fanout(call("special"), call("special", call_id="B"), call(call_id="C"))
    events = await events_of(client, request)
    assert [text_of(events, name) for name in "ABC"] == ["by call", "by model", "made for C"]
    assert client.requests == [request]


async def test_a_call_without_a_script_is_refused_and_none_is_started() -> None:
    client = ScriptedClient({"A": Script()})
    with pytest.raises(FanoutRefused, match="no script for call B"):
        await events_of(client, fanout(call(), call(call_id="B")))


async def test_what_the_service_would_refuse_is_refused() -> None:
    client = ScriptedClient({"*": Script()})
    with pytest.raises(FanoutRefused) as refused:
        await events_of(client, fanout(call(), call()))
    assert (refused.value.status, refused.value.field) == (400, "calls[1].id")
    assert not client.requests


async def test_a_failure_keeps_the_text_before_it_and_says_its_kind() -> None:
    client = ScriptedClient({"*": Script(TWO_WORDS, Fail(ErrorKind.INCOMPLETE))})
    events = await events_of(client, fanout())
    assert text_of(events) == "Hello world"
    end = events[-1]
    assert isinstance(end, Failed)
    assert (end.kind, end.retryable) == ("incomplete", True)
    assert end.usage is not None
    assert end.usage.estimated


async def test_counts_are_the_scripts_and_else_estimated() -> None:
    counted = Script(TWO_WORDS, Finish(counted=Counted(7, 3, cached_tokens=2)))
    client = ScriptedClient({"A": counted, "B": Script(TWO_WORDS)})
    events = await events_of(client, fanout(call(), call(call_id="B")))
    usages = {end.call: end.usage for end in events if isinstance(end, Finished)}
    exact, guessed = usages["A"], usages["B"]
    assert (exact.input_tokens, exact.output_tokens, exact.estimated) == (7, 3, False)
    assert (guessed.input_tokens, guessed.output_tokens, guessed.estimated) == (1, 3, True)


async def test_a_cut_ends_the_whole_stream_without_an_end() -> None:
    client = ScriptedClient({"A": Script(TWO_WORDS, Cut()), "B": Script([(9, "never")])})
    ends = 0
    with pytest.raises(FanoutUnavailable):
        async for event in client.stream(fanout(call(), call(call_id="B"))):
            ends += isinstance(event, Finished | Failed)
    assert not ends


async def test_a_call_that_hangs_is_ended_by_a_stop_of_its_own() -> None:
    client = ScriptedClient({"A": Script(TWO_WORDS, Hang()), "B": Script(TWO_WORDS)})
    ends: dict[str, str] = {}
    async with aclosing(client.stream(fanout(call(), call(call_id="B")))) as events:
        async for event in events:
            if isinstance(event, Finished):
                ends[event.call] = event.finish_reason
                await client.cancel("f-1", "A", "stop.user")
            elif isinstance(event, Failed):
                ends[event.call] = event.kind
    assert ends == {"A": "stop.user", "B": "stop"}
    assert client.cancels == [("f-1", "A", "stop.user")]


async def test_a_reason_that_is_none_is_a_mistake_of_the_caller() -> None:
    client = ScriptedClient({"*": Script((), Hang())})
    async with aclosing(client.stream(fanout())) as events:
        await anext(events)
        with pytest.raises(ValueError, match="not a reason"):
            await client.cancel("f-1", None, "boredom")


async def test_at_a_finite_speed_a_call_that_hangs_meets_its_deadline() -> None:
    client = ScriptedClient({"*": Script(TWO_WORDS, Hang())}, speed=100)
    events = await asyncio.wait_for(events_of(client, fanout(deadline_ms=4_000)), 5)
    assert text_of(events) == "Hello world"
    assert (events[-1].at_ms, getattr(events[-1], "kind", None)) == (4_000, "deadline")


# --- complete, which every backend has from the same place ---------------------------------------


async def test_complete_asks_the_persona_behind_the_model_and_joins_the_text() -> None:
    client = ScriptedClient({"*": Script(TWO_WORDS)}, providers=PROVIDERS)
    got = await client.complete(
        [Message("system", "Be kind."), Message("user", "Why?")],
        "local/brisk",
        params=Params(max_tokens=7),
    )
    assert (got.model, got.text, got.finish_reason) == ("local/brisk", "Hello world", "stop")
    (sent,) = client.requests[0].calls
    assert [message.role for message in sent.messages] == ["system", "user"]
    assert sent.messages[0].text.endswith("\n\nBe kind.")
    assert sent.model == "smollm2-135m"
    assert isinstance(sent.params, Params)
    # The caller's own length, the persona's everything else.
    assert (sent.params.max_tokens, sent.params.seed) == (7, 11)


async def test_complete_tells_a_failure_with_the_part_that_came() -> None:
    client = ScriptedClient(
        {"*": Script(TWO_WORDS, Fail(ErrorKind.TIMEOUT_STALL))}, providers=PROVIDERS
    )
    with pytest.raises(CallFailed) as failed:
        await client.complete([Message("user", "Why?")], "local/brisk")
    assert (failed.value.event.kind, failed.value.text) == ("timeout.stall", "Hello world")


async def test_complete_of_a_model_nobody_has_asks_nobody() -> None:
    client = ScriptedClient({"*": Script(TWO_WORDS)}, providers=PROVIDERS)
    with pytest.raises(UnknownModel):
        await client.complete([Message("user", "Why?")], "local/nobody")
    assert not client.requests
