"""Stored answers are played again as they came, and everything else passes through."""

import asyncio
from contextlib import aclosing

import pytest

from orchestration.domain.errors import ErrorKind
from orchestration.fanout import recorded as module
from orchestration.fanout.call_sink import Counted
from orchestration.fanout.client import FanoutUnavailable
from orchestration.fanout.recorded import (
    RecordedClient,
    Recording,
    UnknownRecording,
)
from orchestration.fanout.scripted import Cut, Hang, Script, ScriptedClient
from orchestration.fanout.wire import Chunk, Event, Failed, Finished, Started
from tests.fanout.asking import PROVIDERS, call, events_of, fanout, text_of

ANSWER = Recording("Grüße 😀 an alle", ((100, 6), (300, 8), (400, 16)), ended_ms=500)
RECORDINGS = {
    ("run-1", "A"): ANSWER,
    ("run-1", "B"): Recording("Half an ans", ((50, 11),), failure=ErrorKind.INCOMPLETE),
    ("run-1", "C"): Recording("All at once", ()),
    ("run-1", "D"): Recording("Counted", ((0, 7),), "length", Counted(10, 2, 4)),
}


async def load(run_id: str, label: str) -> Recording:
    try:
        return RECORDINGS[run_id, label]
    except KeyError:
        raise UnknownRecording from None


def replaying(speed: float = 1e6, live: ScriptedClient | None = None) -> RecordedClient:
    return RecordedClient(live or ScriptedClient({}), load, PROVIDERS, speed=speed)


def recorded(label: str = "A", run: str = "run-1") -> list[Event]:
    """What playing one recording gives, as fast as can be."""
    request = fanout(call(f"{run}/{label}", provider="recorded"))
    return asyncio.run(events_of(replaying(), request))


def test_an_answer_is_played_whole_to_the_code_point() -> None:
    events = recorded()
    assert isinstance(events[0], Started)
    assert text_of(events) == "Grüße 😀 an alle"
    assert isinstance(events[-1], Finished)


def test_an_answer_without_pacing_comes_at_once() -> None:
    assert text_of(recorded("C")) == "All at once"


def test_the_recorded_end_and_counts_are_told_again() -> None:
    end = recorded("D")[-1]
    assert isinstance(end, Finished)
    assert (end.finish_reason, end.usage.input_tokens, end.usage.cached_tokens) == ("length", 10, 4)
    assert not end.usage.estimated


def test_a_recorded_failure_fails_again_after_the_text_it_had() -> None:
    events = recorded("B")
    end = events[-1]
    assert isinstance(end, Failed)
    assert (text_of(events), end.kind) == ("Half an ans", "incomplete")


@pytest.mark.parametrize(("run", "label"), [("run-1", "Z"), ("run-2", "A")])
def test_a_recording_that_is_not_there_fails_its_call(run: str, label: str) -> None:
    end = recorded(label, run)[-1]
    assert isinstance(end, Failed)
    assert (end.kind, end.usage) == ("invalid_request", None)


async def test_without_a_loader_nothing_can_be_replayed() -> None:
    client = RecordedClient(ScriptedClient({}), None, PROVIDERS)
    events = await events_of(client, fanout(call("run-1/A", provider="recorded")))
    assert getattr(events[-1], "kind", None) == "invalid_request"


@pytest.mark.parametrize("speed", [1, 2.5])
async def test_the_pauses_are_the_recorded_ones_divided_by_the_speed(
    speed: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that only moves when somebody sleeps, so that no machine is too slow for it."""
    now_s, pauses = [100.0], []

    class Clock:
        def time(self) -> float:
            return now_s[0]

    class Waiting:
        get_running_loop = staticmethod(Clock)

        @staticmethod
        async def sleep(delay_s: float) -> None:
            pauses.append(delay_s)
            now_s[0] += delay_s

    class Sink:
        said: list[str] = []

        def started(self, attempt: int, reason: str, target: object) -> None: ...

        def connected(self) -> None: ...

        async def text(self, text: str) -> None:
            self.said.append(text)

    monkeypatch.setattr(module, "asyncio", Waiting)
    asked = call("run-1/A", provider="recorded")
    answer = await replaying(speed)._replay(asked, Sink())  # type: ignore[arg-type]
    assert Sink.said[:3] == ["Grüße ", "😀 ", "an alle"]
    assert pauses == pytest.approx([0.1 / speed, 0.2 / speed, 0.1 / speed, 0.1 / speed])
    assert answer.finish_reason == "stop"
    Sink.said.clear()


async def test_other_calls_go_to_the_client_behind_and_the_streams_become_one() -> None:
    live = ScriptedClient({"*": Script([(0, "live")])})
    request = fanout(call("run-1/A", provider="recorded"), call("m", call_id="B"))
    events = await events_of(replaying(live=live), request)
    assert (text_of(events, "A"), text_of(events, "B")) == ("Grüße 😀 an alle", "live")
    assert sum(isinstance(event, Finished) for event in events) == 2
    (sent,) = live.requests
    assert [each.id for each in sent.calls] == ["B"]


async def test_a_client_behind_that_breaks_off_breaks_the_whole_off() -> None:
    live = ScriptedClient({"*": Script((), Cut())})
    request = fanout(call("run-1/A", provider="recorded"), call(call_id="B"))
    with pytest.raises(FanoutUnavailable):
        await events_of(replaying(speed=0.01, live=live), request)


async def test_a_stop_reaches_the_replay_and_the_client_behind() -> None:
    live = ScriptedClient({"*": Script([(0, "live")], Hang())})
    client = replaying(speed=0.001, live=live)
    ends: dict[str, str] = {}
    request = fanout(call("run-1/A", provider="recorded"), call(call_id="B"))
    async with aclosing(client.stream(request)) as events:
        async for event in events:
            if isinstance(event, Chunk):
                await client.cancel("f-1", None, "stop.user")
            if isinstance(event, Failed):
                ends[event.call] = event.kind
    assert ends == {"A": "stop.user", "B": "stop.user"}


async def test_a_stop_of_a_replay_alone_does_not_trouble_the_client_behind() -> None:
    live = ScriptedClient({})
    client = replaying(speed=0.001, live=live)
    async with aclosing(client.stream(fanout(call("run-1/A", provider="recorded")))) as events:
        await anext(events)
        await client.cancel("f-1", "A", "stop.superseded")
        assert getattr(await anext(events), "kind", None) == "stop.superseded"
    assert not live.cancels
