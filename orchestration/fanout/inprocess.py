"""LiteLLM in this process as a backend (``REX_FANOUT=python``): nothing but Python is needed.

LiteLLM writes the providers' requests and reads their formats. Timers, errors and the question
whether an answer is whole are not left to it; see ``exchange.py``. It is imported with the first
call, in a thread: the import takes seconds.

A call's attempts, fallbacks and cache use are the contract's; no call is hedged here, and there are
no limits and no circuit breakers.
"""

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
from msgspec import UNSET

from orchestration.domain.errors import ErrorKind
from orchestration.fanout.answer_cache import AnswerCache
from orchestration.fanout.asked import Asked
from orchestration.fanout.attempts import Attempts
from orchestration.fanout.call_sink import Answer, CallFault, CallSink, Telling
from orchestration.fanout.client import FanoutRefused
from orchestration.fanout.exchange import Exchange, WatchedTransport, current_exchange
from orchestration.fanout.flights import Flights
from orchestration.fanout.providers import Endpoint, providers_of
from orchestration.fanout.relay import RelayClient
from orchestration.fanout.target_state import CacheState, Targets
from orchestration.fanout.upstream_errors import status_kind
from orchestration.fanout.upstream_wires import WIRES, OpenAIWire
from orchestration.fanout.wire import (
    CallRequest,
    FanoutRequest,
    ImagePart,
    Message,
    TextPart,
    Timeouts,
)

# What the table's base address has and LiteLLM's own routes add themselves.
_NATIVE_BASE_ENDS_BEFORE = {"anthropic": "/v1"}
# One client serves LiteLLM's own routes: they send the key with each request.
NATIVE = ("", "")
# How long a refused key is passed over: an account that was topped up serves again without a
# restart, and few calls ask in vain.
REFUSED_S = 60.0


