"""Processes that run together: started, waited for until healthy, watched, and all ended.

Each runs in a session of its own, so that a Ctrl-C reaches the launcher alone and the order of the
end is the launcher's. ``watchdog.py`` ends them if the launcher cannot.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from launcher.failure import Failed, advice_on_crash, gist, tail
from launcher.layout import Layout

GRACE_S = 10.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Service:
    """One process of the stack. Healthy once ``health_url`` answers 200 within ``startup_s``."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    health_url: str
    startup_s: float = 60.0


class Stack:
    """Running services. A context manager: whatever happens inside, all have ended after it."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._watchdog = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("watchdog.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in self._running.items()}

    def start(self, service: Service) -> None:
        """Starts the process; its output goes to ``logs/<name>.log``, begun anew each start."""
        with self._log(service.name).open("wb") as log:
            process = subprocess.Popen(
                service.command,
                cwd=self._layout.root,
                env=dict(service.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running[service.name] = process
        self._tell_watchdog("+", process.pid)

    def wait_healthy(self, service: Service) -> None:
        """Returns when the service answers; raises Failed when it ends or takes too long."""
        deadline = time.monotonic() + service.startup_s
        while not _answers(service.health_url):
            self.raise_if_ended()
            if time.monotonic() > deadline:
                raise Failed(
                    f"{service.name} did not answer within {service.startup_s:.0f} s.",
                    tail(self._read_log(service.name)),
                    f"Its log is {self._log(service.name)}.",
                )
            time.sleep(_POLL_S)

    def raise_if_ended(self) -> None:
        """Raises Failed when a service has ended that should run, with the tail of its log."""
        for name, process in self._running.items():
            code = process.poll()
            if code is not None:
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                log = self._read_log(name)
                advice = (advice_on_crash(log), f"Its log is {self._log(name)}.")
                raise Failed(
                    f"{name} ended unexpectedly ({how}).",
                    gist(log),
                    "\n".join(filter(None, advice)),
                )

    def watch(self) -> None:
        """Returns never: raises Failed when a service ends, or what a signal handler raises."""
        while True:
            self.raise_if_ended()
            time.sleep(0.25)

    def stop(self) -> None:
        """Ends the services one after the other, last started first.

        Each is asked, and killed after ``GRACE_S``; a second Ctrl-C kills all. A service is still
        there while those that use it end: the web lets go of its runs in order, instead of seeing
        every call of theirs break.
        """
        before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: self._kill_all())
        try:
            for process in reversed(self._running.values()):
                _signal_group(process, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_S)
                # Also what a service left behind in its group.
                _signal_group(process, signal.SIGKILL)
                process.wait()
                self._tell_watchdog("-", process.pid)
            self._running.clear()
            if self._watchdog.stdin:
                self._watchdog.stdin.close()
            self._watchdog.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _kill_all(self) -> None:
        for process in self._running.values():
            _signal_group(process, signal.SIGKILL)

    def _tell_watchdog(self, change: str, group: int) -> None:
        if self._watchdog.stdin and not self._watchdog.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._watchdog.stdin.write(f"{change}{group}\n")
                self._watchdog.stdin.flush()

    def _log(self, name: str) -> Path:
        return self._layout.logs / f"{name}.log"

    def _read_log(self, name: str) -> str:
        return self._log(name).read_text(encoding="utf-8", errors="replace")


def _signal_group(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal asked the launcher to end. Not an Exception: no handler of errors may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def raise_on_signals() -> None:
    """From here on each stop signal raises Stopped in the main thread.

    A hang-up the caller had ignored stays ignored: that is what ``nohup`` asks for.
    """

    def stop(number: int, _frame: object) -> None:
        raise Stopped(number)

    for number in STOP_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


# A proxy of the machine must not stand between the launcher and its own loopback services.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _answers(url: str) -> bool:
    try:
        with _DIRECT.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False
