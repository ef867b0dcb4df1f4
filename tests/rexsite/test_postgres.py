"""PostgreSQL behind Django: how it is named, and that no wait for it is without an end."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, ProgrammingError, connections
from django.db.utils import ConnectionHandler

from rexsite import settings
from rexsite.postgres import connection as bounded
from rexsite.postgres.connection import BoundedConnection, Frozen
from tests.postgres_server import PostgresServer
from tests.rexsite.test_env import CANARY, refusal


def entry(url: str) -> Any:
    return settings._database(url)


# --- the address --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://db/rex", ("", "", "db", "", "rex")),
        ("postgres://ann@db:5433/rex", ("ann", "", "db", "5433", "rex")),
        ("postgresql://a%40b:p%2F%25%3A%3F%23w@[::1]/r%20x", ("a@b", "p/%:?#w", "::1", "", "r x")),
        ("postgresql:///rex?host=/run/postgresql", ("", "", "/run/postgresql", "", "rex")),
    ],
)
def test_an_address_is_read_as_postgresqls_own_programs_read_it(
    url: str, expected: tuple[str, ...]
) -> None:
    found = entry(url)
    parts = tuple(found[part] for part in ("USER", "PASSWORD", "HOST", "PORT", "NAME"))
    assert parts == expected
    assert found["ENGINE"] == "rexsite.postgres"


def test_an_address_may_ask_for_tls() -> None:
    found = entry("postgresql://db/rex?sslmode=verify-full&sslrootcert=/etc/ca.pem")
    assert found["OPTIONS"]["sslmode"] == "verify-full"
    assert found["OPTIONS"]["sslrootcert"] == "/etc/ca.pem"
    assert "sslmode" not in entry("postgresql://db/rex")["OPTIONS"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"postgresql://ann:{CANARY}/x@db/rex", "In a password"),
        (f"postgresql://ann:1/{CANARY}@db/rex", "In a password"),
        (f"postgresql://ann:x@{CANARY}@db/rex", "In a password"),
        (f"postgresql://ann:x@{CANARY}/y@db/rex", "In a password"),
        (f"postgresql://ann:{CANARY}%zz@db/rex", "In a password"),
        (f"postgresql://ann:{CANARY}@[::1/rex", "In a password"),
        (f"postgresql://ann:{CANARY}@db", "name of the database"),
        (f"postgresql://ann:{CANARY}@db/", "name of the database"),
        (f"postgresql://ann:{CANARY}@db:0/rex", "a port is a number"),
        (f"postgresql://ann:{CANARY}@db:65536/rex", "a port is a number"),
        (f"postgresql://ann:{CANARY}@db/rex?sslmode=yes", "as sslmode: disable, "),
        (f"postgresql://ann:{CANARY}@db/rex?options=-c%20x", "no parameters but sslmode"),
        (f"postgresql://ann:{CANARY}@db/rex?no_such=1", "DATABASE_URL takes postgresql://"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_unseen(url: str, said: str) -> None:
    text = refusal(lambda: entry(url))
    assert text.startswith("DATABASE_URL takes ")
    assert said in text


# --- the connection -----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _nobody_has_waited_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded.silence, "_since", None)
    monkeypatch.setattr(bounded.silence, "reason", "")


@pytest.fixture
def patient_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedConnection, "patience_s", 0.5)


@pytest.fixture
def wrapper(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, django_db_blocker: Any
) -> Iterator[Any]:
    """Django's connection to an empty database, with a pool of its own."""
    monkeypatch.setattr(settings, "DATABASE_TIMEOUT_S", 1)
    url = postgres_server.create_database(migrated=False)
    made: Any = ConnectionHandler({"default": entry(url), "other": entry(url)})["other"]
    # Where transactions look for it by its name.
    connections["other"] = made
    with django_db_blocker.unblock():
        yield made
        made.close()
        made.close_pool()
    del connections["other"]


@pytest.mark.usefixtures("patient_for_a_moment")
def test_a_frozen_server_is_given_up_and_its_connection_with_it(
    postgres_server: PostgresServer,
) -> None:
    with BoundedConnection.connect(postgres_server.url()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        connection.commit()
        postgres_server.pause()
        with pytest.raises(Frozen, match=r"no answer from the database within 0\.5 s"):
            connection.execute("SELECT 2")
        postgres_server.resume()
        # The answer is on its way now; nobody may take it for that of another statement.
        assert connection.closed
        with pytest.raises(psycopg.OperationalError, match="closed"):
            connection.execute("SELECT 3")


def value(wrapper: Any, query: str) -> Any:
    with wrapper.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchone()[0]


@pytest.mark.usefixtures("patient_for_a_moment")
def test_after_a_freeze_the_next_statement_has_a_connection_of_its_own(
    postgres_server: PostgresServer, wrapper: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = value(wrapper, "SELECT pg_backend_pid()")
    postgres_server.pause()
    with pytest.raises(OperationalError, match="no answer"):
        value(wrapper, "SELECT 1")
    wrapper.close()
    # Meanwhile one after another finds out, and nobody else waits.
    with pytest.raises(OperationalError, match="did not answer a moment ago"):
        value(wrapper, "SELECT 1")
    monkeypatch.setattr(bounded, "LEFT_ALONE_S", 0.0)
    with pytest.raises(OperationalError, match="couldn't get a connection"):
        value(wrapper, "SELECT 1")
    postgres_server.resume()
    assert value(wrapper, "SELECT pg_backend_pid()") != before


def test_the_server_ends_a_slow_statement_itself_and_the_connection_stays(wrapper: Any) -> None:
    before = value(wrapper, "SELECT pg_backend_pid()")
    with pytest.raises(OperationalError, match="statement timeout"):
        value(wrapper, "SELECT pg_sleep(20)")
    assert value(wrapper, "SELECT pg_backend_pid()") == before
    assert value(wrapper, "SHOW lock_timeout") == "1s"
    assert value(wrapper, "SHOW idle_in_transaction_session_timeout") == "30s"


@pytest.mark.parametrize("fails", [False, True])
def test_a_migration_takes_as_long_as_it_takes(wrapper: Any, fails: bool) -> None:
    def limits() -> tuple[str, float | None]:
        return value(wrapper, "SHOW statement_timeout"), wrapper.connection.patience_s

    usual = limits()
    assert usual[0] == "1s"
    assert usual[1] is not None
    ends = pytest.raises(ProgrammingError) if fails else nullcontext()
    with ends, wrapper.schema_editor() as editor:
        assert limits() == ("0", None)
        editor.execute("SELECT no_such_function()" if fails else "SELECT 1")
    assert limits() == usual


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"PASSWORD": CANARY}, "password authentication failed"), ({"PORT": "1"}, "refused")],
)
def test_who_cannot_connect_is_told_why(wrapper: Any, wrong: dict[str, str], said: str) -> None:
    wrapper.settings_dict |= wrong
    with pytest.raises(OperationalError, match=said) as refused:
        value(wrapper, "SELECT 1")
    assert CANARY not in str(refused.value)


def test_where_all_connections_are_in_use_the_next_waits_and_nobody_else_is_refused(
    wrapper: Any,
) -> None:
    pool = wrapper.pool
    pool.open()
    pool.resize(min_size=0, max_size=1)
    with pool.connection():
        for _ in range(2):
            with pytest.raises(OperationalError, match="couldn't get a connection"):
                value(wrapper, "SELECT 1")
    assert value(wrapper, "SELECT 1") == 1
