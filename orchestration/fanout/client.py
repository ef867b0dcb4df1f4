"""What every backend of the seam is: a ``ProviderClient``. Callers know nothing else.

``stream`` is the one thing a backend has to do; ``complete`` is built on it, once.
"""

import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, TypeVar

from msgspec import UNSET, UnsetType

from orchestration.domain.routing import Provider, Target, resolve
from orchestration.fanout.wire import (
    CallRequest,
    Chunk,
    Event,
    Failed,
    FanoutRequest,
    Finished,
    FinishReason,
    Message,
    Params,
    Started,
    TextPart,
    Timeouts,
    Timing,
    Usage,
)


class FanoutUnavailable(Exception):
    """The backend cannot be reached, is not ready, or broke the stream off before its ``end``.

    Nothing may be concluded about calls that were open. ``retry_after_s`` is what it asked for.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class FanoutRefused(Exception):
    """The backend refused the request as a whole; no call was started. A fault of the caller."""

    def __init__(self, status: int, message: str, field: str | None) -> None:
        super().__init__(f"{message} ({field})" if field else message)
        self.status, self.field = status, field


class ContractViolation(Exception):
    """The backend sent something that is not contract v2; its calls must not be trusted."""


class CallFailed(Exception):
    """``complete`` could not get a whole answer; ``event`` says why, ``text`` is what had come."""

    def __init__(self, event: Failed, text: str) -> None:
        super().__init__(event.message)
        self.event, self.text = event, text


@dataclass(frozen=True, slots=True)
class Completion:
    """One whole answer. ``attempts`` were made for it, none where it came from the cache, whose
    age is ``cached_age_ms``. The moments are those of the attempt that gave it."""

    model: str
    text: str
    finish_reason: FinishReason
    usage: Usage
    timing_ms: Timing
    attempts: int = 1
    cached_age_ms: int | None = None


class ProviderClient(Protocol):
    async def complete(
        self,
        messages: Sequence[Message],
        model: str,
        *,
        params: Params | None = None,
        timeouts: Timeouts | None = None,
        deadline_s: float = 60,
    ) -> Completion:
        """Ask one model, by its Rex id, and wait for the whole answer.

        Raises RoutingError, CallFailed, and what ``stream`` raises.
        """
        ...

    def stream(self, request: FanoutRequest) -> AsyncGenerator[Event, None]:
        """Send the calls and yield their events as they come; ends when every call has ended.

        Closing the generator (``aclose``) cancels every open call upstream. Raises
        FanoutUnavailable, FanoutRefused or ContractViolation.
        """
        ...

    async def cancel(self, fanout_id: str, call_id: str | None, reason: str) -> None:
        """Stop one call, or with None all, of a fan-out in flight; ``reason`` is ``stop.*``.

        Each stopped call yields Failed of that kind on the stream. What has ended, or is not known,
        is left alone. Raises FanoutUnavailable.
        """
        ...

    async def ready(self) -> None:
        """Return when calls can be sent at once; the first time this may take seconds.

        Raises FanoutUnavailable.
        """
        ...

    async def aclose(self) -> None:
        """Give back connections. The client is not used afterwards."""
        ...


class FanoutClient(ABC):
    """The part of a ``ProviderClient`` that is the same in every backend."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = providers

    @abstractmethod
    def stream(self, request: FanoutRequest) -> AsyncGenerator[Event, None]: ...

    @abstractmethod
    async def cancel(self, fanout_id: str, call_id: str | None, reason: str) -> None: ...

    async def ready(self) -> None:  # noqa: B027  # most backends always are
        pass

    async def aclose(self) -> None:  # noqa: B027  # most backends hold nothing
        pass

    async def complete(
        self,
        messages: Sequence[Message],
        model: str,
        *,
        params: Params | None = None,
        timeouts: Timeouts | None = None,
        deadline_s: float = 60,
    ) -> Completion:
        target = resolve(model, self._providers)
        request = FanoutRequest(
            id=f"one-{uuid.uuid4().hex}",
            deadline_ms=max(1, round(deadline_s * 1000)),
            calls=(call_for(target, "A", messages, params=params, timeouts=timeouts),),
        )
        text: list[str] = []
        async with aclosing(self.stream(request)) as events:
            async for event in events:
                if isinstance(event, Started):
                    text.clear()  # each attempt begins the answer anew
                elif isinstance(event, Chunk):
                    text.append(event.text)
                elif isinstance(event, Failed):
                    raise CallFailed(event, "".join(text))
                elif isinstance(event, Finished):
                    return Completion(
                        model,
                        "".join(text),
                        event.finish_reason,
                        event.usage,
                        event.timing_ms,
                        event.attempt,
                        event.cached_age_ms,
                    )
        raise ContractViolation("the stream ended without an end of its only call")


def call_for(
    target: Target,
    call_id: str,
    messages: Sequence[Message],
    *,
    params: Params | None = None,
    timeouts: Timeouts | None = None,
) -> CallRequest:
    """The call that asks ``target``: its persona in front, its defaults where ``params`` is silent.

    A system message of the caller's own follows the persona's in one message, because some servers
    take only one and only first.
    """
    own = params or Params()
    given = list(messages)
    if target.system is not None:
        own_system = given.pop(0) if given and given[0].role == "system" else None
        given.insert(0, _behind(target.system, own_system))
    return CallRequest(
        id=call_id,
        provider=target.provider,
        model=target.upstream_model,
        messages=tuple(given),
        params=Params(
            max_tokens=_either(own.max_tokens, target.max_tokens),
            temperature=_either(own.temperature, target.temperature),
            top_p=own.top_p,
            seed=_either(own.seed, target.seed),
            stop=own.stop,
            response_format=own.response_format,
        ),
        timeouts_ms=timeouts if timeouts is not None else UNSET,
    )


def _behind(persona: str, own: Message | None) -> Message:
    if own is None:
        return Message("system", persona)
    if isinstance(own.content, str):
        return Message("system", f"{persona}\n\n{own.content}")
    return Message("system", (TextPart(f"{persona}\n\n"), *own.content))


Number = TypeVar("Number", int, float)


def _either(own: Number | UnsetType, default: Number | None) -> Number | UnsetType:
    if own is not UNSET:
        return own
    return UNSET if default is None else default
