"""Whatever becomes of a run: its reservation is settled once, by what its rows say it used."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from orchestration.actions.cancel_run import cancel_call, cancel_run
from orchestration.actions.claim_runs import claim_runs
from orchestration.actions.drive_run import MAX_DRIVES, drive_run
from orchestration.actions.record_event import (
    Batch,
    LeaseLost,
    NewEvent,
    Recorded,
    record_event,
)
from orchestration.actions.settle_orphans import settle_orphans
from orchestration.actions.start_run import InvalidRun
from orchestration.bridge import in_database
from orchestration.domain.cost import Price
from orchestration.domain.estimate import PricedAt
from orchestration.domain.run import EventType
from orchestration.driving.requests import most_of
from orchestration.fanout.call_sink import Counted
from orchestration.fanout.providers import endpoints, read_endpoints
from orchestration.fanout.recorded import RecordedClient
from orchestration.fanout.scripted import (
    Attempt,
    Cut,
    Fail,
    Finish,
    Hang,
    Script,
    ScriptedClient,
    Scripts,
)
from orchestration.models import Call, ModelPrice, PausedModel, Run, Synthesis
from orchestration.queries import snapshot_of
from orchestration.recordings import load_recording
from tests.conftest import Person
from tests.runs import A_TEXT, answers, drive, driven, make_run, priced, said, until_log
from workspaces.actions.reserve import QuotaExceeded, WorkspacePaused
from workspaces.actions.settle import Charge
from workspaces.counting import recount
from workspaces.domain.quotas import Dimension
from workspaces.domain.windows import NOW
from workspaces.models import Counter, Lease, Quota, Reservation, Workspace

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]


def limit(workspace: Workspace, dimension: Dimension, value: int) -> None:
    Quota.objects.create(workspace=workspace, dimension=dimension, limit=value)


def used(run: Run) -> tuple[int, int]:
    """Tokens and micro-dollars that the run's rows say were paid for."""
    calls = Call.objects.filter(run=run).exclude(state="cached").exclude(provider="recorded")
    drafts = Synthesis.objects.filter(run=run).exclude(model__startswith="recorded/")
    parts = [*calls, *drafts]
    return (
        sum(part.input_tokens + part.output_tokens for part in parts),
        sum(part.cost_micro_usd or 0 for part in parts),
    )


def assert_at_rest(*runs: Run) -> None:
    """Nothing is held, all that was used is booked, and the counters are the ledger's sums."""
    assert not Reservation.objects.everywhere().filter(closed_at__isnull=True).exists()
    assert not Lease.objects.filter(closed_at__isnull=True).exists()
    tokens, cost = map(sum, zip(*map(used, runs), strict=True))
    for counter in Counter.objects.everywhere():
        told = (counter.runs, counter.tokens, counter.cost_micro_usd)
        assert told == ((0, 0, 0) if counter.window == NOW else (0, tokens, cost))
        assert (counter.tokens_reserved, counter.cost_reserved_micro_usd) == (0, 0)
        recount(counter)
        assert told == (counter.runs, counter.tokens, counter.cost_micro_usd)


async def stopped(alice: Person) -> Run:
    run = await in_database(make_run, alice)
    client = ScriptedClient({"*": Script([(0.01, "Begun")], Hang())}, speed=1)
    driving = asyncio.create_task(drive(run, client))
    await until_log(run, lambda events: any(e["type"] == "call.first_token" for e in events))
    await in_database(cancel_run, run=run)
    return await driving


async def crashed(alice: Person) -> Run:
    """Its driver ends in the middle; another goes on with it."""
    run = await in_database(make_run, alice)
    begun = Script([(0.01, "Begun")], Hang())
    first = asyncio.create_task(drive(run, ScriptedClient(answers(B=begun, C=begun), speed=1)))
    await until_log(run, lambda events: any(e["type"] == "synthesis.started" for e in events))
    await asyncio.sleep(1.2)  # a checkpoint
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    later = timezone.now() + timedelta(days=1)
    [(_, fence)] = await in_database(claim_runs, owner="next", limit=1, now=later)
    client = ScriptedClient(answers(), speed=2)
    await drive_run(run_id=run.pk, fence=fence, client=client)
    return await in_database(Run.objects.everywhere().get, pk=run.pk)


