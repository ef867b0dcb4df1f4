"""Plays stored answers again with their real pacing, at no cost; other calls pass through.

A call of the provider ``recorded`` names its recording as ``<run id>/<label>``. Where recordings
come from is the caller's: it gives a loader.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from orchestration.domain.errors import ErrorKind
from orchestration.domain.routing import RECORDED, Provider
from orchestration.fanout.call_sink import NOT_COUNTED, Answer, CallFault, CallSink, Counted
from orchestration.fanout.client import FanoutClient, ProviderClient
from orchestration.fanout.relay import Relay, stop_kind
from orchestration.fanout.wire import CallRequest, Event, FanoutRequest, FinishReason


@dataclass(frozen=True, slots=True)
class Recording:
    """A stored answer.

    ``pacing`` says how the text came: ``[t_ms, end_offset]`` with t_ms since the call began and
    end_offset in code points, both not decreasing; text beyond the last offset comes with it.
    ``ended_ms`` is when the call ended, by default when the last text came. With ``failure`` the
    text is what had come before it.
    """

    text: str
    pacing: tuple[tuple[int, int], ...]
    finish_reason: FinishReason = "stop"
    counted: Counted = NOT_COUNTED
    failure: ErrorKind | None = None
    ended_ms: int | None = None


class UnknownRecording(LookupError):
    """There is no such recording, or the caller may not see it."""


LoadRecording = Callable[[str, str], Awaitable[Recording]]
"""Gives the recording of (run id, label); raises UnknownRecording."""


class RecordedClient(FanoutClient):
    """Replays recorded calls itself and hands the rest of a request to ``live``.

    ``speed`` 2 plays twice as fast; the pacing is kept in proportion.
    """

    def __init__(
        self,
        live: ProviderClient,
        load: LoadRecording | None,
        providers: Mapping[str, Provider],
        *,
        speed: float = 1.0,
    ) -> None:
        super().__init__(providers)
        self.live = live
        self._load = load
        self._speed = speed
        self._replays: dict[str, Relay] = {}
        self._with_live: set[str] = set()

    async def stream(self, request: FanoutRequest) -> AsyncGenerator[Event, None]:
        recorded = tuple(call for call in request.calls if call.provider == RECORDED)
        rest = tuple(call for call in request.calls if call.provider != RECORDED)
        sources: list[AsyncGenerator[Event, None]] = []
        if recorded:
            replay = Relay(msgspec.structs.replace(request, calls=recorded), self._replay)
            self._replays[request.id] = replay
            sources.append(replay.events())
        if rest:
            self._with_live.add(request.id)
            sources.append(self.live.stream(msgspec.structs.replace(request, calls=rest)))
        try:
            async with aclosing(_merged(sources)) as events:
                async for event in events:
                    yield event
        finally:
            self._replays.pop(request.id, None)
            self._with_live.discard(request.id)

    async def cancel(self, fanout_id: str, call_id: str | None, reason: str) -> None:
        replay = self._replays.get(fanout_id)
        if replay is not None:
            replay.stop(call_id, stop_kind(reason))
        if fanout_id in self._with_live:
            await self.live.cancel(fanout_id, call_id, reason)

    async def ready(self) -> None:
        await self.live.ready()

    async def aclose(self) -> None:
        await self.live.aclose()

    async def _replay(self, call: CallRequest, sink: CallSink) -> Answer:
        sink.started(1, "first", call)
        run_id, _, label = call.model.partition("/")
        try:
            if self._load is None:
                raise UnknownRecording
            recording = await self._load(run_id, label)
        except UnknownRecording:
            raise CallFault(ErrorKind.INVALID_REQUEST, "no such recording") from None
        sink.connected()
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def wait_until(t_ms: int) -> None:
            await asyncio.sleep(began + t_ms / 1000 / self._speed - loop.time())

        said = 0
        for t_ms, end_offset in recording.pacing:
            await wait_until(t_ms)
            await sink.text(recording.text[said:end_offset])
            said = max(said, end_offset)
        await sink.text(recording.text[said:])
        if recording.ended_ms is not None:
            await wait_until(recording.ended_ms)
        if recording.failure is not None:
            raise CallFault(recording.failure)
        return Answer(recording.finish_reason, recording.counted)


async def _merged(sources: list[AsyncGenerator[Event, None]]) -> AsyncGenerator[Event, None]:
    """Events of all sources as they come; the first failure of one closes all."""
    if len(sources) == 1:
        async with aclosing(sources[0]) as only:
            async for event in only:
                yield event
        return
    # One place: a source that is ahead waits for the reader, as it would alone.
    queue: asyncio.Queue[Event | BaseException | None] = asyncio.Queue(maxsize=1)

    async def pump(source: AsyncGenerator[Event, None]) -> None:
        try:
            async with aclosing(source) as events:
                async for event in events:
                    await queue.put(event)
            await queue.put(None)
        except Exception as error:
            await queue.put(error)

    tasks = [asyncio.create_task(pump(source)) for source in sources]
    try:
        left = len(tasks)
        while left:
            item = await queue.get()
            if item is None:
                left -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
