"""Live text of a run is its workspace's own: over sockets and over streams, for whoever asks."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from orchestration.publish import driver_of, readers_of
from orchestration.routing import websocket_urlpatterns
from tests.conftest import Person
from tests.isolation.world import UNKNOWN
from tests.realtime.server import Served, cookie_of, serving
from tests.runs import make_run, said
from workspaces.actions.issue_key import issue_key

pytestmark = pytest.mark.django_db(transaction=True)

CANARY = "canary-of-a-live-run"


@pytest.fixture
def served(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with serving(monkeypatch) as server:
        yield server


def headers_of(charlie: Person, bob: Person) -> dict[str, dict[str, str]]:
    """Everyone who has nothing to do with the run: Charlie, nobody, and whose key may not read."""
    blind = issue_key(workspace=bob.workspace, name="blind", scopes=["usage:read"])
    return {
        "a session elsewhere": cookie_of(charlie),
        "a key elsewhere": charlie.bearer,
        "nobody": {},
        "no key": {"Authorization": "Bearer sk-rex-nothing"},
        "a key that may not read": {"Authorization": f"Bearer {blind}"},
    }


def test_every_address_of_a_socket_is_known_here() -> None:
    """A new one needs tests like those below."""
    assert [str(each.pattern) for each in websocket_urlpatterns] == ["ws/runs/<uuid:run_id>/", ""]


def test_a_foreign_live_run_and_an_unknown_one_are_one_to_whoever_connects(
    alice: Person, bob: Person, charlie: Person, served: Served
) -> None:
    served.scripts["A"] = said(f"{CANARY} " * 40, every_s=0.2)
    run = make_run(alice)
    reading = served.socket(run.pk, cookie_of(alice)).subscribe()
    # It is live: its own reader hears the canary.
    reading.until(lambda page: CANARY in str(page.events))
    for who, headers in headers_of(charlie, bob).items():
        told = []
        for run_id in (run.pk, UNKNOWN):
            page = served.socket(run_id, headers).subscribe(have={"A": [0, 0]}).until_closed()
            told.append((page.frames, page.code))
        assert told[0] == told[1], who
        assert told[0][1] in (4401, 4403, 4404)
        assert [frame["k"] for frame in told[0][0]] == ["bye"]
    assert CANARY not in str(told)
    httpx.post(f"{served.url}/api/runs/{run.pk}/stop", headers=alice.bearer)
    reading.until_closed()


def test_a_foreign_stream_of_events_and_an_unknown_one_are_one(
    alice: Person, bob: Person, charlie: Person, served: Served
) -> None:
    run = make_run(alice)
    served.socket(run.pk, alice.bearer).subscribe().until_closed()
    for who, headers in headers_of(charlie, bob).items():
        for accept in ("application/json", "application/x-ndjson"):
            told: list[Any] = []
            for run_id in (run.pk, UNKNOWN):
                answer = httpx.get(
                    f"{served.url}/api/runs/{run_id}/events?wait=1",
                    headers=headers | {"Accept": accept, "X-Request-Id": "always-the-same"},
                )
                kept = {k: v for k, v in answer.headers.items() if k != "date"}
                told.append((answer.status_code, kept, answer.text))
            assert told[0] == told[1], (who, accept)
            assert told[0][0] in (401, 403, 404)
    own = httpx.get(f"{served.url}/api/runs/{run.pk}/events", headers=alice.bearer)
    assert own.json()["events"]


@pytest.mark.parametrize("name", ["token", "key", "api_key", "access_token", "authorization"])
def test_no_socket_takes_a_key_from_its_address(alice: Person, served: Served, name: str) -> None:
    """It would be in the logs of every proxy."""
    run = make_run(alice)
    page = served.socket_at(f"/ws/runs/{run.pk}/?{name}={alice.key}", {}).until_closed()
    assert (page.code, page.frames[-1]["code"]) == (4401, "auth")
    served.socket(run.pk, alice.bearer).subscribe().until_closed()


def test_no_socket_takes_a_key_for_a_subprotocol(alice: Person, served: Served) -> None:
    run = make_run(alice)
    try:
        page = served.socket(run.pk, {"Sec-WebSocket-Protocol": alice.key}).until_closed()
    except InvalidStatus:
        pass
    else:
        assert page.code == 4401
    served.socket(run.pk, alice.bearer).subscribe().until_closed()


def test_a_doorbell_is_of_one_run_and_carries_nothing(alice: Person, charlie: Person) -> None:
    """What rings is a name with the random id of one run in it; there is no text to overhear. Who
    listens has read the run in its workspace (``test_scoped_managers``)."""
    names = set()
    for person in (alice, charlie):
        run = make_run(person)
        names |= {readers_of(run.pk), driver_of(run.pk)}
        assert str(run.pk) in readers_of(run.pk)
    assert len(names) == 4
