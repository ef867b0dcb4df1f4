"""The programs of a measurement: started on free ports of loopback, stopped by their own ids."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_START_S = 120
_STOP_S = 8


@dataclass(frozen=True, slots=True)
class Program:
    """A running program. ``url`` has no path; ``log`` holds what it printed."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pids(self) -> list[int]:
        """Its process and their children: workers that it started count as itself."""
        found = [self.process.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                with suppress(OSError):
                    found += [int(child) for child in task.read_text().split()]
        return found


class Stack:
    """Starts programs and, at the end of the ``with``, stops all of them, the latest first."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Stack":
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._running):
            _stop(process)

    def announcing(
        self, name: str, command: Sequence[str | Path], env: Mapping[str, str], word: str
    ) -> Program:
        """A program whose first line of JSON with ``word`` says where it listens."""
        process, log = self._start(name, command, env)
        address = _wait(process, lambda: _said(log, word), f"{name} did not say where it listens")
        url = address if "://" in address else f"http://{address}"
        return Program(name, url, process, log)

    def listening(
        self,
        name: str,
        command: Sequence[str | Path],
        env: Mapping[str, str],
        port: int,
        cwd: Path | None = None,
    ) -> Program:
        """A program that is ready when something accepts connections on ``port``."""
        process, log = self._start(name, command, env, cwd)
        _wait(process, lambda: _accepts(port), f"{name} does not listen")
        return Program(name, f"http://127.0.0.1:{port}", process, log)

    def stop(self, program: Program) -> None:
        self._running.remove(program.process)
        _stop(program.process)

    def _start(
        self,
        name: str,
        command: Sequence[str | Path],
        env: Mapping[str, str],
        cwd: Path | None = None,
    ) -> tuple[subprocess.Popen[bytes], Path]:
        log = self._logs / f"load-{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [str(part) for part in command],
                # Open while we live: what watches it ends with us, however we end.
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={"PATH": os.environ["PATH"], "HOME": str(self._logs)} | dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        self._running.append(process)
        return process, log


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(process: subprocess.Popen[bytes], look: Any, problem: str) -> str:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := look():
            return str(found)
        time.sleep(0.05)
    raise RuntimeError(problem)


def _said(log: Path, word: str) -> str:
    for line in log.read_text(errors="replace").splitlines(keepends=True):
        if line.startswith("{") and line.endswith("\n"):
            said = json.loads(line)
            if word in said:
                return str(said[word])
    return ""


def _accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a program and its children: its session is its own, so its group is exactly those."""
    if process.stdin:
        process.stdin.close()
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
            break
    # Workers that outlived the first process of the group.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
