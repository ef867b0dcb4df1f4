"""A connection that gives a server up that has stopped answering."""

import time
from typing import Any, TypeVar

import psycopg
from django.conf import settings
from psycopg.abc import PQGen
from psycopg.errors import OperationalError, _WaitTimeout

T = TypeVar("T")

# After a wait in vain nobody else waits for this long: requests would queue up for nothing.
LEFT_ALONE_S = 1.0


class Frozen(OperationalError):
    """The server did not answer; whether it carried out what it was sent is not known."""


class Silence:
    """When this process last waited for its database in vain."""

    def __init__(self) -> None:
        self._over_at = 0.0

    def noticed(self) -> None:
        self._over_at = time.monotonic() + LEFT_ALONE_S

    def check(self) -> None:
        """Raises Frozen while the database is left alone."""
        if time.monotonic() < self._over_at:
            raise Frozen("the database did not answer a moment ago")


silence = Silence()


class BoundedConnection(psycopg.Connection[Any]):
    """Every wait for the server ends after ``patience_s``, and with it the connection.

    The kernel of a frozen server still acknowledges what is sent to it, so no time-out of TCP ends
    such a wait. A server that is only slow ends the statement a second earlier, by itself.
    """

    patience_s: float | None = settings.DATABASE_TIMEOUT_S + 1

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
