"""What the tests of the backends share: a request in one line, and all that came of it."""

from contextlib import aclosing

from orchestration.domain.routing import Provider
from orchestration.fanout.client import ProviderClient
from orchestration.fanout.wire import CallRequest, Chunk, Event, FanoutRequest, Message

LOCAL = Provider("local", "Embedded model", "openai", served_model="smollm2-135m", free=True)
PROVIDERS = {"local": LOCAL}


def call(model: str = "m", *, call_id: str = "A", provider: str = "local") -> CallRequest:
    return CallRequest(
        id=call_id, provider=provider, model=model, messages=(Message("user", "Why?"),)
    )


def fanout(*calls: CallRequest, id: str = "f-1", deadline_ms: int = 30_000) -> FanoutRequest:
    return FanoutRequest(id=id, deadline_ms=deadline_ms, calls=calls or (call(),))


async def events_of(client: ProviderClient, request: FanoutRequest) -> list[Event]:
    async with aclosing(client.stream(request)) as events:
        return [event async for event in events]


def text_of(events: list[Event], call_id: str = "A") -> str:
    return "".join(e.text for e in events if isinstance(e, Chunk) and e.call == call_id)