class InProcessClient(RelayClient):
    """Calls the providers in ``endpoints`` through LiteLLM. Used within one event loop.

    Without ``cache`` no answer is kept or shared.
    """

    def __init__(self, endpoints: Mapping[str, Endpoint], cache: AnswerCache | None = None) -> None:
        super().__init__(providers_of(endpoints))
        self._endpoints = endpoints
        self._refused: dict[tuple[str, str], float] = {}  # until when, by provider and key
        self._asked = Asked()
        self._attempts = Attempts(self._attempt)
        self._cache = cache
        self._flights = None if cache is None else Flights(cache, self._attempts)
        self._transport = WatchedTransport()
        self._sdk_clients: dict[tuple[str, str], Any] = {}  # by provider and key
        self._litellm: Any = None
        self._importing = asyncio.Lock()

    def check(self, request: FanoutRequest) -> None:
        super().check(request)
        for position, call in enumerate(request.calls):
            for field, provider in _named(call):
                endpoint = self._endpoints.get(provider)
                if endpoint is None or not endpoint.provider.configured:
                    raise FanoutRefused(
                        422,
                        "the provider is unknown or not configured",
                        f"calls[{position}].{field}",
                    )

    async def answer(self, call: CallRequest, sink: CallSink) -> Answer:
        if self._flights is None or call.cache is UNSET:
            return await self._attempts.answer(call, sink, lambda: sink.deadline_at)
        return await self._flights.answer(call, call.cache, sink)

    async def _attempt(self, call: CallRequest, sink: Telling) -> Answer:
        endpoint = self._endpoints[call.provider]
        # With every key refused lately, the first tells whether that still holds.
        keys = self._good_keys(endpoint) or endpoint.api_keys or ("",)
        place = _place(endpoint, keys[0])
        try:
            with self._asked.attempt(call.provider, call.model, place):
                return await self._ask(endpoint, keys[0], call, sink)
        except CallFault as fault:
            if fault.kind is ErrorKind.AUTH:
                now = asyncio.get_running_loop().time()
                self._refused[call.provider, keys[0]] = now + REFUSED_S
                fault.next_key = bool(self._good_keys(endpoint))
            raise

    def _good_keys(self, endpoint: Endpoint) -> tuple[str, ...]:
        """Those that were not refused lately."""
        now, name = asyncio.get_running_loop().time(), endpoint.provider.name
        return tuple(k for k in endpoint.api_keys if self._refused.get((name, k), now) <= now)

    async def _ask(
        self, endpoint: Endpoint, api_key: str, call: CallRequest, sink: Telling
    ) -> Answer:
        litellm = await self._load()
        wire = WIRES.get(endpoint.provider.litellm, OpenAIWire)()
        asked = Timeouts() if call.timeouts_ms is UNSET else call.timeouts_ms
        exchange = Exchange(
            wire,
            sink,
            asked,
            endpoint,
            whole=call.whole is True,
            thoughts=call.thoughts is True,
        )
        current_exchange.set(exchange)
        try:
            async with exchange.watchdog:
                await self._speak(litellm, endpoint, api_key, call, exchange)
                await exchange.read_on()
        except CallFault:
            raise
        except Exception as error:
            raise exchange.fault or _own_fault(error) from None
        finally:
            sink.counted(wire.counted)
            await exchange.close()
        if exchange.fault:
            raise exchange.fault
        if wire.finish_reason is None:
            raise CallFault(ErrorKind.INCOMPLETE, "the stream ended")
        if not sink.characters:
            raise CallFault(ErrorKind.BAD_UPSTREAM_RESPONSE, "an empty answer")
        return Answer(wire.finish_reason, wire.counted)

    async def _speak(
        self,
        litellm: Any,
        endpoint: Endpoint,
        api_key: str,
        call: CallRequest,
        exchange: Exchange,
    ) -> None:
        """Pass the text on until LiteLLM has said all of it."""
        parts = await litellm.acompletion(
            messages=[{"role": m.role, "content": _content(m)} for m in call.messages],
            stream=True,
            num_retries=0,
            max_retries=0,
            drop_params=True,
            **self._target(endpoint, api_key, call.model),
            **_params(call, endpoint),
        )
        async for part in parts:
            if not part.choices:
                continue
            choice = part.choices[0]
            if choice.delta.content:
                await exchange.say(choice.delta.content)
            if choice.finish_reason:
                # What LiteLLM would do now is for its own statistics.
                return

    def _target(self, endpoint: Endpoint, api_key: str, model: str) -> dict[str, Any]:
        prefix = endpoint.provider.litellm
        # LiteLLM looks into the environment for a key that is not given: it must find none.
        api_key = api_key or "none"
        if prefix in WIRES:
            base_url = endpoint.base_url.removesuffix(_NATIVE_BASE_ENDS_BEFORE.get(prefix, ""))
            return {
                "model": f"{prefix}/{model}",
                "api_base": base_url,
                "api_key": api_key,
                "client": self._native_client(),
            }
        return {
            "model": f"openai/{model}",
            "api_base": endpoint.base_url,
            "api_key": api_key,
            "client": self._openai_client(endpoint, api_key),
        }

    def _openai_client(self, endpoint: Endpoint, api_key: str) -> Any:
        name = (endpoint.provider.name, api_key)
        if name not in self._sdk_clients:
            from openai import AsyncOpenAI

            http = httpx.AsyncClient(transport=self._transport, follow_redirects=False)
            self._sdk_clients[name] = AsyncOpenAI(
                api_key=api_key, base_url=endpoint.base_url, max_retries=0, http_client=http
            )
        return self._sdk_clients[name]

    def _native_client(self) -> Any:
        if NATIVE not in self._sdk_clients:
            from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

            self._sdk_clients[NATIVE] = AsyncHTTPHandler(
                transport=self._transport, follow_redirects=False
            )
        return self._sdk_clients[NATIVE]

    async def _load(self) -> Any:
        if self._litellm is None:
            async with self._importing:
                self._litellm = await asyncio.to_thread(_import_litellm)
        return self._litellm

    async def targets(self) -> Targets:
        """How the providers stand, as far as calls of this event loop say; see ``asked.py``."""
        now = asyncio.get_running_loop().time()

        def refused_for_s(provider: str, place: str) -> float | None:
            for key in self._endpoints[provider].api_keys or ("",):
                until = self._refused.get((provider, key), now)
                if until > now and _place(self._endpoints[provider], key) == place:
                    return until - now
            return None

        states = self._asked.targets(refused_for_s)
        states.sort(key=lambda state: not state.refused)
        cache = None if self._cache is None else CacheState(self._cache.entries, self._cache.bytes)
        return Targets(targets=tuple(states), left_out=0, cache=cache)

    async def purge(self, workspace: str) -> None:
        """Forget the answers of a workspace in memory, and keep none of those on their way; what is
        being written to Redis is waited for. Those in Redis stay: see ``CacheStore.purge``."""
        if self._flights is not None:
            self._flights.forget(workspace)
        if self._cache is not None:
            await self._cache.purge(workspace)

    async def ready(self) -> None:
        await self._load()

    async def aclose(self) -> None:
        if self._flights is not None:
            await self._flights.aclose()
        if self._cache is not None:
            await self._cache.aclose()
        await self._transport.aclose()


