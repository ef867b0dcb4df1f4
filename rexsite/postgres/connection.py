"""A connection that gives a server up that has stopped answering."""

import time
from typing import Any, Self, TypeVar

import psycopg
from django.conf import settings
from psycopg.abc import PQGen
from psycopg.errors import OperationalError, _WaitTimeout

T = TypeVar("T")

# After a wait in vain one caller in this time waits again, and finds out for all; each of many
# requests would otherwise hold a thread for the whole of its patience.
LEFT_ALONE_S = 1.0


class Frozen(OperationalError):
    """The server did not answer; whether it carried out what it was sent is not known."""


class Silence:
    """Whether this process last waited for its database in vain, and the ``reason`` for which the
    last connection was not made: the pool, which tries again behind the scenes, keeps it."""

    def __init__(self) -> None:
        self._since: float | None = None
        self.reason = ""

    def noticed(self) -> None:
        self._since = time.monotonic()

    def broken(self) -> None:
        """A connection was got: nobody is refused any more."""
        self._since = None

    def check(self) -> None:
        """Raises Frozen while the database is left alone."""
        if self._since is None:
            return
        if time.monotonic() < self._since + LEFT_ALONE_S:
            raise Frozen(f"the database did not answer a moment ago {self.reason}".strip())
        self.noticed()


silence = Silence()


class BoundedConnection(psycopg.Connection[Any]):
    """Every wait for the server ends after ``patience_s``, and with it the connection.

    The kernel of a frozen server still acknowledges what is sent to it, so no time-out of TCP ends
    such a wait. A server that is only slow ends the statement a second earlier, by itself.
    """

    patience_s: float | None = settings.DATABASE_TIMEOUT_S + 1

    @classmethod
    def connect(cls, *args: Any, **options: Any) -> Self:
        try:
            connection = super().connect(*args, **options)
        except OperationalError as error:
            silence.reason = f"({str(error).strip().partition(chr(10))[0]})"
            raise
        silence.reason = ""
        return connection

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """As psycopg's; a ``timeout`` of the caller's is the caller's to handle."""
        if timeout is not None:
            return super().wait(gen, interval=interval, timeout=timeout)
        try:
            return super().wait(gen, interval=interval, timeout=self.patience_s)
        except _WaitTimeout:
            # An answer that came later would be taken for that of the next statement.
            self.pgconn.finish()
            silence.noticed()
            raise Frozen(f"no answer from the database within {self.patience_s} s") from None
