"""Rex's ASGI application on a real uvicorn, in a thread beside the test and on its database."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
import uvicorn
from django.conf import settings
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from orchestration.fanout.scripted import Script, ScriptedClient
from orchestration.runner import Runner
from rexsite import asgi
from tests.conftest import Person
from tests.runs import answers


@dataclass(slots=True)
class Served:
    """A running server. ``scripts`` are what its models say; a test may change them first."""

    port: int
    server: uvicorn.Server
    scripts: dict[str, Script | Callable[..., Script]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def socket(self, run_id: UUID | str, headers: dict[str, str], **options: Any) -> "Socket":
        """Connect to the run's live socket; nothing is sent yet."""
        return self.socket_at(f"/ws/runs/{run_id}/", headers, **options)

    def socket_at(self, path: str, headers: dict[str, str], **options: Any) -> "Socket":
        connecting = connect(
            f"ws://127.0.0.1:{self.port}{path}",
            additional_headers=headers,
            compression=None,
            proxy=None,
            **options,
        )
        # The server closes what a test leaves open.
        return Socket(connecting.__enter__())

    def unsent_bytes(self) -> int:
        """What the server holds for sockets that do not take it."""
        return sum(
            protocol.transport.get_write_buffer_size()
            for protocol in self.server.server_state.connections
        )


class Socket:
    """A client's end. ``frames`` are all it was sent so far, ``code`` how it was closed."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.frames: list[dict[str, Any]] = []
        self.code: int | None = None

    def subscribe(self, since: int = 0, have: dict[str, Any] | None = None) -> "Socket":
        return self.say(json.dumps({"k": "sub", "since": since, "have": have or {}}))

    def say(self, frame: str | bytes) -> "Socket":
        # A server that has closed already hears nothing; its last frame says why.
        with suppress(ConnectionClosed):
            self.connection.send(frame)
        return self

    def until(self, enough: Callable[["Socket"], bool], timeout_s: float = 15) -> "Socket":
        """Read until ``enough``, or until the server closes; bounded, so a hang is a failure."""
        deadline = time.monotonic() + timeout_s
        while not enough(self):
            try:
                raw = self.connection.recv(timeout=max(0.01, deadline - time.monotonic()))
            except ConnectionClosed as closed:
                self.code = closed.rcvd.code if closed.rcvd else None
                return self
            self.frames.append(json.loads(raw))
        return self

    def until_closed(self, timeout_s: float = 15) -> "Socket":
        return self.until(lambda _: False, timeout_s)

    def drop(self) -> None:
        """Vanish without a goodbye, as a train in a tunnel does."""
        self.connection.socket.close()

    @property
    def kinds(self) -> list[str]:
        return [frame["k"] for frame in self.frames]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for frame in self.frames if frame["k"] == "ev" for event in frame["events"]]


def cookie_of(person: Person) -> dict[str, str]:
    """What the browser of someone signed in sends."""
    name = settings.SESSION_COOKIE_NAME
    return {"Cookie": f"{name}={person.browser().cookies[name].value}"}


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The server, its embedded driver talking to scripted models at twice their speed."""
    scripts: dict[str, Script | Callable[..., Script]] = dict(answers())
    monkeypatch.setattr(asgi, "Runner", lambda: Runner(ScriptedClient(scripts, speed=2)))
    config = uvicorn.Config(
        asgi.application,
        host="127.0.0.1",
        port=0,
        log_config=None,
        timeout_graceful_shutdown=2,
    )
    listening = config.bind_socket()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 15
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline, "the server did not start in time"
            time.sleep(0.01)
        yield Served(listening.getsockname()[1], server, scripts)
    finally:
        server.should_exit = True
        thread.join(timeout=15)
        assert not thread.is_alive(), "the server did not stop"
