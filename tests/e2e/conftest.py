"""The whole of Rex as `./rex up` starts it, with real models, for tests from outside."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.frontend.browser import launched

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Rex:
    """A running Rex: where it is, and how to get in."""

    url: str
    username: str
    password: str
    api_key: str
    state: Path
    pid: int

    def api(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.api_key}"}, timeout=60
        )

    def environment(self) -> dict[str, str]:
        """What a command of the launcher needs to find this Rex and no other."""
        return environment(self.state)


def environment(state: Path) -> dict[str, str]:
    """A shell's environment: without what the tests themselves run under."""
    ours = ("REX_", "DJANGO_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"REX_STATE_DIR": str(state)}


@pytest.fixture(scope="session")
def rex() -> Iterator[Rex]:
    with tempfile.TemporaryDirectory(prefix="rex-e2e-") as state:
        process = subprocess.Popen(
            [ROOT / "rex", "up", "--port", "0"],
            cwd=ROOT,
            env=environment(Path(state)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            said = _greeting(process)
            yield Rex(
                url=_find(r"Rex is running: (http://\S+)", said),
                username=_find(r"sign in +(\S+) /", said),
                password=_find(r"sign in +\S+ / (\S+)", said),
                api_key=_find(r"API key +(\S+)", said),
                state=Path(state),
                pid=process.pid,
            )
        finally:
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=60)
            sys.stdout.write(rest)


def _greeting(process: "subprocess.Popen[str]") -> str:
    """What `./rex up` prints until it says how to stop it."""
    assert process.stdout is not None
    said, deadline = "", time.monotonic() + START_TIMEOUT_S
    for line in process.stdout:
        said += line
        if "stop " in line and "Ctrl-C" in line:
            return said
        assert time.monotonic() < deadline, f"Rex did not start:\n{said}"
    raise AssertionError(f"Rex ended before it was running:\n{said}")


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match, f"{pattern!r} is not in:\n{text}"
    return match[1]


# Playwright's loop runs in this thread while the browser lives, and no other could: neither that of
# an async test, nor a second Playwright. So it lives no longer than a module.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    made = chromium.new_context(
        viewport={"width": 1280, "height": 900},
        permissions=["clipboard-read", "clipboard-write"],
    )
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, rex: Rex) -> Iterator[Page]:
    """A page that is signed in, and that must not complain to the console."""
    shown = context.new_page()
    complaints: list[str] = []
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    shown.on("console", lambda line: _note(line, complaints))
    shown.goto(f"{rex.url}/login/")
    shown.get_by_label("Name", exact=True).fill(rex.username)
    shown.get_by_label("Password").fill(rex.password)
    shown.get_by_role("button", name="Sign in").click()
    shown.wait_for_url(f"{rex.url}/")
    yield shown
    assert not complaints, complaints


def _note(line: Any, complaints: list[str]) -> None:
    if line.type in ("error", "warning"):
        complaints.append(line.text)
