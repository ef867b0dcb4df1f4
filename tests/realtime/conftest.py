"""A live server for every test that asks for one."""

from collections.abc import Iterator

import pytest

from tests.realtime.server import Served, serving


@pytest.fixture
def served(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with serving(monkeypatch) as server:
        yield server
