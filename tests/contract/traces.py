"""What a backend said of a fan-out, without what may differ: times, sentences, chunk borders."""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count, cycle

from msgspec import UNSET, UnsetType

from orchestration.fanout.client import ProviderClient
from orchestration.fanout.wire import (
    CallRequest,
    Chunk,
    Event,
    Failed,
    FanoutRequest,
    Finished,
    Message,
    Params,
    Started,
    Timeouts,
    Usage,
)
from tests.contract.conftest import LABS

_numbers = count(1)
_labs = cycle(LABS)


@dataclass(frozen=True, slots=True)
class Trace:
    """One call: the order of its events with neighbouring chunks as one, and what they said."""

    events: tuple[str, ...]
    text: str
    finish_reason: str | None
    kind: str | None
    retryable: bool | None
    status: int | None
    retry_after_ms: int | None
    usage: Usage | None
    moments: tuple[str, ...]


def call(
    model: str,
    *,
    call_id: str = "A",
    provider: str | None = None,
    prompt: str = "Why is the sky blue?",
    params: Params | UnsetType = UNSET,
    timeouts: Timeouts | UnsetType = UNSET,
) -> CallRequest:
    return CallRequest(
        id=call_id,
        provider=provider or next(_labs),
        model=model,
        messages=(Message("user", prompt),),
        params=params,
        timeouts_ms=timeouts,
    )


def fanout(*calls: CallRequest, deadline_ms: int = 30_000) -> FanoutRequest:
    return FanoutRequest(id=f"test-{next(_numbers)}", deadline_ms=deadline_ms, calls=calls)


async def events_of(client: ProviderClient, request: FanoutRequest) -> list[Event]:
    async with aclosing(client.stream(request)) as events:
        return [event async for event in events]


def trace_of(events: Sequence[Event], call_id: str = "A") -> Trace:
    mine = [event for event in events if event.call == call_id]
    names: list[str] = []
    for event in mine:
        name = type(event).__struct_config__.tag
        if not (isinstance(event, Chunk) and names[-1:] == [name]):
            names.append(str(name))
    last = mine[-1]
    assert isinstance(last, Finished | Failed)
    assert isinstance(mine[0], Started)
    failed = last if isinstance(last, Failed) else None
    timing = last.timing_ms
    return Trace(
        events=tuple(names),
        text="".join(event.text for event in mine if isinstance(event, Chunk)),
        finish_reason=last.finish_reason if isinstance(last, Finished) else None,
        kind=failed.kind if failed else None,
        retryable=failed.retryable if failed else None,
        status=failed.status if failed else None,
        retry_after_ms=failed.retry_after_ms if failed else None,
        usage=last.usage,
        moments=tuple(n for n in timing.__struct_fields__ if getattr(timing, n) is not None),
    )


async def trace(client: ProviderClient, one: CallRequest, *, deadline_ms: int = 30_000) -> Trace:
    return trace_of(await events_of(client, fanout(one, deadline_ms=deadline_ms)), one.id)
