"""What operators ask of the backend: how the providers stand, and to forget a workspace's answers.

For the admin console, which is synchronous: not to be called in the thread of an event loop. With
``REX_FANOUT=go`` the service is asked. With ``python`` the models are called by event loops of this
process: each is asked, and what processes beside this one know is not told.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Final, TypeVar
from urllib.parse import quote
from uuid import UUID

import httpx
from asgiref.sync import async_to_sync
from django.conf import settings

from orchestration.fanout.cache_store import CacheStore, StoreFailed
from orchestration.fanout.client import FanoutUnavailable
from orchestration.fanout.inprocess import InProcessClient
from orchestration.fanout.select import clients_in_process
from orchestration.fanout.target_state import CacheState, Targets, decode_targets
from orchestration.fanout.wire import WireError, decode_refusal

CONNECT_S: Final = 1.0
TARGETS_S: Final = 3.0  # for the answer of a service that is near
PURGE_S: Final = 8.0  # the service takes 6 s at most
MAX_TARGETS: Final = 500

T = TypeVar("T")


def targets() -> Targets:
    """How the providers stand. Takes ``CONNECT_S + TARGETS_S`` at most.

    Raises FanoutUnavailable.
    """
    if settings.FANOUT_BACKEND == "go":
        body = _ask("GET", "/targets", TARGETS_S, expected=200)
        try:
            return decode_targets(body)
        except ValueError:
            raise FanoutUnavailable("the fan-out service's answer is not of the contract") from None
    return _merged(_of_each_client(lambda client: client.targets(), TARGETS_S))


def purge(workspace_id: UUID) -> None:
    """Forget every answer of a workspace, also those on their way. It may be repeated.

    Takes ``CONNECT_S + PURGE_S`` at most. Other processes that call models, be it replicas of the
    service or workers with ``REX_FANOUT=python``, keep what they have in memory until its time to
    live is over. Raises FanoutUnavailable when not all is forgotten: to repeat it is of use.
    """
    workspace = str(workspace_id)
    if settings.FANOUT_BACKEND == "go":
        _ask("DELETE", f"/cache/{quote(workspace, safe='')}", PURGE_S, expected=204)
        return
    _of_each_client(lambda client: client.purge(workspace), PURGE_S / 2)
    if settings.CACHE_ENABLED and settings.REDIS_URL:
        try:
            async_to_sync(_purge_store)(workspace)
        except StoreFailed as error:
            raise FanoutUnavailable(str(error)) from None


async def _purge_store(workspace: str) -> None:
    store = CacheStore(settings.REDIS_URL)
    try:
        await store.purge(workspace, within_s=PURGE_S / 2)
    finally:
        await store.aclose()


def _ask(method: str, path: str, read_s: float, *, expected: int) -> bytes:
    """The body of the service's answer. Raises FanoutUnavailable for any but ``expected``."""
    try:
        with httpx.Client(
            base_url=settings.FANOUT_URL,
            timeout=httpx.Timeout(read_s, connect=CONNECT_S),
            # The service is ours and near: a proxy of the environment has no part in it.
            trust_env=False,
        ) as http:
            response = http.request(method, path)
    except httpx.HTTPError as error:
        raise FanoutUnavailable(
            f"the fan-out service cannot be reached: {type(error).__name__}"
        ) from error
    if response.status_code == expected:
        return response.content
    try:
        reason = decode_refusal(response.content).message
    except WireError:
        reason = f"the fan-out service answered HTTP {response.status_code} without a reason"
    wait = response.headers.get("retry-after", "")
    raise FanoutUnavailable(reason, float(wait) if wait.isdigit() else None)


def _of_each_client(ask: Callable[[InProcessClient], Awaitable[T]], within_s: float) -> list[T]:
    """What the client of each running event loop answers. Raises FanoutUnavailable."""

    async def answer(client: InProcessClient) -> T:
        return await ask(client)

    asked: list[Any] = [
        asyncio.run_coroutine_threadsafe(answer(client), loop)
        for loop, client in clients_in_process()
    ]
    until = time.monotonic() + within_s
    try:
        return [future.result(max(0.0, until - time.monotonic())) for future in asked]
    except (FutureTimeout, asyncio.CancelledError):
        raise FanoutUnavailable("the calls of this process do not answer") from None
    finally:
        for future in asked:
            future.cancel()


def _merged(answers: list[Targets]) -> Targets:
    """What several event loops tell, as one answer."""
    states = [state for answer in answers for state in answer.targets]
    states.sort(key=lambda state: (not state.refused, state.asked_ms or 0))
    caches = [answer.cache for answer in answers if answer.cache is not None]
    left_out = sum(answer.left_out for answer in answers) + len(states[MAX_TARGETS:])
    return Targets(
        targets=tuple(states[:MAX_TARGETS]),
        left_out=left_out,
        cache=CacheState(sum(c.entries for c in caches), sum(c.bytes for c in caches))
        if settings.CACHE_ENABLED
        else None,
    )
