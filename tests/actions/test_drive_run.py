"""Driving a run: what ends up in the log, the rows and the live tail, however the world behaves."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from django.utils import timezone

from orchestration.actions.cancel_run import cancel_call, cancel_run
from orchestration.actions.claim_runs import claim_runs, renew_lease
from orchestration.actions.drive_run import MAX_DRIVES, drive_run
from orchestration.bridge import in_database
from orchestration.domain.errors import ErrorKind, sentence_for
from orchestration.domain.run import RUN_ENDED, TRANSIENT, fold
from orchestration.domain.synthesis import consequence
from orchestration.domain.virtual_clock import replay
from orchestration.driving.load import load_run
from orchestration.driving.upstream import BUSY
from orchestration.facts import facts_of
from orchestration.fanout.client import FanoutRefused, FanoutUnavailable
from orchestration.fanout.recorded import RecordedClient
from orchestration.fanout.scripted import Cut, Fail, Hang, Script, ScriptedClient
from orchestration.fanout.wire import Event, FanoutRequest
from orchestration.live import tails
from orchestration.models import Call, Run, RunEvent, Synthesis
from orchestration.queries import snapshot_of
from orchestration.recordings import load_recording
from tests.conftest import Person
from tests.runs import (
    A_TEXT,
    answers,
    drive,
    driven,
    late_answers,
    log_of,
    make_run,
    types_of,
    until_log,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]


async def test_a_run_ends_done_with_every_answer_stored_whole(alice: Person) -> None:
    run = await driven(alice, pipeline="wait-all")

    assert run.status == "done"
    assert run.answer
    calls = await in_database(lambda: list(run.calls.all()))
    assert [call.state for call in calls] == ["done"] * 3
    assert calls[0].text == A_TEXT
    assert all(call.output_tokens and call.cost_micro_usd == 0 for call in calls)
    assert run.lease_until is None


async def test_synthesis_begins_before_the_last_answer_is_in(alice: Person) -> None:
    run = await driven(alice)

    events = await in_database(log_of, run)
    first_text = types_of(events).index("synthesis.delta")
    last_end = max(i for i, event in enumerate(events) if event["type"] == "call.finished")
    assert first_text < last_end
    assert run.ttfs_ms is not None
    assert run.ttf_ms is not None
    assert run.ttfs_ms < run.ttf_ms


async def test_the_log_folds_to_what_the_rows_say(alice: Person) -> None:
    run = await driven(alice, answers(B=Script([(0.01, "Half")], Fail("server_error"))))

    state = fold(await in_database(log_of, run))
    assert state.status == run.status
    assert state.seq == run.last_seq
    assert state.final_version == run.final_version
    rows = await in_database(lambda: dict(run.calls.values_list("label", "state")))
    assert state.calls == rows


async def test_replaying_the_log_gives_the_commands_that_were_given(alice: Person) -> None:
    run = await driven(alice)

    def recorded_and_replayed() -> tuple[list[Any], list[Any]]:
        history = facts_of(run)
        policy = load_run(run.pk, run.fence).policy
        again = [consequence(command) for _, command in replay(policy, history)]
        kinds = {type(fact) for fact in again}
        return [fact for _, fact in history if type(fact) in kinds], again

    recorded, replayed = await in_database(recorded_and_replayed)
    assert len(recorded) >= 3
    assert replayed == recorded


async def test_seq_has_no_gaps_and_one_terminal_event_comes_last(alice: Person) -> None:
    run = await driven(alice)

    rows = await in_database(lambda: list(RunEvent.objects.filter(run=run).order_by("seq")))
    assert [row.seq for row in rows] == list(range(1, run.last_seq + 1))
    assert [row.type for row in rows].count("run.finished") == 1
    assert rows[-1].type == "run.finished"


async def test_a_failing_model_keeps_its_part_and_the_others_carry_the_answer(
    alice: Person,
) -> None:
    broken = Script([(0.01, "Only this much")], Fail("server_error"))
    run = await driven(alice, answers(B=broken))

    call = await in_database(lambda: run.calls.get(label="B"))
    assert (call.state, call.reason, call.text) == ("failed", "server_error", "Only this much")
    assert call.message
    assert run.status in ("done", "degraded")
    assert run.answer


async def test_one_survivor_is_shown_verbatim_and_marked_degraded(alice: Person) -> None:
    failing = Script([], Fail("auth", after_s=0.01))
    client_scripts = answers(B=failing, C=failing)
    run = await driven(alice, client_scripts)

    assert (run.status, run.answer, run.degraded) == ("degraded", A_TEXT, True)


async def test_when_every_model_fails_the_run_fails_with_their_reason(alice: Person) -> None:
    failing = Script([], Fail("auth", after_s=0.01))
    run = await driven(alice, {"*": failing})

    assert (run.status, run.reason, run.answer) == ("failed", "auth", None)


async def test_an_answer_of_white_space_is_a_failure(alice: Person) -> None:
    run = await driven(alice, answers(C=Script([(0.01, " \n ")])))

    call = await in_database(lambda: run.calls.get(label="C"))
    assert (call.state, call.reason) == ("failed", "bad_upstream_response")


async def test_a_single_model_is_shown_as_it_is_and_is_not_degraded(alice: Person) -> None:
    run = await driven(alice, pipeline="single", models=("local/brisk",))

    assert (run.status, run.answer, run.degraded) == ("done", A_TEXT, False)
    assert not await in_database(Synthesis.objects.filter(run=run).exists)


async def test_a_synthesizer_that_always_fails_still_leaves_an_answer(alice: Person) -> None:
    run = await driven(alice, answers(**{"*": Script([], Fail("overloaded", after_s=0.01))}))

    assert run.status == "degraded"
    assert run.answer


async def test_a_broken_fanout_fails_its_open_calls_and_nothing_hangs(alice: Person) -> None:
    run = await driven(alice, answers(A=Script([(0.01, "Start")], Cut(after_s=0.02))))

    calls = await in_database(lambda: list(run.calls.all()))
    assert run.status in RUN_ENDED
    assert {call.state for call in calls} == {"failed"}
    assert {call.reason for call in calls} == {"internal"}


class FullService(ScriptedClient):
    """A service that refuses whole requests for a moment."""

    async def stream(self, request: FanoutRequest) -> AsyncGenerator[Event, None]:
        if not self.cancels:
            raise FanoutUnavailable("Too many calls are in flight.", retry_after_s=1)
        async with aclosing(super().stream(request)) as events:
            async for event in events:
                yield event


async def test_a_service_that_takes_no_more_is_not_called_unreachable(alice: Person) -> None:
    run = await in_database(make_run, alice)
    ended = await drive(run, FullService({}))

    calls = await in_database(lambda: list(run.calls.all()))
    assert {(call.state, call.reason, call.message) for call in calls} == {
        ("failed", "overloaded", BUSY)
    }
    assert (ended.status, ended.reason) == ("failed", "overloaded")


async def test_stop_ends_every_call_keeps_its_text_and_is_told_as_stopped(alice: Person) -> None:
    run = await in_database(make_run, alice)
    client = ScriptedClient(answers(C=Script([(0.01, "Begun")], Hang())), speed=1)
    driving = asyncio.create_task(drive(run, client))
    await until_log(run, lambda events: "call.first_token" in types_of(events))

    assert await in_database(cancel_run, run=run)
    stopped = await driving

    assert (stopped.status, stopped.reason) == ("cancelled", "stop.user")
    call = await in_database(lambda: run.calls.get(label="C"))
    assert (call.state, call.reason, call.text) == ("cancelled", "stop.user", "Begun")
    assert "run.stop_requested" in types_of(await in_database(log_of, stopped))
    assert not await in_database(cancel_run, run=stopped), "a stopped run cannot be stopped again"


async def test_stopping_one_call_lets_the_others_and_the_synthesis_go_on(alice: Person) -> None:
    run = await in_database(make_run, alice)
    client = ScriptedClient(answers(C=Script([(0.01, "Begun")], Hang())), speed=1)
    driving = asyncio.create_task(drive(run, client))
    await until_log(run, lambda events: any(e.get("call") == "C" for e in events))

    assert await in_database(cancel_call, run_id=run.pk, label="C")
    ended = await driving

    states = await in_database(lambda: dict(run.calls.values_list("label", "state")))
    assert states == {"A": "done", "B": "done", "C": "cancelled"}
    assert ended.status in ("done", "degraded")


async def test_the_deadline_ends_a_run_whose_model_hangs(alice: Person, settings: Any) -> None:
    settings.RUN_DEADLINE_S = 1
    run = await driven(alice, {"*": Script([(0.01, "Begun")], Hang())})

    assert run.status in ("failed", "degraded")
    calls = await in_database(lambda: list(run.calls.all()))
    assert {call.state for call in calls} == {"timeout"}
    assert {call.text for call in calls} == {"Begun"}
    assert run.duration_ms is not None
    assert run.duration_ms < 5000


class LateService(ScriptedClient):
    """A service that keeps its own deadline late, and refuses to stop a call for one."""

    async def stream(self, request: FanoutRequest) -> AsyncGenerator[Event, None]:
        later = msgspec.structs.replace(request, deadline_ms=request.deadline_ms + 30_000)
        async with aclosing(super().stream(later)) as events:
            async for event in events:
                yield event

    async def cancel(self, fanout_id: str, call_id: str | None, reason: str) -> None:
        if not reason.startswith("stop."):
            raise FanoutRefused(400, "Expected stop.user or stop.superseded.", "reason")
        await super().cancel(fanout_id, call_id, reason)


async def test_the_deadline_holds_though_the_service_is_late_with_it(
    alice: Person, settings: Any
) -> None:
    settings.RUN_DEADLINE_S = 1
    run = await in_database(make_run, alice)
    ended = await drive(run, LateService({"*": Script([(0.01, "Begun")], Hang())}, speed=1))

    calls = await in_database(lambda: list(run.calls.all()))
    assert {(call.state, call.reason) for call in calls} == {("timeout", "deadline")}
    assert ended.duration_ms is not None
    assert ended.duration_ms < 5000


class DeafService(ScriptedClient):
    """A service that is asked to stop a call and never does, nor answers."""

    async def cancel(self, fanout_id: str, call_id: str | None, reason: str) -> None:
        await asyncio.sleep(60)


async def test_a_service_that_does_not_confirm_a_stop_holds_nobody_up(alice: Person) -> None:
    run = await in_database(make_run, alice)
    client = DeafService({"*": Script([(0.01, "Begun")], Hang())}, speed=1)
    driving = asyncio.create_task(drive(run, client))
    await until_log(run, lambda events: "call.first_token" in types_of(events))
    began = asyncio.get_running_loop().time()
    await in_database(cancel_run, run=run)
    stopped = await driving

    assert (stopped.status, stopped.reason) == ("cancelled", "stop.user")
    assert asyncio.get_running_loop().time() - began < 10


async def test_a_run_stopped_before_it_was_driven_asks_no_model(alice: Person) -> None:
    run = await in_database(make_run, alice)
    await in_database(cancel_run, run=run)
    client = ScriptedClient(answers())
    stopped = await drive(run, client)

    assert client.requests == []
    assert (stopped.status, stopped.reason) == ("cancelled", "stop.user")
    assert not (await in_database(snapshot_of, stopped))["stopping"]


async def test_a_stop_that_was_asked_for_is_in_the_snapshot(alice: Person) -> None:
    run = await in_database(make_run, alice)
    assert not (await in_database(snapshot_of, run))["stopping"]
    await in_database(cancel_run, run=run)
    again = await in_database(Run.objects.everywhere().get, pk=run.pk)
    assert (await in_database(snapshot_of, again))["stopping"]


async def test_a_model_that_is_no_longer_offered_fails_alone(alice: Person) -> None:
    run = await in_database(make_run, alice)
    await in_database(Call.objects.filter(run=run, label="B").update, model="gone/model")
    ended = await drive(run, ScriptedClient(answers(), speed=2))

    states = await in_database(lambda: dict(run.calls.values_list("label", "state")))
    assert (states["A"], states["B"]) == ("done", "failed")
    assert ended.answer


async def test_a_process_that_slept_through_its_lease_keeps_its_run(alice: Person) -> None:
    run = await in_database(make_run, alice)
    [(_, fence)] = await in_database(claim_runs, owner="me", limit=1, now=timezone.now())
    later = timezone.now() + timedelta(minutes=5)

    again = await in_database(
        claim_runs, owner="me", limit=1, now=later, besides=frozenset({run.pk})
    )
    assert again == []
    assert await in_database(renew_lease, run_id=run.pk, fence=fence, now=later)
    other = await in_database(claim_runs, owner="other", limit=1, now=later + timedelta(minutes=5))
    assert other == [(run.pk, fence + 1)]
    assert not await in_database(renew_lease, run_id=run.pk, fence=fence, now=later)


async def test_a_run_that_cannot_even_be_loaded_is_given_up(alice: Person) -> None:
    run = await in_database(make_run, alice)
    broken = {"settings": {"policy": "gone"}, "fence": MAX_DRIVES + 1}
    await in_database(Run.objects.everywhere().filter(pk=run.pk).update, **broken)
    await drive_run(run_id=run.pk, fence=MAX_DRIVES + 1, client=ScriptedClient({}))

    ended = await in_database(Run.objects.everywhere().get, pk=run.pk)
    assert (ended.status, ended.reason) == ("failed", "internal")
    calls = await in_database(lambda: list(run.calls.all()))
    assert {(call.state, call.reason) for call in calls} == {("failed", "worker_lost")}
    state = fold(await in_database(log_of, ended))
    assert (state.status, state.seq) == (ended.status, ended.last_seq)


async def test_a_late_answer_amends_the_final_and_says_so(alice: Person) -> None:
    run = await driven(alice, late_answers())

    versions = await in_database(lambda: list(Synthesis.objects.filter(run=run)))
    events = await in_database(log_of, run)
    order = types_of(events)
    assert any(version.late and version.state == "applied" for version in versions)
    assert "late" in (run.answer or "")
    assert order.index("synthesis.final") < len(order) - 1 - order[::-1].index("synthesis.revised")
    snapshot = await in_database(lambda: snapshot_of(Run.objects.everywhere().get(pk=run.pk)))
    assert snapshot["answer_state"] == "amended"


async def test_two_drivers_of_one_run_write_it_once(alice: Person) -> None:
    run = await in_database(make_run, alice)
    now = timezone.now()
    first = await in_database(claim_runs, owner="one", limit=5, now=now)
    second = await in_database(claim_runs, owner="two", limit=5, now=now)
    assert (len(first), second) == (1, [])

    # The lease runs out while the first still drives: it must write nothing from then on.
    client = ScriptedClient(answers(), speed=1)
    slow = asyncio.create_task(drive_run(run_id=run.pk, fence=first[0][1], client=client))
    await until_log(run, lambda events: "call.first_token" in types_of(events))
    later = now.replace(year=now.year + 1)
    taken = await in_database(claim_runs, owner="two", limit=5, now=later)
    assert taken == [(run.pk, first[0][1] + 1)]
    await slow
    head = (await in_database(Run.objects.everywhere().get, pk=run.pk)).last_seq
    await drive_run(run_id=run.pk, fence=taken[0][1], client=ScriptedClient(answers(), speed=2))

    ended = await in_database(Run.objects.everywhere().get, pk=run.pk)
    assert ended.status in RUN_ENDED
    assert ended.last_seq > head
    rows = await in_database(lambda: list(RunEvent.objects.filter(run=run).order_by("seq")))
    assert [row.seq for row in rows] == list(range(1, ended.last_seq + 1))


async def test_after_a_crash_calls_that_were_on_their_way_are_told_as_lost(alice: Person) -> None:
    run = await in_database(make_run, alice)
    begun = Script([(0.01, "Begun")], Hang())
    client = ScriptedClient(answers(B=begun, C=begun), speed=1)
    crashed = asyncio.create_task(drive(run, client))
    await until_log(
        run,
        lambda events: (
            "call.finished" in types_of(events) and any(e.get("call") == "C" for e in events)
        ),
    )
    await asyncio.sleep(1.2)  # a checkpoint
    crashed.cancel()
    await asyncio.gather(crashed, return_exceptions=True)

    now = timezone.now()
    [(_, fence)] = await in_database(
        claim_runs, owner="next", limit=1, now=now.replace(year=now.year + 1)
    )
    after = ScriptedClient(answers(), speed=2)
    await drive_run(run_id=run.pk, fence=fence, client=after)

    ended = await in_database(Run.objects.everywhere().get, pk=run.pk)
    calls = await in_database(lambda: {call.label: call for call in run.calls.all()})
    assert calls["A"].state == "done"
    assert (calls["C"].state, calls["C"].reason) == ("failed", "worker_lost")
    assert calls["C"].text == "Begun"
    # Readers may have seen more of C than was stored: they are told to take it anew.
    assert (calls["A"].rev, calls["C"].rev) == (0, 1)
    assert ended.status in ("done", "degraded")
    asked_again = {call.id for request in after.requests for call in request.calls}
    assert not asked_again & {"A", "B", "C"}, "a recorded call must never be sent again"


async def test_nothing_is_left_behind_a_run_that_ended(alice: Person) -> None:
    before = {task.get_name() for task in asyncio.all_tasks()}
    run = await driven(alice)

    left = {task.get_name() for task in asyncio.all_tasks()} - before
    assert not {name for name in left if str(run.pk) in name}
    assert tails.texts(run.pk) is None


async def test_a_stored_run_can_be_played_again_at_no_cost(alice: Person) -> None:
    original = await driven(alice)
    again = await in_database(make_run, alice, replay_of=original.pk)

    nobody = ScriptedClient({})
    ended = await drive(again, RecordedClient(nobody, load_recording, {}))

    texts = await in_database(lambda: list(again.calls.values_list("text", flat=True)))
    assert texts == await in_database(lambda: list(original.calls.values_list("text", flat=True)))
    assert nobody.requests == []
    assert ended.status in ("done", "degraded")
    assert ended.answer
    assert ended.cost_micro_usd == 0
    assert ended.prompt == original.prompt
    snapshot = await in_database(snapshot_of, ended)
    titles = [call["title"] for call in snapshot["calls"]]
    assert titles == [f"local/{name}, recorded" for name in ("brisk", "plain", "thorough")]
    assert snapshot["synthesis"]["title"] == f"{original.synthesizer}, recorded"
    third = await in_database(make_run, alice, replay_of=again.pk)
    replayed_twice = await in_database(snapshot_of, third)
    assert [call["title"] for call in replayed_twice["calls"]] == titles
    assert replayed_twice["synthesis"]["title"] == snapshot["synthesis"]["title"]


@pytest.mark.parametrize("one_by_one", [True, False], ids=["call by call", "whole"])
async def test_a_stopped_run_played_again_says_that_its_answers_are_incomplete(
    alice: Person, one_by_one: bool
) -> None:
    """Nobody stops it this time, so `stop.user` would be a lie, and no reason a riddle."""
    original = await in_database(make_run, alice)
    driving = asyncio.create_task(drive(original, ScriptedClient({"*": Script([], Hang())})))
    await until_log(original, lambda events: types_of(events).count("call.started") == 3)
    if one_by_one:
        for label in "ABC":
            await in_database(cancel_call, run_id=original.pk, label=label)
    else:
        await in_database(cancel_run, run=original)
    stopped = await driving
    expected = ("failed" if one_by_one else "cancelled", "stop.user")
    assert (stopped.status, stopped.reason) == expected

    again = await in_database(make_run, alice, replay_of=original.pk)
    ended = await drive(again, RecordedClient(ScriptedClient({}), load_recording, {}))

    assert (ended.status, ended.reason) == ("failed", "incomplete")
    snapshot = await in_database(snapshot_of, ended)
    assert snapshot["message"] == sentence_for(ErrorKind.INCOMPLETE)
    assert {call["reason"] for call in snapshot["calls"]} == {"incomplete"}


async def test_transient_events_are_never_rows(alice: Person) -> None:
    run = await driven(alice)
    kinds = await in_database(lambda: set(run.events.values_list("type", flat=True)))
    assert not kinds & TRANSIENT
