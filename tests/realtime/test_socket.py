"""The websocket of a run, on a real server: what a page, a stranger and a vandal get from it."""

import json
import logging
import socket as sockets
import time
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.sessions.models import Session
from websockets.exceptions import InvalidStatus

from orchestration import consumers
from orchestration.domain.run import RUN_ENDED, TRANSIENT
from orchestration.fanout.scripted import Hang, Script
from orchestration.models import Call, Run
from orchestration.queries import snapshot_of
from tests.conftest import Person
from tests.realtime.server import Served, Socket, cookie_of
from tests.runs import log_of, make_run
from workspaces.models import ApiKey, Membership

pytestmark = pytest.mark.django_db(transaction=True)

DEEP = "[" * 100_000
WIDE = json.dumps({"k": "sub", "since": 0, "have": {}, "pad": "x" * 10_000_000})


def facts(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] not in TRANSIENT]


def texts(events: list[dict[str, Any]], have: dict[str, str] | None = None) -> dict[str, str]:
    """Text by stream; a gap or a piece sent twice is an error."""
    found = dict(have or {})
    for event in events:
        if "offset" in event:
            stream = event["call"] if event["type"] == "call.chunk" else f"v{event['version']}"
            assert event["offset"] == len(found.get(stream, "")), "text was lost or doubled"
            found[stream] = found.get(stream, "") + event["text"]
    return found


def finished(run: Run) -> Run:
    """The run when its driver has ended it; bounded."""
    for _ in range(500):
        now = Run.objects.everywhere().get(pk=run.pk)
        if now.status in RUN_ENDED:
            return now
        time.sleep(0.03)
    raise AssertionError("the run did not end")


def silent(served: Served) -> None:
    """Models that begin and then say nothing more."""
    served.scripts.update(
        {name: Script([(0.01, f"Begun by {name}.")], Hang()) for name in ("A", "B", "C")}
    )


# --- a page --------------------------------------------------------------------------------------


def test_a_page_that_watches_gets_exactly_the_log_and_is_told_the_end(
    alice: Person, served: Served
) -> None:
    run = make_run(alice)
    page = served.socket(run.pk, cookie_of(alice)).subscribe().until_closed()

    assert page.code == 1000
    assert (page.kinds[0], page.kinds[-1]) == ("hello", "bye")
    assert page.frames[-1] == {"k": "bye", "code": "run_done", "retry": False}
    log = log_of(finished(run))
    assert facts(page.events) == facts(log)
    assert texts(page.events) == texts(log)
    assert page.events[0]["type"] == "run.started"
    assert page.events[-1]["type"] == "run.finished"


def test_a_key_opens_the_socket_as_a_session_does(alice: Person, served: Served) -> None:
    run = make_run(alice)
    program = served.socket(run.pk, alice.bearer).subscribe().until_closed()
    assert (program.code, program.events[-1]["type"]) == (1000, "run.finished")


def test_a_page_that_drops_and_comes_back_lacks_nothing_and_gets_nothing_twice(
    alice: Person, served: Served
) -> None:
    run = make_run(alice)
    begun = served.socket(run.pk, cookie_of(alice)).subscribe()
    begun.until(lambda page: len(texts(page.events)) >= 2)
    begun.drop()
    head = facts(begun.events)[-1]["seq"]
    have = texts(begun.events)

    again = served.socket(run.pk, cookie_of(alice))
    again.subscribe(head, {stream: [0, len(text)] for stream, text in have.items()})
    again.until_closed()

    log = log_of(finished(run))
    assert facts(begun.events) + facts(again.events) == facts(log)
    assert texts(again.events, have) == texts(log)


def test_a_page_that_knows_more_than_the_log_starts_over_from_a_snapshot(
    alice: Person, served: Served
) -> None:
    run = finished_run(alice, served)
    page = served.socket(run.pk, cookie_of(alice)).subscribe(run.last_seq + 9).until_closed()

    assert page.kinds == ["hello", "snapshot", "bye"]
    told, fresh = page.frames[1]["run"], json.loads(json.dumps(snapshot_of(run)))
    assert {**told, "now": ""} == {**fresh, "now": ""}


def finished_run(person: Person, served: Served) -> Run:
    run = make_run(person)
    served.socket(run.pk, person.bearer).subscribe().until_closed()
    return finished(run)


