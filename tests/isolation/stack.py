"""The whole of Rex in processes of its own, with a canary for every secret it is given."""

import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from redis import Redis

from tests.redis_server import RedisServer
from tests.rexsite.rex_process import Rex, manage, rex_on

PROVIDER_KEY = "sk-canary-provider-key-5d0e1f"
SECRET_KEY = "canary-secret-key-b81c77e2a94d4f0e"
REDIS_PASSWORD = "canary-redis-password-29aa"
_START_TIMEOUT_S = 20


@dataclass(slots=True)
class Stack:
    """``heard`` is everything any part of it said to a client, with where that was."""

    rex: Rex
    state: Path
    fanout_url: str
    fanout_log: Path
    redis: Any
    spans: list[bytes]
    secrets: set[str]
    heard: list[tuple[str, str]] = field(default_factory=list)

    def ask(
        self,
        client: httpx.Client,
        method: str,
        address: str,
        *,
        shows: str = "",
        hides: str = "",
        **options: Any,
    ) -> httpx.Response:
        """Ask and keep the answer. ``shows`` is the pattern of the one secret it is there to show,
        which is a secret from then on; ``hides`` what is in the address, and so in the page."""
        answer = client.request(method, address, **options)
        # A browser is handed its session, and that alone, in this one header.
        headers = [line for line in answer.headers.multi_items() if line[0] != "set-cookie"]
        for name in ("sessionid", "rex_sessionid"):
            if name in client.cookies:
                self.secrets.add(client.cookies[name])
        text = answer.text
        if shows:
            found = re.search(shows, text)
            assert found, f"{method} {address} does not show what it is for: {answer.status_code}"
            self.secrets.add(found[1])
            text = text.replace(found[1], "")
        if hides:
            text = text.replace(hides, "")
        self.heard.append((f"{method} {answer.status_code} {address}", f"{headers}\n{text}"))
        return answer

    def form(self, client: httpx.Client, address: str, **options: Any) -> httpx.Response:
        fields = options.pop("data", {}) | {"csrfmiddlewaretoken": client.cookies["csrftoken"]}
        return self.ask(client, "POST", address, data=fields, **options)

    def finished(self, run: httpx.Response) -> dict[str, Any]:
        """The run that was accepted, once it has ended."""
        assert run.status_code == 202, run.text
        deadline = time.monotonic() + 30
        while True:
            told: dict[str, Any] = self.rex.api.get(run.json()["api_url"]).json()
            if told["ended_at"]:
                return told
            assert time.monotonic() < deadline, f"it does not end: {told['status']}"
            time.sleep(0.1)

    def everything(self) -> Iterator[tuple[str, bytes]]:
        """(where, bytes) of all that a secret could have got into."""
        for where, text in self.heard:
            yield where, text.encode()
        yield "the log of the web", self.rex.log.read_bytes()
        yield "the log of the service", self.fanout_log.read_bytes()
        for path in ("/metrics", "/healthz", "/readyz", "/targets"):
            yield f"the service's {path}", httpx.get(f"{self.fanout_url}{path}").content
        for number, span in enumerate(self.spans):
            yield f"span batch {number}", span
        for key in self.redis.scan_iter():
            yield "a key of Redis", key
            yield f"Redis: {key!r}", self._value(key)
        for command in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                yield f"arguments of {command.parent.name}", command.read_bytes()
            except OSError:
                continue  # it has ended
        for file in self.state.glob("rex.sqlite3*"):
            yield f"database file {file.name}", file.read_bytes()

    def _value(self, key: bytes) -> bytes:
        kind = self.redis.type(key)
        if kind == b"string":
            return bytes(self.redis.get(key) or b"")
        if kind == b"hash":
            return repr(self.redis.hgetall(key)).encode()
        if kind == b"zset":
            return repr(self.redis.zrange(key, 0, -1)).encode()
        # Anything else as Redis would save it, in which short texts stand as they are.
        return bytes(self.redis.dump(key) or b"")

    def found(self) -> list[str]:
        """Where which secret was found: the list that must be empty."""
        sessions = {each for each in self.secrets if len(each) == 32}
        return [
            f"{secret[:12]}… in {where}"
            for where, content in self.everything()
            for secret in self.secrets
            # Django finds a session by its id; the row is what it is the key of.
            if secret.encode() in content and not (secret in sessions and "database" in where)
        ]


@contextmanager
def collector(batches: list[bytes]) -> Iterator[str]:
    """A collector of spans that keeps what it is sent; its address."""

    class Collect(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            batches.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collect)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def service(binary: Path, log: Path, env: dict[str, str]) -> Iterator[str]:
    """The fan-out service, all that it says in ``log``; its address."""
    with log.open("wb") as written:
        process = subprocess.Popen(
            [str(binary), "--exit-on-stdin-eof"],
            env={"PATH": os.environ["PATH"]} | env,
            stdin=subprocess.PIPE,
            stdout=written,
            stderr=written,
        )
    assert process.stdin
    try:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not (found := re.search(r'"address": ?"([^"]+)"', log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield f"http://{found[1]}"
    finally:
        process.stdin.close()  # which ends it
        process.wait(timeout=20)


@contextmanager
def stack(
    state: Path, binary: Path, upstream: str, redis: RedisServer, **settings: str
) -> Iterator[Stack]:
    """Web, service, Redis and SQLite, as talkative as they can be."""
    plain = Redis.from_url(redis.url)
    plain.config_set("requirepass", REDIS_PASSWORD)
    locked = redis.url.replace("redis://", f"redis://:{REDIS_PASSWORD}@")
    providers = {
        f"REX_PROVIDER_{name}_{what}": value
        for name in ("KEYED", "REFUSED")
        for what, value in (("BASE_URL", f"{upstream}/v1"), ("API_KEY", PROVIDER_KEY))
    }
    database = f"sqlite:///{state / 'rex.sqlite3'}"
    manage(state, database, "migrate", "--verbosity", "0")
    spans: list[bytes] = []
    log = state / "service.log"
    with collector(spans) as endpoint:
        tracing = {"OTEL_ENABLED": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        talkative = {
            "REX_FANOUT_LISTEN": "127.0.0.1:0",
            "REX_FANOUT_LOG_LEVEL": "debug",
            "REX_FANOUT_TRACE_PROVIDERS": "1",
            "REX_REDIS_URL": locked,
        }
        with service(binary, log, providers | talkative | tracing) as url:
            given = {
                "DJANGO_SETTINGS_MODULE": "tests.isolation.crashing",
                "REX_SECRET_KEY": SECRET_KEY,
                "REX_LOG_LEVEL": "DEBUG",
                "REX_DRIVE_RUNS_IN_WEB": "1",
                "REX_DATABASE_TIMEOUT_S": "10",
                "REX_FANOUT_URL": url,
                "REX_REDIS_URL": locked,
                "REX_SYNTHESIZER": "keyed/ok",
                "REX_MODELS": "keyed/ok",
            }
            with rex_on(state, database, **providers, **tracing, **given, **settings) as rex:
                key = rex.api.headers["Authorization"].rpartition("-")[2]
                found = Stack(
                    rex, state, url, log, Redis.from_url(locked), spans,
                    {PROVIDER_KEY, SECRET_KEY, REDIS_PASSWORD, key},
                )  # fmt: skip
                found.secrets |= {
                    value for name, value in rex.browser.cookies.items() if "session" in name
                }
                yield found
