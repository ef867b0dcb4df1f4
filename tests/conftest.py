"""The cast. Alice owns the workspace, Bob is a member, Vera may only look, Charlie is elsewhere."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests import postgres_server as postgres
from tests.postgres_server import PostgresServer
from tests.redis_server import RedisServer, running
from workspaces.access import Actor, actor_from_user
from workspaces.actions.issue_key import issue_key
from workspaces.models import Membership, Workspace


@dataclass(frozen=True, slots=True)
class Person:
    """A user with a workspace, a key of it, and a browser that is signed in."""

    user: User
    workspace: Workspace
    key: str

    @property
    def actor(self) -> Actor:
        actor = actor_from_user(self.user)
        assert actor is not None
        return actor

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def browser(self) -> Client:
        client = Client()
        client.force_login(self.user)
        return client

    def api(self) -> Client:
        return Client(headers=self.bearer)


def _person(name: str, workspace: Workspace, role: str) -> Person:
    user = User.objects.create_user(username=name, password=f"{name}-password")
    Membership.objects.create(workspace=workspace, user=user, role=role)
    return Person(user, workspace, issue_key(workspace=workspace, name=f"{name}'s key"))


@pytest.fixture
def home(db: None) -> Workspace:
    return Workspace.objects.create(slug="acme", name="Acme")


@pytest.fixture
def alice(home: Workspace) -> Person:
    return _person("alice", home, Membership.Role.OWNER)


@pytest.fixture
def bob(home: Workspace) -> Person:
    return _person("bob", home, Membership.Role.MEMBER)


@pytest.fixture
def vera(home: Workspace) -> Person:
    return _person("vera", home, Membership.Role.VIEWER)


@pytest.fixture
def charlie(db: None) -> Person:
    elsewhere = Workspace.objects.create(slug="elsewhere", name="Elsewhere")
    return _person("charlie", elsewhere, Membership.Role.OWNER)


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A real redis-server of the test's own."""
    with running() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    return redis_server.url


@pytest.fixture(scope="session")
def _postgres_of_the_session() -> Iterator[PostgresServer]:
    with postgres.running() as server:
        yield server


@pytest.fixture
def postgres_server(_postgres_of_the_session: PostgresServer) -> Iterator[PostgresServer]:
    """A real PostgreSQL that runs; what a test does to it is undone for the next one."""
    yield _postgres_of_the_session
    _postgres_of_the_session.recover()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """The ``DATABASE_URL`` of a database of the test's own, with Rex's tables and no rows."""
    return postgres_server.create_database()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of Redis and PostgreSQL, so that ``./rex test --without redis`` leaves all
    of them out."""
    for item in items:
        if isinstance(item, pytest.Function):
            for fixture, marker in (("redis_server", "redis"), ("postgres_server", "postgresql")):
                if fixture in item.fixturenames:
                    item.add_marker(marker)


@pytest.fixture(autouse=True)
def _no_tails_left() -> Iterator[None]:
    """Live text belongs to one test's runs; a leak would show here, not three tests later."""
    from orchestration.live import tails

    yield
    left = tails.open_runs()
    for run_id in left:
        tails.close(run_id)  # one failure, not one of every test after it
    assert not left, "a driver left its live tail open"
