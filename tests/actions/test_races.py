"""Twenty at once: one run per key, one driver per run, one stop, one end."""

import hashlib
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.utils import timezone

from orchestration.actions.cancel_run import cancel_call, cancel_run
from orchestration.actions.claim_runs import LEASE_S, claim_runs, release_lease, renew_lease
from orchestration.actions.record_event import Batch, LeaseLost, NewEvent, record_event
from orchestration.actions.start_run import InvalidRun, RunRequest, estimate_plan, start_run
from orchestration.domain.run import EventType
from orchestration.models import Call, Run, RunEvent, Synthesis
from tests.conftest import Person
from tests.runs import make_run
from workspaces.counting import lock_workspace

pytestmark = pytest.mark.django_db(transaction=True)

T = TypeVar("T")
RACERS = 20


def race(action: Callable[[int], T]) -> list[T | Exception]:
    """What ``action(0)`` … ``action(19)`` came to, begun at one moment in threads of their own."""
    ready = threading.Barrier(RACERS)
    results: list[T | Exception] = []

    def run(number: int) -> None:
        try:
            ready.wait(timeout=10)
            results.append(action(number))
        except Exception as error:
            results.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(RACERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(results) == RACERS, "a racer hangs"
    return results


def fact(kind: EventType = EventType.CALL_STARTED, **body: Any) -> NewEvent:
    return NewEvent(kind, 7, body or {"call": "A", "model": "local/brisk", "attempt": 1})


def record(run: Run, batch: Batch, *, behind: int, fence: int = 0) -> int:
    now = timezone.now()
    return record_event(run_id=run.pk, fence=fence, behind=behind, batch=batch, now=now).head


def stored(run: Run) -> dict[str, Any]:
    """All rows of the run, to see that nothing has changed."""
    return {
        "run": Run.objects.everywhere().filter(pk=run.pk).values().get(),
        "calls": list(Call.objects.filter(run=run).values()),
        "events": list(RunEvent.objects.filter(run=run).values()),
        "syntheses": list(Synthesis.objects.filter(run=run).values()),
    }


# --- starting ------------------------------------------------------------------------------------


def test_twenty_copies_of_one_request_make_one_run(alice: Person) -> None:
    request = RunRequest(prompt="Why?", idempotency_key="k1")
    runs = race(lambda _: start_run(actor=alice.actor, request=request).pk)
    assert len(set(runs)) == 1, runs
    assert Run.objects.everywhere().count() == 1
    assert Call.objects.count() == 3
    assert RunEvent.objects.count() == 1


def test_a_copy_and_the_driver_of_the_run_it_copies_do_not_wait_for_each_other(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy looks before the run is there, and comes to write when its driver is writing."""
    request = RunRequest(prompt="Why?", idempotency_key="k1")
    written = threading.Event()
    first: list[Run] = []
    failed: list[DatabaseError] = []

    def write() -> None:
        try:
            with transaction.atomic():
                Run.objects.everywhere().filter(pk=first[0].pk).update(last_seq=2)
                written.set()
                time.sleep(0.3)  # the copy comes as far as it can
                lock_workspace(alice.workspace)
        except DatabaseError as error:
            failed.append(error)
        finally:
            connection.close()

    driver = threading.Thread(target=write)

    def estimate_late(*asked: Any) -> Any:
        monkeypatch.undo()
        first.append(start_run(actor=alice.actor, request=request))
        driver.start()
        assert written.wait(timeout=10)
        return estimate_plan(*asked)

    monkeypatch.setattr("orchestration.actions.start_run.estimate_plan", estimate_late)
    copy = start_run(actor=alice.actor, request=request)
    driver.join(timeout=10)
    assert not failed
    assert [copy] == first


def test_of_twenty_requests_that_share_a_key_one_is_taken_and_the_others_are_told(
    alice: Person,
) -> None:
    def ask(number: int) -> Any:
        request = RunRequest(prompt=f"Why {number}?", idempotency_key="k1")
        return start_run(actor=alice.actor, request=request).pk

    results = race(ask)
    refused = [each for each in results if isinstance(each, InvalidRun)]
    assert {each.code for each in refused} == {"idempotency_conflict"}
    assert len(refused) == RACERS - 1, results
    assert Run.objects.everywhere().count() == 1


def test_a_run_of_before_there_was_a_cache_is_found_by_its_key_still(alice: Person) -> None:
    first = start_run(actor=alice.actor, request=RunRequest(prompt="Why?", idempotency_key="k1"))
    # What the release before the field made of this request.
    body = '{"prompt": "Why?", "pipeline": null, "models": null, "replay_of": null, '
    stored = hashlib.sha256(f'{body}"idempotency_key": null}}'.encode()).hexdigest()
    assert first.body_sha256 == stored
    other = RunRequest(prompt="Why?", cache="off", idempotency_key="k1")
    with pytest.raises(InvalidRun, match="another request"):
        start_run(actor=alice.actor, request=other)


def test_twenty_requests_without_a_key_are_twenty_runs(alice: Person) -> None:
    runs = race(lambda _: start_run(actor=alice.actor, request=RunRequest(prompt="Why?")).pk)
    assert len(set(runs)) == RACERS
    assert Run.objects.everywhere().count() == RACERS


# --- claiming ------------------------------------------------------------------------------------


def test_of_twenty_drivers_that_want_the_same_runs_each_run_goes_to_one(alice: Person) -> None:
    made = {make_run(alice, models=("local/brisk",)).pk for _ in range(5)}
    now = timezone.now()
    claims = race(lambda number: claim_runs(owner=f"driver {number}", limit=3, now=now))
    assert not [each for each in claims if isinstance(each, Exception)]
    claimed = [pair for each in claims if isinstance(each, list) for pair in each]
    assert sorted(claimed) == sorted((pk, 1) for pk in made)


def test_a_claim_holds_until_its_lease_runs_out_and_the_next_has_a_higher_fence(
    alice: Person,
) -> None:
    run, now = make_run(alice), timezone.now()
    assert claim_runs(owner="one", limit=9, now=now) == [(run.pk, 1)]
    assert claim_runs(owner="two", limit=9, now=now + timedelta(seconds=LEASE_S)) == []
    later = now + timedelta(seconds=LEASE_S + 1)
    assert claim_runs(owner="two", limit=9, now=later) == [(run.pk, 2)]

    assert not renew_lease(run_id=run.pk, fence=1, now=later), "the first has lost it"
    assert renew_lease(run_id=run.pk, fence=2, now=later)
    release_lease(run_id=run.pk, fence=1)
    assert claim_runs(owner="three", limit=9, now=later) == [], "only its holder lets it go"
    release_lease(run_id=run.pk, fence=2)
    assert claim_runs(owner="three", limit=9, now=later) == [(run.pk, 3)]


def test_runs_are_claimed_oldest_first_as_many_as_asked_and_never_once_ended(
    alice: Person,
) -> None:
    first, second, third = (make_run(alice).pk for _ in range(3))
    Run.objects.everywhere().filter(pk=first).update(status="done")
    claimed = claim_runs(owner="one", limit=1, now=timezone.now())
    assert [pk for pk, _ in claimed] == [second]
    claimed = claim_runs(owner="one", limit=5, now=timezone.now())
    assert [pk for pk, _ in claimed] == [third]


# --- writing the log -----------------------------------------------------------------------------


def test_a_batch_is_written_whole_with_seqs_that_follow(alice: Person) -> None:
    run = make_run(alice)
    batch = Batch(
        events=[fact(), fact(EventType.CALL_FIRST_TOKEN, call="A", first_token_ms=9)],
        run={"status": "running"},
        calls={"A": {"state": "streaming"}},
    )
    assert record(run, batch, behind=1) == 3
    assert list(RunEvent.objects.filter(run=run).values_list("seq", "type")) == [
        (1, "run.started"),
        (2, "call.started"),
        (3, "call.first_token"),
    ]
    now = stored(run)
    assert (now["run"]["status"], now["run"]["last_seq"]) == ("running", 3)
    assert now["calls"][0]["state"] == "streaming"


@pytest.mark.parametrize(
    ("fence", "behind"),
    [(1, 1), (0, 0), (0, 5)],
    ids=["another's lease", "an older log", "a log that is not there"],
)
def test_who_has_lost_the_run_writes_nothing_at_all(alice: Person, fence: int, behind: int) -> None:
    run = make_run(alice)
    # Two facts, so that no head can be mistaken for that of a batch that is there already.
    batch = Batch(events=[fact(), fact()], run={"status": "failed"}, calls={"A": {"text": "x"}})
    before = stored(run)
    with pytest.raises(LeaseLost):
        record(run, batch, behind=behind, fence=fence)
    assert stored(run) == before
    assert record(run, batch, behind=1) == 3


def test_a_batch_whose_reply_was_lost_is_not_written_again(alice: Person) -> None:
    run = make_run(alice)
    batch = Batch(events=[fact()], calls={"A": {"state": "waiting"}})
    assert record(run, batch, behind=1) == 2
    before = stored(run)
    assert record(run, batch, behind=1) == 2
    assert stored(run) == before


def test_a_batch_of_text_alone_leaves_the_head_where_it_is(alice: Person) -> None:
    run = make_run(alice)
    for text in ("Half", "Half and half"):
        assert record(run, Batch(calls={"A": {"text": text}}), behind=1) == 1
    assert Call.objects.get(run=run, label="A").text == "Half and half"
    with pytest.raises(LeaseLost):
        record(run, Batch(calls={"A": {"text": "late"}}), behind=1, fence=9)
    assert Call.objects.get(run=run, label="A").text == "Half and half"


def test_a_batch_that_fails_half_way_leaves_no_half(alice: Person) -> None:
    run = make_run(alice)
    before = stored(run)
    broken = Batch(events=[fact()], run={"status": "running"}, calls={"A": {"state": None}})
    with pytest.raises(DatabaseError):
        record(run, broken, behind=1)
    assert stored(run) == before


def test_of_twenty_writers_behind_the_same_fact_one_gets_through(alice: Person) -> None:
    run = make_run(alice)
    # Of different lengths, so that no writer takes another's batch for its own.
    results = race(lambda number: record(run, Batch(events=[fact()] * (number + 1)), behind=1))
    won = [each for each in results if isinstance(each, int)]
    assert len(won) == 1, results
    assert {type(each) for each in results if not isinstance(each, int)} == {LeaseLost}
    assert RunEvent.objects.filter(run=run).count() == won[0]


def test_a_run_ends_once(alice: Person) -> None:
    run = make_run(alice)
    end = fact(EventType.RUN_FINISHED, status="done", reason=None)
    record(run, Batch(events=[end], run={"status": "done"}), behind=1)
    before = stored(run)
    with pytest.raises(IntegrityError):
        record(run, Batch(events=[end], run={"status": "failed"}), behind=2)
    assert stored(run) == before


# --- stopping ------------------------------------------------------------------------------------


def test_of_twenty_stops_one_is_taken_and_the_rest_find_it_asked(alice: Person) -> None:
    run = make_run(alice)
    stops = race(lambda _: cancel_run(run=run))
    assert sorted(map(bool, stops)) == [False] * (RACERS - 1) + [True], stops


def test_of_twenty_stops_of_one_call_one_is_taken_and_no_other_call_is_touched(
    alice: Person,
) -> None:
    run = make_run(alice)
    stops = race(lambda _: cancel_call(run_id=run.pk, label="B"))
    assert sorted(map(bool, stops)) == [False] * (RACERS - 1) + [True], stops
    asked = Call.objects.filter(run=run, stop_requested_at__isnull=False)
    assert list(asked.values_list("label", flat=True)) == ["B"]


def test_what_has_ended_cannot_be_stopped(alice: Person) -> None:
    run = make_run(alice)
    Run.objects.everywhere().filter(pk=run.pk).update(status="done")
    Call.objects.filter(run=run).update(state="done")
    assert not cancel_run(run=run)
    assert not cancel_call(run_id=run.pk, label="A")
    assert not cancel_call(run_id=uuid4(), label="A")
