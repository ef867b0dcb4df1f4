"""A real PostgreSQL for tests, on a port of its own; a test may freeze it and kill it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from launcher import postgres_server
from launcher.layout import ROOT, Layout

_START_TIMEOUT_S = 30
_USER = "rex"
# Every character that means something in an address: tests connect only if it is read rightly.
_PASSWORD = "p@ss/w:rd?%#"
# A commit reaches the kernel, which outlives a crash of the server, and need not reach the disk.
_OPTIONS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "jit": "off",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
}


class NoPostgres(Exception):
    """The server that was started does not answer."""


class PostgresServer:
    """A cluster below ``folder`` and, while it runs, its server. Used by one test at a time."""

    def __init__(self, programs: Path, folder: Path, user: str | None) -> None:
        self._programs, self._data, self._user = programs, folder / "data", user
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port: int = free.getsockname()[1]
        self._names = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped: list[int] = []
        self._migrated = ""
        password = folder / "password"
        password.write_text(_PASSWORD)
        initdb: list[str | Path] = [
            programs / "initdb",
            "--pgdata",
            self._data,
            "--username",
            _USER,
        ]
        initdb += ["--auth", "scram-sha-256", "--pwfile", password]
        initdb += ["--encoding", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **self._identity())

    def _identity(self) -> dict[str, Any]:
        """PostgreSQL refuses to be run by root."""
        return {"user": self._user, "group": self._user, "extra_groups": []} if self._user else {}

    def url(self, database: str = "postgres") -> str:
        """The ``DATABASE_URL`` of one of its databases."""
        return f"postgresql://{_USER}:{quote(_PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> "psycopg.Connection[tuple[Any, ...]]":
        """A connection of the test's own, which commits each statement."""
        return psycopg.connect(self.url(database), autocommit=True, connect_timeout=5)

    def create_database(self, *, migrated: bool = True) -> str:
        """The ``DATABASE_URL`` of a new database, with Rex's tables unless told otherwise."""
        if migrated and not self._migrated:
            # Once: a copy of a database takes a moment, its migrations take seconds.
            made = self.create_database(migrated=False)
            migrate = [sys.executable, "manage.py", "migrate", "--no-input", "--verbosity", "0"]
            env = os.environ | {"DATABASE_URL": made, "DJANGO_SETTINGS_MODULE": "rexsite.settings"}
            subprocess.run(migrate, check=True, cwd=ROOT, env=env)
            self._migrated = made.rpartition("/")[2]
        name = f"rex_{next(self._names)}"
        template = self._migrated if migrated else "template0"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return self.url(name)

    def start(self, **options: str) -> None:
        """Serve what is there, also after a kill; ``options`` are settings of this start."""
        command: list[str | Path] = [self._programs / "postgres", "-D", self._data]
        for name, value in (_OPTIONS | {"port": str(self.port)} | options).items():
            command += ["-c", f"{name}={value}"]
        log = self._data.with_name("log").open("ab")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=self._data.parent,
            **self._identity(),
        )
        log.close()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._data.with_name("log").read_text(errors="replace")[-2000:]
                raise NoPostgres(f"PostgreSQL does not answer: {said}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether it answers a query within two seconds."""
        try:
            with psycopg.connect(self.url(), connect_timeout=2) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def pause(self) -> None:
        """From now on it takes connections and bytes and answers nothing, as if it were frozen.

        Each of its processes leads a session of its own, so each is stopped by itself.
        """
        assert self._process is not None
        with self.connect() as connection:
            # First the one that starts others: then the list below is complete.
            self._stop(self._process.pid)
            rows = connection.execute("SELECT pid FROM pg_stat_activity").fetchall()
            for (pid,) in rows:
                if pid != connection.info.backend_pid:
                    self._stop(pid)

    def _stop(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        self._stopped.append(pid)

    def resume(self) -> None:
        for pid in self._stopped:
            os.kill(pid, signal.SIGCONT)
        self._stopped.clear()

    def kill(self) -> None:
        """End it at once, as a crash would: what was committed is there at the next start."""
        if self._process is None:
            return
        self.resume()
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(timeout=_START_TIMEOUT_S)
        self._process = None

    def recover(self) -> None:
        """Running and answering, whatever a test has done to it."""
        self.resume()
        if self._process is None or self._process.poll() is not None:
            self.start()


@cache
def _programs() -> Path:
    return postgres_server.find(Layout(ROOT, ROOT / ".rex"))


@contextmanager
def running() -> Iterator[PostgresServer]:
    """A server of the programs that ``./rex test`` would find. Raises Failed, and NoPostgres where
    it does not answer: the tests of PostgreSQL cannot run then, which is a failure, not a skip."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="rex-postgresql-"))
    user = _other_user() if os.geteuid() == 0 else None
    try:
        if user:
            shutil.chown(folder, user, user)
            programs = _reachable(programs, folder)
        server = PostgresServer(programs, folder, user)
        try:
            server.start()
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(folder)


def _other_user() -> str:
    import grp
    import pwd

    known = {each.pw_name for each in pwd.getpwall()} & {each.gr_name for each in grp.getgrall()}
    for name in ("postgres", "nobody", "daemon"):
        if name in known:
            return name
    raise NoPostgres("PostgreSQL does not run as root, and there is no other user to run it as.")


def _reachable(programs: Path, folder: Path) -> Path:
    """``programs``, or a copy where another user may not look: below root's home, for example."""
    if all(parent.stat().st_mode & 0o001 for parent in (programs, *programs.parents)):
        return programs
    return Path(shutil.copytree(programs, folder / "programs", symlinks=True))