async def crashed_between_attempts(alice: Person) -> Run:
    """Its driver ends when an attempt has failed that was paid for; another goes on with it."""
    run = await in_database(make_run, alice)
    spoke = Attempt("incomplete", wait_s=60, pieces=[(0.0, "word " * 40)])
    waits = Script(said(A_TEXT).pieces, failing=[spoke])
    first = asyncio.create_task(drive(run, ScriptedClient(answers(A=waits), speed=1)))
    await until_log(run, lambda events: any(e["type"] == "call.attempt_failed" for e in events))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    later = timezone.now() + timedelta(days=1)
    [(_, fence)] = await in_database(claim_runs, owner="next", limit=1, now=later)
    await drive_run(run_id=run.pk, fence=fence, client=ScriptedClient(answers(), speed=2))
    return await in_database(Run.objects.everywhere().get, pk=run.pk)


async def poisoned(alice: Person) -> Run:
    """It ended each of its drivers, and is given up with calls under way."""
    run = await in_database(make_run, alice)
    fields = {"state": "streaming", "started_ms": 5, "text": "Begun and", "attempt": 1}
    await in_database(Call.objects.filter(run=run, label="A").update, **fields)
    await in_database(Run.objects.everywhere().filter(pk=run.pk).update, fence=MAX_DRIVES + 1)
    await drive_run(run_id=run.pk, fence=MAX_DRIVES + 1, client=ScriptedClient({}))
    return await in_database(Run.objects.everywhere().get, pk=run.pk)


def scripted(scripts: Scripts) -> Callable[[Person], Awaitable[Run]]:
    return lambda alice: driven(alice, scripts)


ENDINGS: dict[str, Callable[[Person], Awaitable[Run]]] = {
    "success": scripted(answers()),
    "an error": scripted(answers(A=Script([(0.01, "Some")], Fail("server_error")))),
    "errors everywhere": scripted({"*": Script((), Fail("overloaded"))}),
    "a retry": scripted(
        answers(A=Script(said(A_TEXT).pieces, failing=[Attempt("overloaded", wait_s=0.1)]))
    ),
    "a cached answer": scripted(answers(A=Script([(0.0, A_TEXT)], cached_age_ms=1_000))),
    "a broken stream": scripted(answers(A=Script([(0.01, "Start")], Cut(after_s=0.02)))),
    "a stop": stopped,
    "a crash": crashed,
    "a crash between attempts": crashed_between_attempts,
    "being given up": poisoned,
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())
async def test_every_ending_settles_once(
    alice: Person, ending: Callable[[Person], Awaitable[Run]]
) -> None:
    await in_database(priced)
    run = await ending(alice)
    assert run.ended_at is not None
    await in_database(assert_at_rest, run)
    tokens, cost = await in_database(used, run)
    assert run.input_tokens + run.output_tokens >= tokens
    assert run.cost_micro_usd == cost


async def test_the_deadline_settles_too(alice: Person, settings: Any) -> None:
    settings.RUN_DEADLINE_S = 1
    await in_database(priced)
    run = await driven(alice, {"*": Script([(0.01, "Begun")], Hang())})
    await in_database(assert_at_rest, run)
    assert run.cost_micro_usd, "what was on its way when time was over is paid for"


async def test_counts_as_large_as_are_believed_end_a_run_too(alice: Person) -> None:
    """Each is a thousand million tokens: their sum is more than 32 bits hold."""
    await in_database(priced)
    counted = Finish(counted=Counted(10**9, 10**9, 0, 0))
    run = await driven(alice, answers(**dict.fromkeys("ABC", Script(((0.01, A_TEXT),), counted))))
    assert run.status in ("done", "degraded")
    assert run.input_tokens >= 3 * 10**9
    await in_database(assert_at_rest, run)