def test_a_silent_run_is_kept_alive_with_beats(
    alice: Person, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent(served)
    monkeypatch.setattr(consumers, "HEARTBEAT_S", 0.1)
    run = make_run(alice)
    page = served.socket(run.pk, cookie_of(alice)).subscribe()
    page.until(lambda seen: "hb" in seen.kinds)
    assert page.frames[-1]["k"] == "hb"
    assert page.frames[-1]["seq"] <= Run.objects.everywhere().get(pk=run.pk).last_seq


# --- a stranger ----------------------------------------------------------------------------------


def test_a_foreign_run_and_an_unknown_one_are_refused_alike(
    alice: Person, charlie: Person, served: Served
) -> None:
    run = make_run(alice)
    refusals = []
    for run_id in (run.pk, uuid4()):
        for headers in (cookie_of(charlie), charlie.bearer):
            stranger = served.socket(run_id, headers).until_closed()
            assert stranger.code == 4404
            refusals.append(stranger.frames)
    assert refusals == [[{"k": "bye", "code": "not_found", "retry": False}]] * 4


def test_who_does_not_wait_to_be_let_in_gets_nothing_more(
    alice: Person, charlie: Person, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(alice)
    with caplog.at_level(logging.ERROR):
        hasty = served.socket(run.pk, charlie.bearer).subscribe().subscribe().until_closed()
        finished(run)
    assert (hasty.kinds, hasty.code) == (["bye"], 4404)
    assert caplog.messages == []


@pytest.mark.parametrize(
    "headers",
    [{}, {"Cookie": "sessionid=forged"}, {"Authorization": "Bearer sk-rex-nonsense"}],
    ids=["nothing", "a forged session", "a bad key"],
)
def test_without_a_valid_session_or_key_the_socket_closes_with_4401(
    alice: Person, served: Served, headers: dict[str, str]
) -> None:
    run = make_run(alice)
    nobody = served.socket(run.pk, headers).until_closed()
    assert nobody.code == 4401
    assert nobody.frames == [{"k": "bye", "code": "auth", "retry": False}]


def test_a_bad_key_never_falls_back_to_the_session(alice: Person, served: Served) -> None:
    run = make_run(alice)
    both = cookie_of(alice) | {"Authorization": "Bearer nonsense"}
    assert served.socket(run.pk, both).until_closed().code == 4401


def test_another_sites_page_cannot_connect_with_the_readers_session(
    alice: Person, served: Served
) -> None:
    run = make_run(alice)
    for origin in (
        "https://evil.example",
        f"http://127.0.0.1:{served.port + 1}",
        "http://127.0.0.1",
        f"https://127.0.0.1:{served.port}",
        f"http://localhost:{served.port}",
        f"{served.url}.evil.example",
        "http://[",
        "null",
        "",
    ):
        with pytest.raises(InvalidStatus) as refused:
            served.socket(run.pk, cookie_of(alice), origin=origin)
        assert refused.value.response.status_code == 403, origin
    assert greeting(served.socket(run.pk, cookie_of(alice), origin=served.url)) == "hello"
    assert greeting(served.socket(run.pk, alice.bearer)) == "hello", "a program has no origin"


def greeting(socket: Socket) -> str:
    return socket.subscribe().until(lambda page: bool(page.frames)).kinds[0]


@pytest.mark.parametrize(
    ("trusted", "origin"),
    [
        ("https://rex.example", "https://rex.example"),
        ("https://*.example", "https://rex.example"),
        ("https://rex.example:8443", "https://rex.example:8443"),
    ],
)
def test_a_page_of_a_trusted_origin_connects_and_its_neighbours_do_not(
    alice: Person, served: Served, settings: Any, trusted: str, origin: str
) -> None:
    run = make_run(alice)
    settings.CSRF_TRUSTED_ORIGINS = [trusted]
    assert greeting(served.socket(run.pk, cookie_of(alice), origin=origin)) == "hello"
    for other in (f"{origin}1", origin.replace("https", "http"), f"{origin}.evil"):
        with pytest.raises(InvalidStatus):
            served.socket(run.pk, cookie_of(alice), origin=other)


def test_behind_a_proxy_that_ends_tls_the_pages_origin_is_https(
    alice: Person, served: Served, settings: Any
) -> None:
    run = make_run(alice)
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    headers = cookie_of(alice) | {"X-Forwarded-Proto": "https"}
    secure = served.url.replace("http", "https")
    assert greeting(served.socket(run.pk, headers, origin=secure)) == "hello"
    with pytest.raises(InvalidStatus):
        served.socket(run.pk, headers, origin=served.url)


@pytest.mark.parametrize("path", ["/ws/nope/", "/ws/runs/null/", "/ws/runs/", "/", "/ws/runs/%00/"])
def test_an_address_that_is_no_runs_closes_as_not_found_and_logs_no_error(
    alice: Person, served: Served, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    with caplog.at_level(logging.ERROR):
        lost = served.socket_at(path, cookie_of(alice)).subscribe().until_closed()
    assert (lost.frames, lost.code) == ([{"k": "bye", "code": "not_found", "retry": False}], 4404)
    assert caplog.messages == []


@pytest.mark.parametrize("ending", ["membership", "user", "key", "session"])
def test_who_loses_access_while_connected_is_shown_out_within_seconds(
    alice: Person,
    bob: Person,
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
) -> None:
    assert consumers.REAUTHORISE_S <= 5
    monkeypatch.setattr(consumers, "REAUTHORISE_S", 0.3)
    silent(served)
    run = make_run(alice)
    headers = bob.bearer if ending == "key" else cookie_of(bob)
    page = served.socket(run.pk, headers).subscribe()
    staying = served.socket(run.pk, alice.bearer).subscribe()
    page.until(lambda seen: len(texts(seen.events)) == 3)

    match ending:
        case "membership":
            Membership.objects.filter(user=bob.user).delete()
        case "user":
            bob.user.is_active = False
            bob.user.save()
        case "session":
            Session.objects.get(pk=headers["Cookie"].partition("=")[2]).delete()
        case "key":
            ApiKey.objects.filter(name="bob's key").delete()

    page.until_closed()
    assert page.code == 4401
    assert page.frames[-1]["code"] == "auth"
    staying.until(lambda seen: len(texts(seen.events)) == 3)
    assert staying.code is None


# --- a vandal ------------------------------------------------------------------------------------


NO_SUBSCRIPTIONS: list[str | bytes] = [
    "",
    "hello",
    DEEP,
    '{"k":' * 50_000,
    "[]",
    "3",
    "null",
    "{}",
    '{"k": "sub"}',
    '{"k": "sub", "since": "0"}',
    '{"k": "sub", "since": -1}',
    '{"k": "sub", "since": true}',
    '{"k": "sub", "since": 1e999}',
    '{"k": "sub", "since": ' + "9" * 5000 + "}",
    '{"k": "stop", "since": 0}',
    '{"k": "sub", "since": 0, "have": []}',
    '{"k": "sub", "since": 0, "have": {"A": 3}}',
    '{"k": "sub", "since": 0, "have": {"A": [0, -1]}}',
    '{"k": "sub", "since": 0, "have": {"A": [0, 1.5]}}',
    '{"k": "sub", "since": 0, "have": {"A": [0, 1, 2]}}',
    WIDE,
    b"\x00\xff",
]


def test_a_first_frame_that_is_no_subscription_closes_the_socket_and_hurts_nobody(
    alice: Person, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    silent(served)
    run = make_run(alice)
    with caplog.at_level(logging.ERROR):
        for frame in NO_SUBSCRIPTIONS:
            vandal = served.socket(run.pk, alice.bearer).say(frame).until_closed()
            assert (vandal.kinds, vandal.code) == (["bye"], 4400), frame[:80]
        neighbour = served.socket(run.pk, alice.bearer).subscribe()
        neighbour.until(lambda page: len(texts(page.events)) == 3)
    assert neighbour.code is None
    assert caplog.messages == []


def test_what_is_said_after_the_subscription_is_not_listened_to(
    alice: Person, served: Served
) -> None:
    run = make_run(alice)
    page = served.socket(run.pk, alice.bearer).subscribe()
    for noise in ("", DEEP, '{"k": "sub", "since": 0}', b"\x00"):
        page.say(noise)
    page.until_closed()
    assert page.code == 1000
    assert facts(page.events) == facts(log_of(finished(run)))


def test_who_never_reads_is_owed_little_and_delays_nobody(
    alice: Person, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished_run(alice, served)
    long = "A sentence that is stored. " * 80_000
    Call.objects.filter(run=run).update(text=long)
    monkeypatch.setattr(consumers, "SEND_TIMEOUT_S", 0.5)
    for listening in served.server.servers:
        for each in listening.sockets:
            each.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, 8192)

    deaf = [narrow(served, run, alice).subscribe() for _ in range(3)]
    reader = served.socket(run.pk, alice.bearer).subscribe()
    owed: list[int] = []

    def weigh(_: Socket) -> bool:
        owed.append(served.unsent_bytes())
        return False

    reader.until(weigh)

    assert reader.code == 1000
    assert texts(reader.events) == texts(log_of(run))
    assert max(owed) > 0, "nobody was deaf"
    assert max(owed) < len(deaf) * len(long) / 4, "a socket may hold a frame, not a run"
    for socket in deaf:
        socket.drop()


def narrow(served: Served, run: Run, person: Person) -> Socket:
    """A socket whose owner takes a few kilobytes and then reads no more."""
    plain = sockets.socket()
    plain.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    plain.connect(("127.0.0.1", served.port))
    return served.socket(run.pk, person.bearer, sock=plain, max_queue=1)