def _import_litellm() -> Any:
    # Else the import asks GitHub for prices.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.disable_streaming_logging = True
    litellm.turn_off_message_logging = True
    litellm.num_retries = 0
    # It takes a model that says the same word a hundred times for a fault; that is for us to judge.
    litellm.REPEATED_STREAMING_CHUNK_LIMIT = 1 << 62
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        # Its lines can hold prompts, answers and what providers said; ours tell how calls ended.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return litellm


def _place(endpoint: Endpoint, api_key: str) -> str:
    """What people see of a key: its place among the provider's, counted from 1."""
    return str(endpoint.api_keys.index(api_key) + 1) if api_key in endpoint.api_keys else "none"


def _named(call: CallRequest) -> Iterator[tuple[str, str]]:
    """(field, provider) of everyone a call may ask."""
    yield "provider", call.provider
    for position, fallback in enumerate(() if call.fallbacks is UNSET else call.fallbacks):
        yield f"fallbacks[{position}].provider", fallback.provider
    if call.hedge is not UNSET and call.hedge.provider is not UNSET:
        yield "hedge.provider", call.hedge.provider


def _content(message: Message) -> str | list[dict[str, Any]]:
    """A message's content in OpenAI's words, which LiteLLM turns into the provider's."""
    if isinstance(message.content, str):
        return message.content
    return [
        {"type": "text", "text": part.text}
        if isinstance(part, TextPart)
        else {"type": "image_url", "image_url": {"url": _address(part)}}
        for part in message.content
    ]


def _address(image: ImagePart) -> str:
    if image.url is not UNSET:
        return image.url
    return f"data:{image.media_type};base64,{image.data}"


def _params(call: CallRequest, endpoint: Endpoint) -> dict[str, Any]:
    """The sampling parameters that were asked for, in the words of LiteLLM and of the endpoint."""
    given = UNSET if call.params is UNSET else call.params
    asked: dict[str, Any] = {}
    if given is not UNSET:
        asked = {
            name: value
            for name in given.__struct_fields__
            if (value := getattr(given, name)) is not UNSET
        }
    quirks = endpoint.provider.quirks
    if "seed" in asked and (name := quirks.get("seed_param")):
        asked["extra_body"] = {name: asked.pop("seed")}
    if not quirks.get("omit_stream_options"):
        asked["stream_options"] = {"include_usage": True}
    return asked


def _own_fault(error: Exception) -> CallFault:
    """LiteLLM refused before anything was sent, or failed itself; its words stay here."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and 400 <= status < 500:
        return CallFault(status_kind(status), "before the request was sent")
    return CallFault(ErrorKind.INTERNAL, type(error).__name__)
