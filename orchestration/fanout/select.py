"""Chooses the backend the settings name, and answers what may be asked of it."""

import asyncio
import threading
from collections.abc import Mapping
from weakref import WeakKeyDictionary

from django.conf import settings

from orchestration.domain.routing import (
    OfferedModel,
    RoutingError,
    Target,
    catalogue,
    resolve,
)
from orchestration.fanout.answer_cache import AnswerCache
from orchestration.fanout.cache_store import CacheStore
from orchestration.fanout.client import ProviderClient
from orchestration.fanout.go import GoClient
from orchestration.fanout.inprocess import InProcessClient
from orchestration.fanout.providers import (
    Endpoint,
    ProviderSettingsError,
    endpoints,
    providers_of,
)
from orchestration.fanout.recorded import LoadRecording, RecordedClient

_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, ProviderClient] = WeakKeyDictionary()
_clients_lock = threading.Lock()  # each loop has a thread of its own


def get_client(load_recording: LoadRecording | None = None) -> ProviderClient:
    """The client of the running event loop: the backend of REX_FANOUT, behind it the replays.

    Connections belong to an event loop, so each has its own client. ``load_recording`` is that of
    the first caller in the loop; without one nothing can be replayed.
    """
    loop = asyncio.get_running_loop()
    client = _clients.get(loop)
    if client is None:
        client = make_client(
            settings.FANOUT_BACKEND, settings.FANOUT_URL, endpoints(), load_recording
        )
        with _clients_lock:
            _clients[loop] = client
    return client


async def close_client() -> None:
    """Let the running event loop's client go, if it has one: what is on its way into the cache is
    written, and its connections are closed."""
    with _clients_lock:
        client = _clients.pop(asyncio.get_running_loop(), None)
    if client is not None:
        await client.aclose()


def clients_in_process() -> list[tuple[asyncio.AbstractEventLoop, InProcessClient]]:
    """The clients that call models in this process, with the running event loop each belongs to."""
    with _clients_lock:
        known = list(_clients.items())
    return [
        (loop, client.live)
        for loop, client in known
        if isinstance(client, RecordedClient)
        and isinstance(client.live, InProcessClient)
        and loop.is_running()
    ]


def make_client(
    backend: str, url: str, reach: Mapping[str, Endpoint], load_recording: LoadRecording | None
) -> ProviderClient:
    """``backend`` is ``go`` (the service at ``url``) or ``python`` (LiteLLM in this process)."""
    live: ProviderClient
    if backend == "go":
        live = GoClient(url, providers_of(reach))
    else:
        live = InProcessClient(reach, _answer_cache())
    return RecordedClient(live, load_recording, providers_of(reach))


def _answer_cache() -> AnswerCache | None:
    """The cache of this process; the Go service has its own."""
    if not settings.CACHE_ENABLED:
        return None
    store = CacheStore(settings.REDIS_URL) if settings.REDIS_URL else None
    return AnswerCache(max_bytes=settings.CACHE_BYTES, ttl_s=settings.CACHE_TTL_S, store=store)


def resolve_model(model_id: str) -> Target:
    """Where a model id leads. Raises UnknownModel or ProviderNotConfigured (RoutingError)."""
    return resolve(model_id, providers_of(endpoints()))


def address_of(provider: str) -> str:
    """Where a provider is reached; empty for one that is not known."""
    endpoint = endpoints().get(provider)
    return "" if endpoint is None else endpoint.base_url


def offered_models() -> tuple[OfferedModel, ...]:
    return catalogue(providers_of(endpoints()))


def models_problem(model_id: str) -> str:
    """Why ``model_id`` cannot be asked, as a sentence; empty when it can."""
    try:
        resolve_model(model_id)
    except (RoutingError, ProviderSettingsError) as error:
        return str(error)
    return ""
