"""Redis may refuse for a moment what the database has just refused; it never lets anything in."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from redis import Redis

from tests.redis_server import RedisServer
from workspaces import refusals
from workspaces.actions.reserve import QuotaExceeded, reserve
from workspaces.actions.settle import settle
from workspaces.domain import quotas
from workspaces.domain.quotas import Dimension, Offer, Refusal, Use
from workspaces.models import Quota, Reservation, Workspace
from workspaces.refusals import refusing_early

pytestmark = pytest.mark.django_db(transaction=True)

SCOPES = ["", "pipeline:synthesis"]
Limit = Callable[..., Quota]


@pytest.fixture
def limit(home: Workspace) -> Limit:
    def set_limit(value: int, dimension: str = "concurrent_runs", pipeline: str = "") -> Quota:
        return Quota.objects.create(
            workspace=home, dimension=dimension, limit=value, pipeline=pipeline
        )

    return set_limit


@pytest.fixture
def redis(
    redis_server: RedisServer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A client of the Redis that Rex is set to use."""
    # A store that rests is of an address, and a port may come again.
    monkeypatch.setattr(refusals, "_store", cache(refusals.RefusalStore))
    settings.REDIS_URL = redis_server.url
    with Redis.from_url(redis_server.url, socket_timeout=5) as client:
        yield client


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is remembered for a minute, and Redis waited for: a test is about what is told,
    not about how busy the machine is."""
    monkeypatch.setattr(refusals, "MOST_MS", 60_000)
    monkeypatch.setattr(refusals, "TIMEOUT_S", 10)
    monkeypatch.setattr(quotas, "SLOT_WAIT", timedelta(minutes=1))


def admit(home: Workspace, pipeline: str = "synthesis") -> UUID:
    subject = uuid4()
    with refusing_early(home, ["", f"pipeline:{pipeline}"]), transaction.atomic():
        reserve(workspace=home, subject=subject, api_key=None, pipeline=pipeline, offers=[Offer(1)])
    return subject


def refused(home: Workspace, pipeline: str = "synthesis") -> Refusal:
    with pytest.raises(QuotaExceeded) as exceeded:
        admit(home, pipeline)
    return exceeded.value.refusal


def end(subject: UUID) -> None:
    with transaction.atomic():
        settle(subject=subject, charges=(), closes=True)


def queries(of: Callable[[], object]) -> int:
    with CaptureQueriesContext(
        connection,
    ) as captured:
        of()
    return len(captured)


def is_let_in(home: Workspace) -> bool:
    try:
        admit(home)
    except QuotaExceeded:
        return False
    return True


def wait_until(let_in: Callable[[], bool], within_s: float = 10) -> bool:
    deadline = time.monotonic() + within_s
    while not let_in():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.usefixtures("unhurried")
def test_the_refusals_of_a_flood_do_not_reach_the_database(
    home: Workspace, limit: Limit, redis: Any
) -> None:
    limit(1)
    admit(home)
    first = refused(home)
    told: list[Refusal] = []
    assert queries(lambda: told.extend(refused(home) for _ in range(20))) == 0
    assert {each.use for each in told} == {first.use}, "with the numbers of the first"
    assert {each.asked for each in told} == {1}
    assert {each.retry_after_s for each in told} == {first.retry_after_s}


def test_without_redis_every_refusal_is_the_databases(home: Workspace, limit: Limit) -> None:
    limit(1)
    admit(home)
    assert queries(lambda: refused(home)) > 0
    assert queries(lambda: refused(home)) > 0


@pytest.mark.usefixtures("unhurried")
def test_requests_a_minute_are_remembered_with_the_wait_that_is_left(
    home: Workspace, limit: Limit, redis: Any
) -> None:
    limit(1, "requests_per_minute")
    end(admit(home))
    first, before = refused(home), timezone.now()
    time.sleep(0.05)
    later: list[Refusal] = []
    assert queries(lambda: later.append(refused(home))) == 0
    assert first.wait is not None
    assert later[0].wait is not None
    assert later[0].wait < first.wait
    # As exact as the first: both lead to the same moment.
    drift = (timezone.now() + later[0].wait) - (before + first.wait)
    assert abs(drift) < timedelta(seconds=0.5)
    assert later[0].use.limit == first.use.limit
    assert first.use.renews_at is not None
    assert later[0].use.renews_at is not None
    assert abs(later[0].use.renews_at - first.use.renews_at) < timedelta(milliseconds=2)


def test_nothing_is_remembered_longer_than_a_second(
    home: Workspace, limit: Limit, redis: Any
) -> None:
    limit(1, "requests_per_minute")
    limit(1, "concurrent_runs")
    limit(1, "requests_per_minute", pipeline="synthesis")
    admit(home)
    assert (refused(home).retry_after_s or 0) > 50
    names = redis.keys("*")
    assert names
    assert all(redis.pttl(name) in range(-2, refusals.MOST_MS + 1) for name in names)
    assert -1 not in [redis.pttl(name) for name in names], "-1 is for ever, -2 is gone"
    assert wait_until(lambda: not redis.keys("*"))


def test_a_quota_that_is_raised_is_felt_within_a_second(
    home: Workspace, limit: Limit, redis: Any
) -> None:
    quota = limit(1)
    admit(home)
    refused(home)
    quota.limit = 2
    quota.save()
    assert wait_until(lambda: is_let_in(home), within_s=3)


@pytest.mark.usefixtures("unhurried")
def test_a_run_that_ends_makes_room_at_once(home: Workspace, limit: Limit, redis: Any) -> None:
    limit(1)
    running = admit(home)
    refused(home)
    assert redis.keys("*")
    end(running)
    assert not redis.keys("*")
    admit(home)


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize(("dimension", "value"), [("fanout_width", 0), ("tokens_per_day", 10)])
def test_what_a_smaller_request_might_fit_into_is_not_remembered(
    home: Workspace, redis: Any, dimension: str, value: int
) -> None:
    with pytest.raises(QuotaExceeded), refusing_early(home, SCOPES):
        use = Use(quotas.Limit(Dimension(dimension), "", value), 0, 0, None)
        raise QuotaExceeded(Refusal(use, value + 1, None))
    assert not redis.keys("*")


@pytest.mark.usefixtures("unhurried")
def test_a_refusal_of_one_pipeline_refuses_no_other(
    home: Workspace, limit: Limit, redis: Any
) -> None:
    limit(1, pipeline="synthesis")
    admit(home)
    refused(home)
    assert queries(lambda: refused(home)) == 0
    admit(home, pipeline="council")


@pytest.mark.usefixtures("unhurried")
def test_two_workspaces_never_meet_and_no_name_is_told(
    home: Workspace, limit: Limit, redis: Any
) -> None:
    other = Workspace.objects.create(slug="elsewhere", name="Elsewhere")
    limit(1)
    limit(0, pipeline="council")
    admit(home)
    refused(home, pipeline="council")
    refused(home)
    kept = {name.decode(): redis.get(name).decode() for name in redis.keys("*")}
    assert len(kept) == 2
    for name, value in kept.items():
        assert name.startswith(f"rex:refused:{{{home.pk}}}:")
        assert "council" not in name
        assert all(type(each) in (int, type(None)) for each in json.loads(value))
    for _ in range(3):
        admit(other)


@pytest.mark.usefixtures("unhurried")
def test_a_redis_that_says_nothing_lets_nothing_in(
    home: Workspace, limit: Limit, redis: Any
) -> None:
    limit(1)
    admit(home)
    refused(home)
    redis.flushall()
    assert queries(lambda: refused(home)) > 0
    assert Reservation.objects.in_workspace(home).count() == 1


def test_a_redis_that_is_killed_is_not_missed(
    home: Workspace, limit: Limit, redis: Any, redis_server: RedisServer
) -> None:
    limit(2)
    admit(home)
    redis_server.kill()
    running = admit(home)
    for _ in range(3):
        assert queries(lambda: refused(home)) > 0
    end(running)
    admit(home)
    refused(home)


def test_a_redis_that_is_frozen_is_not_waited_for_and_then_left_alone(
    home: Workspace, limit: Limit, redis: Any, redis_server: RedisServer, monkeypatch: Any
) -> None:
    monkeypatch.setattr(refusals, "REST_S", 3600)
    limit(2)
    running = admit(home)
    redis_server.pause()
    admit(home)
    asked = _operations(monkeypatch)
    refused(home)
    end(running)
    admit(home)
    refused(home)
    assert asked == [], "it rests"
    assert Reservation.objects.in_workspace(home).filter(closed_at__isnull=True).count() == 2


def _operations(monkeypatch: Any) -> list[object]:
    """What is from now on asked of any Redis."""
    asked: list[object] = []

    def submit(_self: ThreadPoolExecutor, operation: object) -> None:
        asked.append(operation)
        raise TimeoutError

    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)
    return asked


def test_a_redis_that_comes_later_is_used(
    home: Workspace, limit: Limit, redis: Any, redis_server: RedisServer
) -> None:
    limit(1)
    redis_server.pause()
    admit(home)
    refused(home)
    redis_server.resume()

    def is_refused_early() -> bool:
        return queries(lambda: refused(home)) == 0

    assert wait_until(is_refused_early)


@pytest.mark.usefixtures("unhurried")
def test_what_a_frozen_redis_writes_when_it_wakes_refuses_nothing(
    home: Workspace, limit: Limit, redis: Any
) -> None:
    limit(1)
    running = admit(home)
    refused(home)
    (name,) = redis.keys("*")
    told = json.loads(redis.get(name))
    end(running)
    for age_ms in (refusals.MOST_MS + 1_000, -3_600_000):
        # Kept long after its time: its clock was set back, or it was frozen on the way.
        redis.set(name, json.dumps([told[0] - age_ms, *told[1:]]))
        end(admit(home))
    redis.set(name, json.dumps([time.time_ns() // 1_000_000, *told[1:]]))
    refused(home)


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize(
    "value", ["", "null", "[]", "[1]", '"x"', "{}", "[9,9,9,9,9,9,9,9,9]", '["a",1,1,1,1,1,1,1]']
)
def test_a_value_that_is_none_of_ours_is_not_read(
    home: Workspace, limit: Limit, redis: Any, value: str
) -> None:
    limit(1)
    running = admit(home)
    refused(home)
    (name,) = redis.keys("*")
    end(running)
    redis.set(name, value)
    admit(home)
