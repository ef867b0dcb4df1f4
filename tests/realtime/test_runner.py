"""The loop that drives runs in the web process: what it takes on, lets go, and survives."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from orchestration import runner as module
from orchestration.actions.claim_runs import LEASE_S, claim_runs
from orchestration.actions.drive_run import MAX_DRIVES, drive_run
from orchestration.bridge import in_database
from orchestration.domain.run import RUN_ENDED
from orchestration.fanout import select
from orchestration.fanout.client import FanoutUnavailable, ProviderClient
from orchestration.fanout.scripted import Hang, Script, ScriptedClient
from orchestration.models import Call, Run
from orchestration.runner import Runner
from tests.conftest import Person
from tests.runs import answers, make_run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]


@asynccontextmanager
async def running(client: ProviderClient) -> AsyncIterator[Runner]:
    runner = Runner(client)
    runner.start()
    try:
        yield runner
    finally:
        await runner.stop()


async def until(condition: Any, what: str) -> None:
    """Wait until ``condition()`` holds in the database; bounded."""
    for _ in range(400):
        if await in_database(condition):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"it never came that {what}")


def all_ended() -> bool:
    return not Run.objects.everywhere().exclude(status__in=RUN_ENDED).exists()


def hanging() -> dict[str, Script]:
    return {"*": Script([(0.01, "Begun.")], Hang())}


def begun() -> int:
    return Call.objects.filter(first_token_ms__isnull=False).count()


@pytest.mark.parametrize("given", [False, True])
async def test_the_runner_closes_the_client_it_got_itself_when_no_run_needs_it(
    alice: Person, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    class Closed(ScriptedClient):
        driven: int | None = None

        async def aclose(self) -> None:
            self.driven = len(runner._driving)
            await super().aclose()

    await in_database(make_run, alice)
    client = Closed(hanging())
    monkeypatch.setattr(select, "make_client", lambda *_: client)
    runner = Runner(client if given else None)
    runner.start()
    await until(lambda: begun() == 3, "the calls began")
    await runner.stop()
    assert client.driven == (None if given else 0)


async def test_a_run_is_taken_the_moment_it_is_asked_not_at_the_next_sweep(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP_EVERY_S", 3600)
    async with running(ScriptedClient(answers(), speed=4)):
        await asyncio.sleep(0.1)
        await in_database(make_run, alice)
        await until(all_ended, "the run ended")


async def test_runs_beyond_the_limit_wait_and_are_driven_as_others_end(
    alice: Person, settings: Any
) -> None:
    settings.MAX_CONCURRENT_RUNS = 2
    runs = [await in_database(make_run, alice) for _ in range(5)]
    most = 0
    async with running(ScriptedClient(answers(), speed=4)) as runner:
        for _ in range(1000):
            most = max(most, len(runner._driving))
            if await in_database(all_ended):
                break
            await asyncio.sleep(0.01)
    assert most == 2
    statuses = await in_database(
        lambda: list(Run.objects.everywhere().values_list("status", flat=True))
    )
    assert len(statuses) == len(runs)
    assert set(statuses) <= {"done", "degraded"}


async def test_a_process_that_stops_lets_its_runs_go_for_the_next_one_at_once(
    alice: Person,
) -> None:
    run = await in_database(make_run, alice)
    async with running(ScriptedClient(hanging(), speed=1)):
        await until(lambda: begun() == 3, "all models had begun")
    let_go = await in_database(Run.objects.everywhere().get, pk=run.pk)
    assert (let_go.status, let_go.lease_until) == ("running", None)

    async with running(ScriptedClient(answers(), speed=4)):
        await until(all_ended, "the next process ended the run")
    calls = await in_database(lambda: list(run.calls.all()))
    assert {(call.state, call.reason) for call in calls} == {("failed", "worker_lost")}


async def test_a_driver_that_breaks_is_logged_and_hurts_no_other_run(
    alice: Person, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = await in_database(make_run, alice)

    async def drive(*, run_id: Any, **given: Any) -> None:
        if run_id == broken.pk:
            raise RuntimeError("the driver broke")
        await drive_run(run_id=run_id, **given)

    monkeypatch.setattr(module, "drive_run", drive)
    async with running(ScriptedClient(answers(), speed=4)):
        sound = await in_database(make_run, alice)
        await until(
            lambda: Run.objects.everywhere().get(pk=sound.pk).status in RUN_ENDED,
            "the sound run ended",
        )
    assert "drive_failed" in caplog.text
    left = await in_database(Run.objects.everywhere().get, pk=broken.pk)
    assert left.status == "queued"
    assert left.lease_until is not None
    assert (left.lease_until - timezone.now()).total_seconds() <= LEASE_S


async def test_a_run_that_ends_its_driver_every_time_is_given_up(alice: Person) -> None:
    run = await in_database(make_run, alice)
    await in_database(Run.objects.everywhere().filter(pk=run.pk).update, fence=MAX_DRIVES)
    nobody = ScriptedClient({})
    async with running(nobody):
        await until(all_ended, "the run was given up")
    ended = await in_database(Run.objects.everywhere().get, pk=run.pk)
    assert (ended.status, ended.reason) == ("failed", "internal")
    assert nobody.requests == [], "its models were not asked again"


async def test_a_database_that_is_away_for_a_moment_stops_nothing_for_good(
    alice: Person, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SWEEP_EVERY_S", 0.05)
    failures = iter(range(3))

    def claim(**given: Any) -> Any:
        if next(failures, None) is not None:
            raise OperationalError("database is locked")
        return claim_runs(**given)

    monkeypatch.setattr(module, "claim_runs", claim)
    await in_database(make_run, alice)
    async with running(ScriptedClient(answers(), speed=4)):
        await until(all_ended, "the run ended")
    assert caplog.text.count("claim_failed") == 3


class Preparing(ScriptedClient):
    """A client that has something to prepare, and fails at it where ``problem`` says so."""

    def __init__(self, problem: str = "") -> None:
        super().__init__(answers(), speed=4)
        self.prepared = asyncio.Event()
        self._problem = problem

    async def ready(self) -> None:
        self.prepared.set()
        if self._problem:
            raise FanoutUnavailable(self._problem)


async def test_the_client_is_prepared_as_the_process_starts_not_with_its_first_run() -> None:
    client = Preparing()
    async with running(client):
        await asyncio.wait_for(client.prepared.wait(), 5)
    assert not client.requests


async def test_runs_are_taken_although_the_client_was_not_ready_at_the_start(
    alice: Person,
) -> None:
    client = Preparing("the service starts later")
    async with running(client):
        await asyncio.wait_for(client.prepared.wait(), 5)
        await in_database(make_run, alice)
        await until(all_ended, "the run ended")
