"""The operators' requests to a service that is gone, refuses, or answers nonsense."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from orchestration.fanout import operations
from orchestration.fanout.asked import MAX_TARGETS, Asked
from orchestration.fanout.client import FanoutUnavailable
from orchestration.fanout.target_state import Targets
from tests.fanout.servers import saying, serving

ANSWER = b'{"targets":[],"left_out":3,"cache":{"entries":1,"bytes":2}}'
REFUSAL = b'{"error":{"kind":"overloaded","message":"Redis did not forget.","field":null}}'


@pytest.fixture
def point(settings: Any) -> Callable[[str], None]:
    """Has the settings name a service."""

    def at(url: str) -> None:
        settings.FANOUT_BACKEND, settings.FANOUT_URL = "go", url

    return at


async def test_the_state_of_the_providers_is_read(point: Callable[[str], None]) -> None:
    async with serving(saying(ANSWER, content_type="application/json")) as server:
        point(server.url)
        told = await asyncio.to_thread(operations.targets)
    assert (told.left_out, told.cache and told.cache.bytes) == (3, 2)
    assert server.requests[0].startswith(b"GET /targets ")


async def test_a_purge_names_the_workspace_alone(point: Callable[[str], None]) -> None:
    workspace = uuid4()
    async with serving(saying(content_type="text/plain", status="204 No Content")) as server:
        point(server.url)
        await asyncio.to_thread(operations.purge, workspace)
    assert server.requests[0].startswith(f"DELETE /cache/{workspace} ".encode())


def _targets() -> None:
    operations.targets()


def _purge() -> None:
    operations.purge(uuid4())


@pytest.mark.parametrize("ask", [_targets, _purge])
@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        ("503 Service Unavailable", REFUSAL, "Redis did not forget."),
        ("404 Not Found", b"<h1>Not here</h1>", "HTTP 404 without a reason"),
        ("301 Moved Permanently", b"", "HTTP 301 without a reason"),
        ("500 Internal Server Error", b"\xff", "HTTP 500 without a reason"),
    ],
)
async def test_what_the_service_does_not_do_is_said(
    ask: Callable[[], None], status: str, body: bytes, said: str, point: Callable[[str], None]
) -> None:
    async with serving(saying(body, content_type="application/json", status=status)) as server:
        point(server.url)
        with pytest.raises(FanoutUnavailable, match=said):
            await asyncio.to_thread(ask)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", ANSWER[:-1], b"\xff\xfe", b"[" * 99_999])
async def test_an_answer_that_breaks_the_contract_is_none(
    body: bytes, point: Callable[[str], None]
) -> None:
    async with serving(saying(body, content_type="application/json")) as server:
        point(server.url)
        with pytest.raises(FanoutUnavailable, match="not of the contract"):
            await asyncio.to_thread(operations.targets)


@pytest.mark.parametrize("ask", [_targets, _purge])
def test_a_service_that_is_gone_is_said_without_its_address(
    ask: Callable[[], None], point: Callable[[str], None]
) -> None:
    point("http://127.0.0.1:9")
    with pytest.raises(FanoutUnavailable) as caught:
        ask()
    assert "127.0.0.1" not in str(caught.value)


async def test_a_service_that_hangs_is_left(
    point: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "TARGETS_S", 0.1)

    async def nothing(_: Any) -> None:
        await asyncio.sleep(30)

    async with serving(nothing) as server:
        point(server.url)
        with pytest.raises(FanoutUnavailable, match="ReadTimeout"):
            await asyncio.to_thread(operations.targets)


def test_where_no_call_was_made_in_this_process_nothing_is_known(settings: Any) -> None:
    settings.FANOUT_BACKEND, settings.REDIS_URL, settings.CACHE_ENABLED = "python", "", False
    assert operations.targets() == Targets((), 0, None)
    operations.purge(uuid4())


def test_the_targets_of_this_process_are_bounded_in_number() -> None:
    asked = Asked(clock=iter(range(10_000)).__next__)
    with asked.attempt("local", "first", "none"):
        for number in range(MAX_TARGETS):
            with asked.attempt("local", f"m{number}", "none"):
                pass
    told = asked.targets(lambda provider, key: None)
    assert len(told) == MAX_TARGETS
    assert (told[0].model, told[-1].model) == (f"m{MAX_TARGETS - 1}", "m0")
    assert all(target.in_flight == 0 for target in told)
