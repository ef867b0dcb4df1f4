"""The world of these tests: made once for a module, since making it takes longer than asking it."""

from collections.abc import Iterator

import pytest
from pytest_django import DjangoDbBlocker

from tests.isolation.world import World, make_world, sweep_up


@pytest.fixture(scope="module")
def db(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The database for a whole module: what it writes is committed, so that the database's own
    threads see it too, and is gone after its last test."""
    with django_db_blocker.unblock():
        try:
            yield
        finally:
            sweep_up()


@pytest.fixture(scope="module")
def world(db: None) -> World:
    return make_world()
