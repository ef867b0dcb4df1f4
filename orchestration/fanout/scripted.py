"""A deterministic backend that plays scripts instead of asking models, for tests and demos.

A script says when which text comes and how the call ends. At infinite speed nothing is waited for:
events come in the order of their script times, whatever the machine does.
"""

import asyncio
import heapq
import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from orchestration.domain.errors import ErrorKind, row_of
from orchestration.domain.routing import Provider
from orchestration.fanout.call_sink import NOT_COUNTED, Counted, estimated_tokens
from orchestration.fanout.client import FanoutClient, FanoutRefused, FanoutUnavailable
from orchestration.fanout.relay import stop_kind
from orchestration.fanout.wire import (
    AttemptFailed,
    CallRequest,
    Chunk,
    Event,
    Failed,
    FanoutRequest,
    Finished,
    FinishReason,
    Reason,
    Started,
    Timing,
    Usage,
    WireError,
    check_request,
)


@dataclass(frozen=True, slots=True)
class Finish:
    """The answer is whole. ``after_s`` counts from the last text."""

    reason: FinishReason = "stop"
    after_s: float = 0.0
    counted: Counted = NOT_COUNTED


@dataclass(frozen=True, slots=True)
class Fail:
    kind: ErrorKind | str
    after_s: float = 0.0
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """The whole stream of the fan-out breaks off: FanoutUnavailable."""

    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Hang:
    """Nothing more comes until the call is stopped; at finite speed, until the deadline."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that fails after ``pieces``, with another one ``wait_s`` later."""

    kind: ErrorKind | str
    wait_s: float = 0.0
    pieces: Sequence[tuple[float, str]] = ()
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Script:
    """``pieces`` are (seconds after the one before, text). ``failing`` come before it; with
    ``cached_age_ms`` it is an answer out of the cache."""

    pieces: Sequence[tuple[float, str]] = ()
    ending: Finish | Fail | Cut | Hang = Finish()
    failing: Sequence[Attempt] = ()
    cached_age_ms: int | None = None


Scripts = Mapping[str, Script | Callable[[CallRequest], Script]]


class ScriptedClient(FanoutClient):
    """Plays ``scripts``, by call id, else by "provider/model", else by "*".

    A script may be made out of the call. ``speed`` is how much faster than the scripts say.
    ``requests`` and ``cancels`` record what was asked.
    """

    def __init__(
        self,
        scripts: Scripts,
        *,
        providers: Mapping[str, Provider] | None = None,
        speed: float = math.inf,
    ) -> None:
        super().__init__(providers or {})
        self._scripts = scripts
        self._speed = speed
        self._in_flight: dict[str, _Play] = {}
        self.requests: list[FanoutRequest] = []
        self.cancels: list[tuple[str, str | None, str]] = []

    async def stream(self, request: FanoutRequest) -> AsyncGenerator[Event, None]:
        try:
            check_request(request)
        except WireError as error:
            raise FanoutRefused(400, str(error), error.field) from None
        self.requests.append(request)
        play = _Play(request, [self._script_of(call) for call in request.calls], self._speed)
        self._in_flight[request.id] = play
        try:
            while play.has_open_calls:
                for event in await play.next():
                    yield event
        finally:
            del self._in_flight[request.id]

    async def cancel(self, fanout_id: str, call_id: str | None, reason: str) -> None:
        self.cancels.append((fanout_id, call_id, reason))
        play = self._in_flight.get(fanout_id)
        if play is not None:
            play.stop(call_id, stop_kind(reason))

    def _script_of(self, call: CallRequest) -> Script:
        for key in (call.id, f"{call.provider}/{call.model}", "*"):
            if key in self._scripts:
                script = self._scripts[key]
                return script if isinstance(script, Script) else script(call)
        raise FanoutRefused(422, f"no script for call {call.id}", None)


@dataclass(frozen=True, slots=True)
class _Begin:
    """An attempt begins, or with number 0 a replay."""

    attempt: int
    reason: Reason


Step = str | Finish | Fail | Cut | Attempt | _Begin


