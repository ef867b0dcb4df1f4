"""What a run makes of attempts that fail and of answers out of the cache."""

import asyncio

import pytest

from orchestration.actions.cancel_run import cancel_run
from orchestration.bridge import in_database
from orchestration.domain.run import fold
from orchestration.fanout.scripted import Attempt, Script, ScriptedClient
from orchestration.queries import snapshot_of
from orchestration.run_list import list_runs
from tests.conftest import Person
from tests.runs import (
    A_TEXT,
    B_TEXT,
    answers,
    drive,
    driven,
    log_of,
    make_run,
    priced,
    said,
    types_of,
    until_log,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]


async def test_an_attempt_that_fails_first_is_a_fact_and_the_next_one_answers(
    alice: Person,
) -> None:
    again = Script(said(B_TEXT).pieces, failing=[Attempt("overloaded", wait_s=0.2, status=503)])
    run = await driven(alice, answers(B=again))

    call = await in_database(lambda: run.calls.get(label="B"))
    assert (call.state, call.attempt, call.text, call.rev) == ("done", 2, B_TEXT, 0)
    events = [e for e in await in_database(log_of, run) if e.get("call") == "B"]
    failed = next(e for e in events if e["type"] == "call.attempt_failed")
    assert (failed["attempt"], failed["kind"], failed["status"]) == (1, "overloaded", 503)
    assert failed["wait_ms"] == 200
    started = [e for e in events if e["type"] == "call.started"]
    assert [(e["attempt"], e["reason"], e["rev"]) for e in started] == [
        (1, "first", 0),
        (2, "retry", 0),
    ]
    assert call.started_ms == started[0]["at_ms"]
    assert (call.first_token_ms or 0) >= 100, "a reader waits for the answer, not for an attempt"


async def test_a_restart_begins_the_text_anew_for_everybody(alice: Person) -> None:
    first = Attempt("incomplete", wait_s=0.3, pieces=[(0.01, "Words that were taken back. ")])
    again = Script(said(B_TEXT).pieces, failing=[first])
    run = await driven(alice, answers(B=again), pipeline="wait-all")

    call = await in_database(lambda: run.calls.get(label="B"))
    assert (call.state, call.attempt, call.text, call.rev) == ("done", 2, B_TEXT, 1)
    assert "taken back" not in (run.answer or "")
    assert call.pacing[-1][1] == len(B_TEXT)
    spent = [e for e in await in_database(log_of, run) if e["type"] == "call.attempt_failed"]
    assert 0 < spent[0]["output_tokens"] < call.output_tokens, "both attempts were paid for"
    state = fold(await in_database(log_of, run))
    assert state.calls == await in_database(lambda: dict(run.calls.values_list("label", "state")))


async def test_a_call_that_waits_for_its_next_attempt_is_retrying(alice: Person) -> None:
    run = await in_database(make_run, alice)
    waiting = Script([(0.01, "Never said")], failing=[Attempt("overloaded", wait_s=30)])
    client = ScriptedClient(answers(C=waiting), speed=1)
    driving = asyncio.create_task(drive(run, client))
    await until_log(run, lambda events: "call.attempt_failed" in types_of(events))

    call = await in_database(lambda: run.calls.get(label="C"))
    assert (call.state, call.attempt) == ("retrying", 2)
    assert await in_database(cancel_run, run=run)
    await driving
    call = await in_database(lambda: run.calls.get(label="C"))
    assert (call.state, call.attempt) == ("cancelled", 1), "the second attempt was never made"


async def test_a_cached_answer_says_how_old_it_is_and_costs_nothing(alice: Person) -> None:
    await in_database(priced)
    known = Script([(0.0, A_TEXT)], cached_age_ms=12_600_999)
    run = await driven(alice, answers(A=known))

    call = await in_database(lambda: run.calls.get(label="A"))
    assert (call.state, call.cached_age_s, call.attempt) == ("cached", 12_600, 0)
    assert call.output_tokens
    assert call.cost_micro_usd == 0
    shown = await in_database(snapshot_of, run)
    assert shown["calls"][0]["tokens_per_s"] is None
    assert shown["calls"][1]["cost_micro_usd"] > 0
    assert shown["totals"]["cost_micro_usd"] == run.cost_micro_usd
    state = fold(await in_database(log_of, run))
    assert state.calls == await in_database(lambda: dict(run.calls.values_list("label", "state")))
    rows, _ = await in_database(list_runs, alice.workspace)
    assert rows[0].answers == "3/3"
