"""The driver's hands: sends fan-outs, brings what comes back into its inbox, and stops calls."""

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from dataclasses import dataclass

import structlog
from msgspec.structs import replace as with_fields

from orchestration.domain.errors import ErrorKind, sentence_for
from orchestration.driving.load import DrivenRun
from orchestration.driving.requests import calls_fanout_id, synthesis_fanout_id
from orchestration.fanout import wire
from orchestration.fanout.client import (
    ContractViolation,
    FanoutRefused,
    FanoutUnavailable,
    ProviderClient,
)

log = structlog.get_logger("rex.driver")

CALLS = "calls"
# A service that is asked to stop a call confirms it at once, or is not there to.
CONFIRM_S = 1.5
UNREACHABLE = "The service that asks the models could not be reached. Is it running?"
BUSY = "The service that asks the models takes no more at the moment. Try again in a minute."


@dataclass(frozen=True, slots=True)
class Arrived:
    """An event of a fan-out: of the calls, or of one synthesis ("v3")."""

    source: str
    event: wire.Event


@dataclass(frozen=True, slots=True)
class Broken:
    """A fan-out ended without ending its calls; ``kind`` is what they failed of."""

    source: str
    kind: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """Nobody said that ``label`` (a call, or a version "v3") has stopped; it is over for us."""

    label: str
    kind: str


class Upstream:
    """Work under way outside, for one run. ``leave`` ends all of it."""

    def __init__(self, run: DrivenRun, client: ProviderClient) -> None:
        self._run = run
        self._client = client
        self._tasks: set[asyncio.Task[None]] = set()
        self._own_reasons: dict[str, str] = {}
        # Bounded, so that a driver that is held up slows the models instead of filling memory.
        self.inbox: asyncio.Queue[object] = asyncio.Queue(maxsize=256)

    def send(self, source: str, request: wire.FanoutRequest) -> None:
        """Send a fan-out; its events arrive as ``Arrived``, and behind the last a ``Broken``."""
        self._spawn(self._pump(source, request), f"{source}-of-{self._run.id}")

    def cancel(self, label: str, reason: str) -> None:
        """Have a call or version stopped; it ends by its own event, else as ``Unconfirmed``."""
        self._spawn(self._stop(label, reason), f"stop-{label}-of-{self._run.id}")

    async def leave(self) -> None:
        """Close every upstream stream."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: str, request: wire.FanoutRequest) -> None:
        kind, message = "internal", ""
        try:
            async with aclosing(self._client.stream(request)) as events:
                async for event in events:
                    await self.inbox.put(Arrived(source, self._in_our_words(event)))
        except FanoutUnavailable as unavailable:
            message = UNREACHABLE
            if unavailable.retry_after_s is not None:
                # It is there, and refused the whole request: it drains, or has too much in flight.
                kind, message = "overloaded", BUSY
            log.warning("fanout_unavailable", run_id=str(self._run.id), source=source)
        except FanoutRefused as refused:
            kind = "invalid_request"
            log.warning(
                "fanout_refused", run_id=str(self._run.id), source=source, status=refused.status
            )
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("fanout_failed", run_id=str(self._run.id), source=source)
        # Of a stream that ended well this finds nothing open.
        await self.inbox.put(Broken(source, kind, message))

    def _in_our_words(self, event: wire.Event) -> wire.Event:
        """A call that was stopped for a reason the service does not know ends with that reason."""
        if not isinstance(event, wire.Failed) or event.kind != ErrorKind.STOP_SUPERSEDED:
            return event
        reason = self._own_reasons.get(event.call, event.kind)
        return with_fields(event, kind=reason, message=sentence_for(reason))

    async def _stop(self, label: str, reason: str) -> None:
        # The fan-out was sent with the run's deadline and ends by itself then.
        if reason != "deadline":
            told = reason
            if not reason.startswith("stop."):
                # The service knows nothing of quotas.
                told, self._own_reasons[label] = ErrorKind.STOP_SUPERSEDED, reason
            is_call = label in self._run.models
            fanout_id = (
                calls_fanout_id(self._run)
                if is_call
                else synthesis_fanout_id(self._run, int(label[1:]))
            )
            try:
                async with asyncio.timeout(CONFIRM_S):
                    await self._client.cancel(fanout_id, label, told)
            except (FanoutUnavailable, FanoutRefused, ContractViolation, TimeoutError) as error:
                log.warning("cancel_failed", run_id=str(self._run.id), error=type(error).__name__)
        await asyncio.sleep(CONFIRM_S)
        await self.inbox.put(Unconfirmed(label, reason))
