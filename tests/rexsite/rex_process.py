"""Rex's web in a process of its own, on the database a test names."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from launcher.layout import ROOT

_START_TIMEOUT_S = 30
# A wait of Rex's that has no end becomes a failure here.
HANGS_AFTER_S = 30


@dataclass(frozen=True, slots=True)
class Rex:
    """``api`` is a client with a key, ``browser`` one that is signed in."""

    url: str
    api: httpx.Client
    browser: httpx.Client
    log: Path

    def ask(self) -> httpx.Response:
        return self.api.post("/api/run", json={"prompt": "Why?", "models": ["local/brisk"]})

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line[:1] == "{"]
        return [line for line in lines if line.get("event") == event]


def _environment(state: Path, database: str, settings: dict[str, str]) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("REX_")}
    return (
        ours
        | {
            "DJANGO_SETTINGS_MODULE": "tests.rexsite.process_settings",
            "DATABASE_URL": database,
            "REX_STATE_DIR": str(state),
            "REX_SECRET_KEY": "only-for-tests",
            "REX_DRIVE_RUNS_IN_WEB": "0",
            "REX_DATABASE_TIMEOUT_S": "1",
        }
        | settings
    )


def manage(state: Path, database: str, *arguments: str) -> str:
    """What ``manage.py`` prints."""
    command = [sys.executable, "manage.py", *arguments]
    env = _environment(state, database, {})
    done = subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True)
    return done.stdout


@contextmanager
def rex_on(state: Path, database: str, **settings: str) -> Iterator[Rex]:
    """Rex on a database that has its tables, with one workspace and someone who owns it."""
    made = json.loads(manage(state, database, "bootstrap_workspace", "--json"))
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "rexsite.asgi:application", "--port", str(port)]
    log = state / "rex.log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [*command, "--no-access-log", "--timeout-graceful-shutdown", "1"],
            cwd=ROOT,
            env=_environment(state, database, settings),
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
        )
    url = f"http://127.0.0.1:{port}"
    key = {"Authorization": f"Bearer {made['api_key']}"}
    try:
        _wait_until_it_answers(url, process, log)
        with (
            httpx.Client(base_url=url, headers=key, timeout=HANGS_AFTER_S) as api,
            httpx.Client(base_url=url, timeout=HANGS_AFTER_S) as browser,
        ):
            browser.get("/login/")
            signed_in = browser.post(
                "/login/",
                data={"username": made["username"], "password": made["password"]},
                headers={"X-CSRFToken": browser.cookies["csrftoken"]},
            )
            assert signed_in.status_code == 302, signed_in.text
            yield Rex(url, api, browser, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=HANGS_AFTER_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def _wait_until_it_answers(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            httpx.get(f"{url}/healthz", timeout=5)
            return
        except httpx.TransportError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
