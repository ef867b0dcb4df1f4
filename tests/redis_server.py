"""A real redis-server for a test, empty and on a port of its own."""

import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from launcher import redis_server
from launcher.layout import ROOT, Layout

_START_TIMEOUT_S = 10


class NoRedis(Exception):
    """The server that was started does not answer."""


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A running redis-server; it may be paused and killed, and is ended after the test."""

    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def pause(self) -> None:
        """From now on it takes connections and answers nothing, as if it were frozen."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@cache
def _program() -> Path:
    return redis_server.find(Layout(ROOT, ROOT / ".rex"))


@contextmanager
def running() -> Iterator[RedisServer]:
    """A server of the program that ``./rex test`` would find. Raises Failed, and NoRedis where it
    does not answer: the tests of Redis cannot run then, which is a failure, not a skip."""
    program = _program()
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="rex-redis-") as folder:
        command = [str(program), "--bind", "127.0.0.1", "--port", str(port), "--dir", folder]
        process = subprocess.Popen(
            [*command, "--save", "", "--appendonly", "no", "--daemonize", "no"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        server = RedisServer(port, process)
        try:
            _wait_until_it_answers(server)
            yield server
        finally:
            server.kill()


def _wait_until_it_answers(server: RedisServer) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not answers(server):
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise NoRedis(f"The redis-server does not answer (exit {server.process.poll()}).")
        time.sleep(0.01)


def answers(server: RedisServer) -> bool:
    """Whether it answers a PING within a second."""
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False