async def test_a_call_that_was_lost_is_billed_by_what_had_come(alice: Person) -> None:
    await in_database(priced)
    run = await crashed(alice)
    call = await in_database(Call.objects.get, run=run, label="C")
    assert call.reason == "worker_lost"
    assert call.usage_estimated
    assert call.output_tokens == -(-len("Begun") // 4)
    assert call.cost_micro_usd == call.input_tokens + call.output_tokens


async def test_a_replay_costs_nothing_in_any_dimension_but_its_slot(alice: Person) -> None:
    await in_database(priced)
    original = await driven(alice)
    await in_database(limit, alice.workspace, Dimension.COST_PER_DAY, original.cost_micro_usd or 0)
    again = await in_database(make_run, alice, replay_of=original.pk)
    assert (
        await in_database(lambda: Counter.objects.everywhere().get(scope="", window=NOW).runs) == 1
    )
    client = RecordedClient(ScriptedClient({}), load_recording, {})
    await in_database(assert_at_rest, original, await drive(again, client))


async def test_while_a_run_is_under_way_what_it_may_use_is_held(alice: Person) -> None:
    await in_database(priced)
    run = await in_database(make_run, alice)

    def leases() -> dict[str, tuple[int, int]]:
        rows = Lease.objects.filter(reservation__subject=run.pk)
        return {row.name: (row.reserved_tokens, row.reserved_micro_usd) for row in rows}

    held = await in_database(leases)
    assert held.keys() == {"A", "B", "C", "synthesis"}
    assert all(tokens > 100 and cost > 100 for tokens, cost in held.values())
    client = ScriptedClient(answers(C=Script([(0.01, "Begun")], Hang())), speed=2)
    driving = asyncio.create_task(drive(run, client))
    await until_log(run, lambda events: any(e["type"] == "call.finished" for e in events))
    now_held = await in_database(leases)
    assert now_held["A"] == (0, 0), "the answer is in, and needs no room any more"
    assert now_held["C"] == held["C"]
    await in_database(cancel_run, run=run)
    await in_database(assert_at_rest, await driving)


async def test_a_fan_out_that_does_not_fit_is_refused_before_anything_is_written(
    alice: Person,
) -> None:
    await in_database(limit, alice.workspace, Dimension.FANOUT_WIDTH, 2)
    with pytest.raises(QuotaExceeded):
        await in_database(make_run, alice)
    assert not await in_database(Run.objects.everywhere().exists)
    assert not await in_database(Counter.objects.everywhere().exists)


async def test_a_fan_out_that_does_not_fit_is_shrunk_where_that_is_wanted(alice: Person) -> None:
    await in_database(limit, alice.workspace, Dimension.FANOUT_WIDTH, 2)
    alice.workspace.on_excess = Workspace.OnExcess.SHRINK
    await in_database(alice.workspace.save)
    client = ScriptedClient(answers(), speed=2)
    run = await drive(await in_database(make_run, alice), client)
    asked = {call.id for request in client.requests for call in request.calls}
    assert asked >= {"A", "B"}
    assert "C" not in asked
    shown = await in_database(snapshot_of, run)
    assert [(call["state"], call["reason"]) for call in shown["calls"]] == [
        ("done", None),
        ("done", None),
        ("skipped", "quota.exceeded"),
    ]
    assert "no room for all the models" in shown["calls"][2]["message"]
    assert run.status == "done"
    await in_database(assert_at_rest, run)


async def test_a_draft_that_could_cost_more_than_is_left_is_not_written(alice: Person) -> None:
    await in_database(priced)
    run = await in_database(make_run, alice)
    pool = Lease.objects.filter(reservation__subject=run.pk, name="synthesis")
    await in_database(pool.update, bound_micro_usd=10, reserved_micro_usd=10)
    client = ScriptedClient(answers(), speed=2)
    ended = await drive(run, client)
    assert not any(call.id.startswith("v") for request in client.requests for call in request.calls)
    reasons = await in_database(lambda: set(run.syntheses.values_list("reason", flat=True)))
    assert reasons == {"budget.run"}
    assert ended.answer, "without a synthesis there is still the best answer"


@pytest.mark.parametrize("rooms", [1, 2])
async def test_a_draft_is_tried_again_only_where_the_pool_has_room_for_it(
    alice: Person, rooms: int
) -> None:
    await in_database(priced)
    asked = ScriptedClient(answers(), speed=2)
    await drive(await in_database(make_run, alice, pipeline="wait-all"), asked)
    most = most_of(asked.requests[-1], PricedAt(Price(10**6, 10**6), "test"))

    run = await in_database(make_run, alice, pipeline="wait-all")
    pool = Lease.objects.filter(reservation__subject=run.pk, name="synthesis")
    held = await in_database(pool.get)
    assert most.tokens < held.bound_tokens, "else there would be no synthesis at all"
    room = {"tokens": rooms * most.tokens, "micro_usd": rooms * (most.cost_micro_usd or 0)}
    fields = {f"{kind}_{unit}": room[unit] for kind in ("bound", "reserved") for unit in room}
    await in_database(pool.update, **fields)
    failed = Attempt("incomplete", wait_s=1.5, pieces=[(0.0, " ")])
    drafts = Script(said("Lists are mutable. [A]").pieces, failing=[failed])
    ended = await drive(run, ScriptedClient(answers(**{"*": drafts}), speed=1))
    draft = await in_database(run.syntheses.get)
    assert draft.reason == (None if rooms == 2 else "budget.run")
    assert ended.answer
    lease = await in_database(pool.get)
    assert 0 < lease.tokens <= room["tokens"]
    assert lease.tokens == draft.input_tokens + draft.output_tokens


async def test_the_only_model_stopped_in_the_middle_costs_no_draft(alice: Person) -> None:
    await in_database(priced)
    run = await in_database(make_run, alice, models=("local/brisk",))
    client = ScriptedClient({"A": Script([(0.01, f"{A_TEXT} " * 8)], Hang())}, speed=1)
    driving = asyncio.create_task(drive(run, client))
    await until_log(run, lambda events: any(e["type"] == "call.first_token" for e in events))
    await in_database(cancel_call, run_id=run.pk, label="A")
    ended = await driving
    assert (ended.status, len(client.requests)) == ("degraded", 1)
    assert (ended.answer or "").startswith(A_TEXT)
    await in_database(assert_at_rest, ended)


async def test_an_attempt_that_finds_no_room_is_not_made(alice: Person) -> None:
    await in_database(priced)
    spoke = Attempt("incomplete", wait_s=1.5, pieces=[(0.0, "word " * 400)])
    again = Script(said(A_TEXT).pieces, failing=[spoke])
    run = await in_database(make_run, alice, models=("local/brisk",))
    held = await in_database(lambda: Lease.objects.get().reserved_micro_usd)
    await in_database(limit, alice.workspace, Dimension.COST_PER_DAY, held)
    ended = await drive(run, ScriptedClient({"A": again}, speed=1))
    call = await in_database(Call.objects.get, run=run)
    assert (call.state, call.reason, call.attempt) == ("skipped", "quota.exceeded", 1)
    await in_database(assert_at_rest, ended)


@pytest.mark.parametrize("room", [True, False])
async def test_who_lost_the_reply_is_told_again_which_calls_found_no_room(
    alice: Person, room: bool
) -> None:
    await in_database(priced)
    run = await in_database(make_run, alice, models=("local/brisk",))
    held = await in_database(lambda: Lease.objects.get().reserved_micro_usd)
    await in_database(limit, alice.workspace, Dimension.COST_PER_DAY, held + 7 * room)
    failed = NewEvent(EventType.CALL_ATTEMPT_FAILED, 1, {})
    charge = Charge("A", tokens=7, cost_micro_usd=7, renews=True)
    batch = Batch(events=[failed], charges=[charge])

    def record() -> Recorded:
        return record_event(run_id=run.pk, fence=0, behind=1, batch=batch, now=timezone.now())

    told = await in_database(record)
    assert told == Recorded(2, frozenset() if room else frozenset({"A"}))
    books = await in_database(Lease.objects.values().get)
    assert await in_database(record) == told
    assert await in_database(Lease.objects.values().get) == books, "and nothing is paid again"


async def test_models_nobody_knows_the_price_of_are_asked_only_where_that_is_allowed(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {**endpoints(), **read_endpoints({"OPENAI_API_KEY": "sk-none"})}
    monkeypatch.setattr("orchestration.fanout.select.endpoints", lambda: known)
    monkeypatch.setattr("orchestration.fanout.prices.endpoints", lambda: known)
    with pytest.raises(InvalidRun) as refused:
        await in_database(make_run, alice, models=("openai/gpt-nobody-knows",))
    assert refused.value.code == "unpriced_model"
    alice.workspace.allow_unpriced = True
    await in_database(alice.workspace.save)
    run = await in_database(make_run, alice, models=("openai/gpt-nobody-knows",))
    assert (await in_database(Call.objects.get, run=run)).price is None
    await in_database(limit, alice.workspace, Dimension.COST_PER_MONTH, 10**9)
    with pytest.raises(InvalidRun, match="quota of money") as refused:
        await in_database(make_run, alice, models=("openai/gpt-nobody-knows",))
    assert refused.value.code == "unpriced_model"


async def test_a_price_that_changes_meanwhile_is_not_the_run_s(alice: Person) -> None:
    await in_database(priced)
    run = await in_database(make_run, alice)
    await in_database(priced, input=10**9, output=10**9)
    ended = await drive(run, ScriptedClient(answers(), speed=2))
    call = await in_database(Call.objects.get, run=run, label="A")
    newest = await in_database(ModelPrice.objects.order_by("pk").first)
    assert newest is not None
    assert call.price is not None
    assert call.price["version"] == f"override-{newest.pk}"
    assert call.cost_micro_usd == call.input_tokens + call.output_tokens
    await in_database(assert_at_rest, ended)


async def test_a_paused_model_is_refused_when_named_and_left_out_when_not(
    alice: Person, settings: Any
) -> None:
    settings.MODELS = ("local/brisk", "local/plain")
    await in_database(PausedModel.objects.create, model="local/brisk", reason="It rambles.")
    with pytest.raises(InvalidRun, match="It rambles") as refused:
        await in_database(make_run, alice)
    assert refused.value.code == "model_paused"
    run = await in_database(make_run, alice, models=None)
    models = await in_database(lambda: list(run.calls.values_list("model", flat=True)))
    assert models == ["local/plain"]
    await in_database(PausedModel.objects.create, model="local/*")
    with pytest.raises(InvalidRun):
        await in_database(make_run, alice, models=("local/plain",))


async def test_a_paused_synthesizer_holds_up_only_who_needs_it(alice: Person) -> None:
    await in_database(PausedModel.objects.create, model="local/editor")
    with pytest.raises(InvalidRun, match="which writes the synthesis"):
        await in_database(make_run, alice)
    await in_database(make_run, alice, models=("local/brisk",))


async def test_a_paused_model_is_offered_as_paused(alice: Person) -> None:
    await in_database(PausedModel.objects.create, model="local/brisk", reason="It rambles.")

    def offered() -> tuple[dict[str, str | None], str]:
        models = alice.api().get("/api/models").json()["models"]
        page = alice.browser().get("/").content.decode()
        return {model["id"]: model["paused"] for model in models}, page

    models, page = await in_database(offered)
    assert (models["local/brisk"], models["local/plain"]) == ("It rambles.", None)
    box = page.partition('value="local/brisk"')[2].partition("</label>")[0]
    assert box.startswith(" disabled>")
    assert "Paused by an operator. It rambles." in box


async def test_a_paused_workspace_starts_nothing_and_ends_what_it_began(alice: Person) -> None:
    run = await in_database(make_run, alice)
    alice.workspace.paused_at = timezone.now()
    await in_database(alice.workspace.save)
    with pytest.raises(WorkspacePaused):
        await in_database(make_run, alice)
    ended = await drive(run, ScriptedClient(answers(), speed=2))
    assert ended.status == "done"


async def test_orphans_are_settled_by_what_the_calls_say(alice: Person) -> None:
    await in_database(priced)
    orphan, young, gone = [await in_database(make_run, alice) for _ in range(3)]
    under_way = await in_database(make_run, alice)

    def lose() -> None:
        # As after a restore from an older copy: the run has ended, its reservation has not.
        rows = Run.objects.everywhere()
        rows.filter(pk__in=(orphan.pk, young.pk)).update(status="done", ended_at=timezone.now())
        rows.filter(pk=gone.pk).delete()
        Call.objects.filter(run=orphan, label="A").update(
            state="done", input_tokens=30, output_tokens=12, cost_micro_usd=42
        )
        reservations = Reservation.objects.everywhere().exclude(subject=young.pk)
        reservations.update(created_at=F("created_at") - timedelta(seconds=61))

    await in_database(lose)
    assert await in_database(settle_orphans, now=timezone.now()) == 2
    assert await in_database(settle_orphans, now=timezone.now()) == 0

    def still_open() -> set[Any]:
        return {each.subject for each in Reservation.objects.everywhere().filter(closed_at=None)}

    assert await in_database(still_open) == {young.pk, under_way.pk}
    lease = await in_database(Lease.objects.get, reservation__subject=orphan.pk, name="A")
    assert (lease.tokens, lease.cost_micro_usd, lease.reserved_tokens) == (42, 42, 0)


async def test_copies_of_a_request_with_one_key_take_one_slot(alice: Person) -> None:
    await in_database(limit, alice.workspace, Dimension.CONCURRENT_RUNS, 1)
    runs = [await in_database(make_run, alice, idempotency_key="k") for _ in range(3)]
    assert len({run.pk for run in runs}) == 1
    counter = await in_database(Counter.objects.everywhere().get, scope="", window=NOW)
    assert counter.runs == 1


async def test_nothing_is_paid_where_the_facts_were_not_written(alice: Person) -> None:
    """The charge and its fact are one transaction."""
    run = await in_database(make_run, alice)

    def refuse() -> None:
        batch = Batch(run={"reason": None}, charges=[Charge("A", 5, 5, closes=True)], closes=True)
        with pytest.raises(LeaseLost), transaction.atomic():
            record_event(run_id=run.pk, fence=9, behind=1, batch=batch, now=timezone.now())

    await in_database(refuse)
    assert await in_database(Lease.objects.filter(closed_at__isnull=True).count) == 4
