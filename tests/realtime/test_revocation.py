"""Whoever may not read any more is shown out of what they have open: within five seconds."""

import socket as sockets
import threading
import time
from typing import Any
from uuid import UUID

import httpx
import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session

from orchestration import consumers, events_api
from orchestration.actions.cancel_run import cancel_run
from orchestration.fanout.scripted import Hang, Script
from orchestration.models import Run
from tests.conftest import Person
from tests.realtime.server import Served, cookie_of
from tests.runs import make_run
from workspaces import access
from workspaces.actions.change_role import change_role
from workspaces.actions.choose_workspace import choose_workspace
from workspaces.actions.issue_key import issue_key
from workspaces.actions.remove_member import remove_member
from workspaces.actions.revoke_key import revoke_key
from workspaces.models import ApiKey, Membership

pytestmark = pytest.mark.django_db(transaction=True)

BOUND_S = 5.0
# A busy machine may be late; a reader that is never looked at again is later than that.
SLACK_S = 5.0


def test_the_bound_follows_from_the_times_that_are_set() -> None:
    socket = consumers.REAUTHORISE_S + consumers.REAUTHORISE_TIMEOUT_S + consumers.GOODBYE_S
    # A batch may come just before the next look is due, and the one after it a beat later.
    stream = events_api.REAUTHORISE_S + events_api.HEARTBEAT_S + events_api.REAUTHORISE_TIMEOUT_S
    assert max(socket, stream) < BOUND_S


def unending(person: Person, served: Served) -> Run:
    """A run whose models say nothing."""
    served.scripts.update({name: Script([], Hang()) for name in ("A", "B", "C")})
    return make_run(person)


class Reading:
    """A stream that is read in a thread of its own; ``ended_at`` when the server ended it."""

    def __init__(self, served: Served, run_id: UUID, headers: dict[str, str]) -> None:
        self.lines: list[str] = []
        self.begun = threading.Event()
        self.ended_at = 0.0
        address = f"{served.url}/api/runs/{run_id}/events"
        headers = headers | {"Accept": "application/x-ndjson"}
        self.thread = threading.Thread(target=self._read, args=(address, headers))
        self.thread.start()
        assert self.begun.wait(timeout=15)

    def _read(self, address: str, headers: dict[str, str]) -> None:
        with httpx.stream("GET", address, headers=headers, timeout=30) as answer:
            for line in answer.iter_lines():
                self.lines.append(line)
                self.begun.set()
        self.ended_at = time.monotonic()


def events(served: Served, headers: dict[str, str], run: Run, **query: Any) -> httpx.Response:
    address = f"{served.url}/api/runs/{run.pk}/events"
    return httpx.get(address, params=query, headers=headers, timeout=60)


def head_of(served: Served, run: Run, person: Person) -> int:
    """The last fact of a run in which nothing more happens."""
    head = 0
    while True:
        answer = events(served, person.bearer, run, since=head, wait=1).json()
        if not answer["events"]:
            return head
        head = answer["head"]


