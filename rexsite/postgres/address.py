"""``DATABASE_URL`` of PostgreSQL as an entry of Django's DATABASES."""

from typing import Any

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

# Longer than any transaction of ours holds a lock, shorter than a person or a client waits.
LOCK_TIMEOUT_S = 2
# A transaction of a process that stopped half way: its locks are given back.
IDLE_IN_TRANSACTION_TIMEOUT_S = 30

_FORM = "takes postgresql://user:password@host:5432/name"
_ESCAPES = "In a password, / @ : ? # and % are written %2F %40 %3A %3F %23 %25."
# Django's name of each part; the rest are options of the connection.
_PARTS = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
_TLS = ("sslmode", "sslrootcert", "sslcert", "sslkey")
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


class WrongAddress(ValueError):
    """Says what an address takes. Never a part of it: any may be a password."""


def database(url: str, *, timeout_s: int, connections: int) -> dict[str, Any]:
    """The entry for ``url``, read as PostgreSQL's own programs read it. Raises WrongAddress.

    No statement is waited for longer than ``timeout_s``, but for a second more where the server
    itself does not end it; of the pool's ``connections`` none longer than that either.
    """
    try:
        given = conninfo_to_dict(url)
    except ProgrammingError:
        # Its words repeat the address.
        raise WrongAddress(f"{_FORM}. {_ESCAPES}") from None
    # Else pieces of a password would be taken for the host or the name, and told as such.
    path = url.partition("://")[2].partition("/")[2].partition("?")[0]
    if "@" in path or "@" in str(given.get("host") or ""):
        raise WrongAddress(f"{_FORM}. {_ESCAPES}")
    if not given.get("dbname"):
        raise WrongAddress(f"{_FORM}; the name of the database is missing.")
    if not given.keys() <= {*_PARTS, *_TLS}:
        raise WrongAddress(f"takes no parameters but {', '.join(_TLS)}, and host for a socket.")
    if given.get("sslmode", "prefer") not in _SSL_MODES:
        raise WrongAddress(f"takes one of these as sslmode: {', '.join(_SSL_MODES)}.")
    port = str(given.get("port") or "5432")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise WrongAddress(f"{_FORM}; a port is a number from 1 to 65535. {_ESCAPES}")
    limits = {
        "lock_timeout": min(LOCK_TIMEOUT_S, timeout_s),
        "statement_timeout": timeout_s,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_TIMEOUT_S,
    }
    return {
        "ENGINE": "rexsite.postgres",
        **{ours: str(given.get(theirs) or "") for theirs, ours in _PARTS.items()},
        # A request has a thread of its own under ASGI, so a connection kept in a thread would serve
        # one request; the pool keeps them, and looks whether one still works before it gives it.
        "CONN_MAX_AGE": 0,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            **{name: given[name] for name in _TLS if name in given},
            "application_name": "rex",
            # Sooner than who waits for a connection gives up, so that the reason is known by then.
            "connect_timeout": max(1, timeout_s - 1),
            "options": " ".join(f"-c {name}={value}s" for name, value in limits.items()),
            "pool": {
                "min_size": 0,
                "max_size": connections,
                "timeout": timeout_s,
                # How long it tries to reach a server again before it waits to be asked.
                "reconnect_timeout": timeout_s,
            },
        },
    }