class _Play:
    """One fan-out on stage: the steps that are still to come, in the order of their times."""

    def __init__(self, request: FanoutRequest, scripts: Sequence[Script], speed: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._speed = speed
        self._deadline_s = request.deadline_ms / 1000
        self._now_s = 0.0
        self._calls = {call.id: call for call in request.calls}
        self._open = dict.fromkeys(self._calls)
        self._written = dict.fromkeys(self._calls, 0)
        self._attempts = dict.fromkeys(self._calls, 0)
        self._ages = {
            call.id: script.cached_age_ms
            for call, script in zip(request.calls, scripts, strict=True)
        }
        self._moments: dict[str, tuple[int | None, int | None]] = {}
        self._stops: list[tuple[str, ErrorKind]] = []
        self._stopped = asyncio.Event()
        self._steps: list[tuple[float, int, str, Step]] = []
        for call, script in zip(request.calls, scripts, strict=True):
            self._plan(call.id, script)

    @property
    def has_open_calls(self) -> bool:
        return bool(self._open)

    def stop(self, call_id: str | None, kind: ErrorKind) -> None:
        self._stops += [(name, kind) for name in self._open if call_id in (None, name)]
        self._stopped.set()

    async def next(self) -> list[Event]:
        """The next events, when they are due. Raises FanoutUnavailable at a Cut."""
        await self._wait()
        if self._stops:
            stops, self._stops = self._stops, []
            self._stopped.clear()
            return [self._fail(name, Fail(kind)) for name, kind in stops if name in self._open]
        if self._now_s >= self._deadline_s:
            return [self._fail(name, Fail(ErrorKind.DEADLINE)) for name in list(self._open)]
        _, _, call_id, step = heapq.heappop(self._steps)
        return [self._event(call_id, step)] if call_id in self._open else []

    def _plan(self, call_id: str, script: Script) -> None:
        at_s, number = 0.0, 0 if script.cached_age_ms is not None else 1
        begin = _Begin(number, "first" if number else "cache")
        for attempt in script.failing:
            at_s = self._plan_pieces(at_s, call_id, begin, attempt.pieces)
            self._push(at_s, call_id, attempt)
            at_s += attempt.wait_s
            number += 1
            begin = _Begin(number, "restart" if attempt.pieces else "retry")
        at_s = self._plan_pieces(at_s, call_id, begin, script.pieces)
        if not isinstance(script.ending, Hang):
            self._push(at_s + script.ending.after_s, call_id, script.ending)

    def _plan_pieces(
        self, at_s: float, call_id: str, begin: _Begin, pieces: Sequence[tuple[float, str]]
    ) -> float:
        self._push(at_s, call_id, begin)
        for after_s, text in pieces:
            at_s += after_s
            self._push(at_s, call_id, text)
        return at_s

    def _push(self, at_s: float, call_id: str, step: Step) -> None:
        heapq.heappush(self._steps, (at_s, len(self._steps), call_id, step))

    async def _wait(self) -> None:
        """Until the next step, a stop or the deadline; at infinite speed time jumps there."""
        await asyncio.sleep(0)
        due_s = self._steps[0][0] if self._steps else math.inf
        if math.isinf(self._speed):
            if math.isinf(due_s):
                await self._stopped.wait()
            elif not self._stops:
                self._now_s = max(self._now_s, due_s)
            return
        left_s = self._began + min(due_s, self._deadline_s) / self._speed - self._loop.time()
        if left_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._stopped.wait()
        elapsed_s = (self._loop.time() - self._began) * self._speed
        # The step that is due has its own time: the same run gives the same moments.
        self._now_s = min(max(self._now_s, elapsed_s), max(due_s, self._now_s), self._deadline_s)

    def _event(self, call_id: str, step: Step) -> Event:
        at_ms = round(self._now_s * 1000)
        call = self._calls[call_id]
        match step:
            case _Begin():
                self._attempts[call_id] = step.attempt
                self._written[call_id] = 0
                self._moments.pop(call_id, None)
                return Started(call_id, at_ms, step.attempt, step.reason, call.provider, call.model)
            case Attempt():
                return self._attempt_failed(call_id, step)
            case str():
                first, _ = self._moments.get(call_id, (None, None))
                self._moments[call_id] = (at_ms if first is None else first, at_ms)
                self._written[call_id] += len(step)
                return Chunk(call_id, at_ms, step)
            case Fail():
                return self._fail(call_id, step)
            case Cut():
                raise FanoutUnavailable("the script broke off before the end")
            case Finish():
                del self._open[call_id]
                return Finished(
                    call_id,
                    at_ms,
                    self._attempts[call_id],
                    call.provider,
                    call.model,
                    step.reason,
                    self._usage(call_id, step.counted),
                    self._timing(call_id),
                    cached_age_ms=self._ages[call_id],
                )

    def _attempt_failed(self, call_id: str, step: Attempt) -> AttemptFailed:
        row = row_of(step.kind)
        return AttemptFailed(
            call_id,
            round(self._now_s * 1000),
            self._attempts[call_id],
            row.kind,
            row.sentence,
            row.retryable,
            step.status,
            None,
            round(step.wait_s * 1000),
            self._usage(call_id, NOT_COUNTED) if self._written[call_id] else None,
            self._timing(call_id),
        )

    def _fail(self, call_id: str, step: Fail) -> Failed:
        del self._open[call_id]
        row = row_of(step.kind)
        usage = self._usage(call_id, NOT_COUNTED) if self._written[call_id] else None
        return Failed(
            call_id,
            round(self._now_s * 1000),
            self._attempts[call_id],
            row.kind,
            row.sentence,
            row.retryable,
            step.status,
            None,
            usage,
            self._timing(call_id),
        )

    def _timing(self, call_id: str) -> Timing:
        first, last = self._moments.get(call_id, (None, None))
        return Timing(0, 0, 0, first, last)

    def _usage(self, call_id: str, counted: Counted) -> Usage:
        given, written = counted.input_tokens, counted.output_tokens
        asked = sum(len(message.text) for message in self._calls[call_id].messages)
        return Usage(
            estimated_tokens(asked) if given is None else given,
            estimated_tokens(self._written[call_id]) if written is None else written,
            counted.cached_tokens,
            counted.reasoning_tokens,
            given is None or written is None,
        )