def test_everything_that_is_open_closes_when_it_is_revoked(
    alice: Person, bob: Person, vera: Person, served: Served
) -> None:
    """All ways to lose access at one moment, on a real server with its real times."""
    run = unending(alice, served)
    keys = [issue_key(workspace=alice.workspace, name=name) for name in ("a", "b", "c")]
    bearers = [{"Authorization": f"Bearer {key}"} for key in keys]
    signed_out = cookie_of(alice)
    losing = {
        "key": served.socket(run.pk, bearers[0]).subscribe(),
        "silent key": served.socket(run.pk, bearers[0]),
        "membership": served.socket(run.pk, cookie_of(bob)).subscribe(),
        "user": served.socket(run.pk, cookie_of(vera)).subscribe(),
        "session": served.socket(run.pk, signed_out).subscribe(),
    }
    staying = served.socket(run.pk, alice.bearer).subscribe()
    for name, page in losing.items():
        if name != "silent key":
            page.until(lambda seen: bool(seen.events))
    streams = [Reading(served, run.pk, headers) for headers in (bearers[1], cookie_of(bob))]
    head = head_of(served, run, alice)
    polls: list[httpx.Response] = []
    poll = threading.Thread(
        target=lambda: polls.append(events(served, bearers[2], run, since=head, wait=30))
    )
    poll.start()
    time.sleep(1)

    for key in keys:
        revoke_key(key=ApiKey.objects.everywhere().get(public=key.split("-")[2]), by=alice.actor)
    place = Membership.objects.in_workspace(alice.workspace).get(user=bob.user)
    remove_member(membership=place, by=alice.actor)
    vera.user.is_active = False
    vera.user.save()
    Session.objects.get(pk=signed_out["Cookie"].partition("=")[2]).delete()
    revoked_at = time.monotonic()

    for name, page in losing.items():
        page.until_closed(timeout_s=BOUND_S + SLACK_S)
        assert (page.code, page.frames[-1]["code"]) == (4401, "auth"), name
    for stream in streams:
        stream.thread.join(timeout=BOUND_S + SLACK_S)
        assert stream.ended_at, "the stream goes on"
        assert stream.lines
    poll.join(timeout=BOUND_S + SLACK_S)
    assert [answer.status_code for answer in polls] == [401]
    assert polls[0].json()["code"] == "not_authenticated"
    assert time.monotonic() - revoked_at < BOUND_S + SLACK_S

    staying.until(lambda seen: bool(seen.events))
    assert staying.code is None
    cancel_run(run=run)
    assert staying.until_closed().code == 1000


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks again sooner, so that a test need not wait for it."""
    monkeypatch.setattr(consumers, "REAUTHORISE_S", 0.3)
    monkeypatch.setattr(events_api, "REAUTHORISE_S", 0.2)
    monkeypatch.setattr(events_api, "HEARTBEAT_S", 0.3)


def lose_read(key: str) -> None:
    ApiKey.objects.filter(public=key.split("-")[2]).update(scopes=["usage:read"])


def test_a_socket_whose_key_may_read_no_more_is_told_that_it_is_forbidden(
    alice: Person, served: Served, soon: None
) -> None:
    run = unending(alice, served)
    page = served.socket(run.pk, alice.bearer).subscribe().until(lambda seen: bool(seen.events))
    lose_read(alice.key)
    page.until_closed()
    assert (page.code, page.frames[-1]["code"]) == (4403, "forbidden")
    again = served.socket(run.pk, alice.bearer).subscribe().until_closed()
    assert (again.kinds, again.code) == (["bye"], 4403)


def test_a_member_whose_workspace_is_another_now_finds_the_run_no_more(
    alice: Person, charlie: Person, served: Served, soon: None
) -> None:
    run = unending(alice, served)
    Membership.objects.create(workspace=charlie.workspace, user=alice.user)
    cookie = cookie_of(alice)
    page = served.socket(run.pk, cookie).subscribe().until(lambda seen: bool(seen.events))
    session = SessionStore(cookie["Cookie"].partition("=")[2])
    choose_workspace(session, alice.user, charlie.workspace.pk)
    session.save()
    page.until_closed()
    assert page.code == 4404


def test_a_change_that_takes_nothing_away_closes_nothing(
    alice: Person, bob: Person, served: Served, soon: None
) -> None:
    run = unending(alice, served)
    page = served.socket(run.pk, cookie_of(bob)).subscribe()
    place = Membership.objects.in_workspace(alice.workspace).get(user=bob.user)
    change_role(membership=place, role="viewer", by=alice.actor)
    time.sleep(1)
    cancel_run(run=run)
    assert page.until_closed().code == 1000


def test_a_subscription_is_authorised_though_its_socket_was(
    alice: Person, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody looks again by the clock here.
    monkeypatch.setattr(consumers, "REAUTHORISE_S", 3600)
    run = unending(alice, served)
    page = served.socket(run.pk, alice.bearer)
    time.sleep(0.5)
    revoke_key(key=ApiKey.objects.everywhere().get(name="alice's key"), by=alice.actor)
    page.subscribe().until_closed()
    assert (page.kinds, page.code) == (["bye"], 4401)


def test_what_cannot_be_looked_up_is_not_allowed(
    alice: Person, served: Served, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that does not answer leaves nobody connected who may have been revoked."""
    run = unending(alice, served)
    page = served.socket(run.pk, alice.bearer).subscribe().until(lambda seen: bool(seen.events))
    answering = threading.Event()

    def stuck(header: str) -> access.Actor | None:
        answering.wait(timeout=20)
        return access.actor_from_authorization(header)

    monkeypatch.setattr(consumers, "REAUTHORISE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(consumers, "actor_from_authorization", stuck)
    try:
        page.until_closed()
    finally:
        answering.set()
    assert page.code == 1011


def test_who_takes_nothing_is_shown_out_like_everyone_else(
    alice: Person, served: Served, soon: None
) -> None:
    run = unending(alice, served)
    plain = sockets.socket()
    plain.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    plain.connect(("127.0.0.1", served.port))
    deaf = served.socket(run.pk, alice.bearer, sock=plain, max_queue=1).subscribe()
    time.sleep(0.5)
    revoke_key(key=ApiKey.objects.everywhere().get(name="alice's key"), by=alice.actor)
    time.sleep(1.5)
    deaf.until_closed()
    assert deaf.code == 4401
