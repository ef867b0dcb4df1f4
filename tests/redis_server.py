"""A real redis-server for a test, empty and on a port of its own."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

_START_TIMEOUT_S = 10


class NoRedis(Exception):
    """No redis-server was found: the tests of Redis cannot run, which is a failure, not a skip."""


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


@contextmanager
def running() -> Iterator[RedisServer]:
    """The server that REX_REDIS_SERVER names, or the one on PATH; raises NoRedis."""
    program = os.environ.get("REX_REDIS_SERVER") or shutil.which("redis-server")
    if not program:
        raise NoRedis("Install redis-server, or name one in REX_REDIS_SERVER.")
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="rex-redis-") as folder:
        command = [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", folder]
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
