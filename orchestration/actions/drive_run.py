"""Drive one run from its lease to its end.

One loop owns all of a run's state. What the world does (text, ends, stops, time) comes in through
one inbox; each fact is folded into the domain's state, and after each the policy decides. A command
becomes a fact of the log before it is carried out. Text goes to the live tail at once and to its
row about once a second; facts go to the rows in one transaction per turn.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog
from django.db import DatabaseError
from django.utils import timezone

from orchestration.actions.claim_runs import RENEW_EVERY_S, renew_lease
from orchestration.actions.record_event import Batch, LeaseLost, record_event
from orchestration.bridge import in_database
from orchestration.domain import synthesis as domain
from orchestration.domain.routing import RoutingError
from orchestration.domain.run import RunStatus
from orchestration.driving.journal import Journal
from orchestration.driving.load import Control, DrivenRun, NotOurs, control_of, load_run
from orchestration.driving.requests import (
    calls_fanout_id,
    calls_request,
    synthesis_fanout_id,
    synthesis_request,
)
from orchestration.fanout import wire
from orchestration.fanout.client import FanoutUnavailable, ProviderClient
from orchestration.fanout.prices import price_of
from orchestration.live import tails
from orchestration.publish import doorbells, driver_of, readers_of

log = structlog.get_logger("rex.driver")

CHECKPOINT_EVERY_S = 1.0
CONTROL_EVERY_S = 1.0
MAX_DRIVES = 5
CALLS = "calls"


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


Item = Arrived | Broken | Control


async def drive_run(*, run_id: UUID, fence: int, client: ProviderClient) -> None:
    """Drive the run until it ends, or until its lease is lost (then nothing more is written)."""
    try:
        run = await in_database(load_run, run_id, fence)
        await RunDriver(run, client).drive()
    except (LeaseLost, NotOurs):
        # Someone else drives it now. Their log is the log.
        log.info("lease_lost", run_id=str(run_id), fence=fence)
    finally:
        tails.close(run_id)


class RunDriver:
    """The loop. ``clock`` gives seconds; only differences of it are used."""

    def __init__(
        self, run: DrivenRun, client: ProviderClient, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.run = run
        self.client = client
        self._clock = clock
        # The run's clock starts when the run was accepted, so waiting for a driver is on it too.
        self._zero = clock() - (timezone.now() - run.created_at).total_seconds()
        tails.open(run.id)
        self.journal = Journal(
            run_id=run.id,
            models=run.models,
            synthesizer=run.synthesizer,
            price_of=price_of,
            tails=tails,
            head=run.last_seq,
        )
        self._inbox: asyncio.Queue[Item] = asyncio.Queue()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._due: list[domain.Command] = []
        self._head = run.last_seq
        self._started = bool(run.started)
        self._checkpoint_at = clock()

    def _now_ms(self) -> int:
        return max(0, round((self._clock() - self._zero) * 1000))

    async def drive(self) -> None:
        try:
            self._resume()
            if self.run.fence > MAX_DRIVES:
                # A run that ends its driver each time must not do so for ever.
                self.journal.accept(domain.FinishRun("failed", "internal"), self._now_ms())
            self._decide()
            await self._turn()
            if self.journal.state.finished is None:
                self._start_calls()
                await self._turn()
            self._spawn("control", self._watch_control())
            while self.journal.state.finished is None:
                await self._wait()
                await self._turn()
        finally:
            await self._leave()

    # --- one turn -----------------------------------------------------------------------------

    async def _wait(self) -> None:
        """Fold what comes in next, and everything else that is already there; or a tick."""
        wake_s = domain.next_wake_s(self.run.policy, self.journal.state)
        now_s = self._now_ms() / 1000
        timeout = self._checkpoint_at + CHECKPOINT_EVERY_S - self._clock()
        if wake_s is not None:
            timeout = min(timeout, wake_s - now_s)
        try:
            # Not wait_for: in Python 3.11 it swallows a cancellation that meets an item.
            async with asyncio.timeout(max(0.001, timeout)):
                item = await self._inbox.get()
        except TimeoutError:
            self._tick()
            return
        self._fold(item)
        while not self._inbox.empty() and self.journal.state.finished is None:
            self._fold(self._inbox.get_nowait())
        self._tick()

    def _fold(self, item: Item) -> None:
        now = self._now_ms()
        match item:
            case Arrived("calls", event):
                self.journal.calls.take_in(event, now)
            case Arrived(source, event):
                self.journal.versions.take_in(int(source[1:]), event, now)
            case Broken("calls", kind, message):
                for label in self.journal.calls.open():
                    self.journal.calls.fail(label, kind, now, message=message)
            case Broken(source, kind):
                self.journal.versions.fail(int(source[1:]), kind, now)
            case Control(stop, calls):
                if stop:
                    self.journal.stop(now)
                self._cancel_calls(calls)
        self._decide()

    def _tick(self) -> None:
        self.journal.fold(domain.Tick(), self._now_ms())
        self._decide()

    def _decide(self) -> None:
        """Ask the policy until it has nothing to add; what it commands is carried out later."""
        while self.journal.state.finished is None:
            state = self.journal.state
            commands = domain.decide(self.run.policy, state, state.now_s)
            if not commands:
                return
            for command in commands:
                # At the time it was decided: a replay of the log must find it due then.
                self.journal.accept(command, round(state.now_s * 1000))
                self._due.append(command)

    async def _turn(self) -> None:
        """Write what happened, then carry out what was decided: never the other way round."""
        if self._clock() - self._checkpoint_at >= CHECKPOINT_EVERY_S:
            self._checkpoint_at = self._clock()
            self.journal.checkpoint()
        now = timezone.now()
        if self.journal.state.finished is not None:
            self.journal.finished_at(now)
        batch = self.journal.take()
        if batch.run.get("status") == RunStatus.RUNNING and not self._started:
            self._started = True
            batch.run["started_at"] = now
        if batch:
            self._head = await self._record(batch, now)
            tails.set_head(self.run.id, self._head)
        # Text has no row, so nobody else rings for it.
        doorbells.ring(readers_of(self.run.id))
        due, self._due = self._due, []
        for command in due:
            await self._carry_out(command)

    async def _record(self, batch: Batch, now: datetime) -> int:
        """Write, patiently: a database that is busy or away for a moment loses nothing."""
        delay_s = 0.2
        while True:
            try:
                return await in_database(
                    record_event,
                    run_id=self.run.id,
                    fence=self.run.fence,
                    behind=self._head,
                    batch=batch,
                    now=now,
                )
            except DatabaseError:
                log.exception("record_failed", retry_in_s=delay_s)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, 5.0)

    # --- commands -----------------------------------------------------------------------------

    async def _carry_out(self, command: domain.Command) -> None:
        match command:
            case domain.StartSynthesis():
                self._start_synthesis(command)
            case domain.CancelCall(label, reason):
                await self._cancel(label, reason)
            case _:
                # The answer and the end are facts by now; there is nothing left to do for them.
                pass

    def _start_calls(self) -> None:
        """Send what was never sent; what was on its way when a driver died is lost, and said so."""
        open_calls = self.journal.calls.open()
        for label in set(open_calls) & self.run.started:
            self.journal.calls.fail(label, "worker_lost", self._now_ms())
        labels = [label for label in open_calls if label not in self.run.started]
        if labels:
            try:
                request = calls_request(self.run, labels, time_left_ms=self._time_left_ms())
            except RoutingError:
                self._inbox.put_nowait(Broken(CALLS, "invalid_request"))
                return
            self._spawn(CALLS, self._pump(CALLS, request))
        self._decide()

    def _start_synthesis(self, command: domain.StartSynthesis) -> None:
        source = f"v{command.version}"
        try:
            request = synthesis_request(
                self.run, command, self.journal.state, time_left_ms=self._time_left_ms()
            )
        except RoutingError:
            self._inbox.put_nowait(Broken(source, "invalid_request"))
            return
        self._spawn(source, self._pump(source, request))

    async def _cancel(self, label: str, reason: str) -> None:
        is_call = label in self.run.models
        fanout_id = (
            calls_fanout_id(self.run) if is_call else synthesis_fanout_id(self.run, int(label[1:]))
        )
        with suppress(FanoutUnavailable):
            await self.client.cancel(fanout_id, label, reason)

    def _cancel_calls(self, labels: frozenset[str]) -> None:
        for label in labels & set(self.journal.calls.open()):
            self._due.append(domain.CancelCall(label, "stop.user"))

    def _time_left_ms(self) -> int:
        return max(1, self.run.deadline_s * 1000 - self._now_ms())

    # --- tasks --------------------------------------------------------------------------------

    def _spawn(self, name: str, work: Coroutine[None, None, None]) -> None:
        self._tasks[name] = asyncio.create_task(work, name=f"{name}-of-{self.run.id}")

    async def _pump(self, source: str, request: wire.FanoutRequest) -> None:
        """Bring the events of one fan-out into the inbox."""
        message = ""
        try:
            async with aclosing(self.client.stream(request)) as events:
                async for event in events:
                    self._inbox.put_nowait(Arrived(source, event))
        except FanoutUnavailable:
            message = "The service that asks the models could not be reached. Is it running?"
            log.warning("fanout_unavailable", run_id=str(self.run.id), source=source)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("fanout_failed", run_id=str(self.run.id), source=source)
        # Of a stream that ended well this finds nothing open.
        self._inbox.put_nowait(Broken(source, "internal", message))

    async def _watch_control(self) -> None:
        """Keep the lease, and bring in what people ask for."""
        renewed_at = self._clock()
        with doorbells.listen(driver_of(self.run.id)) as bell:
            while True:
                try:
                    if self._clock() - renewed_at >= RENEW_EVERY_S:
                        renewed_at = self._clock()
                        await in_database(
                            renew_lease,
                            run_id=self.run.id,
                            fence=self.run.fence,
                            now=timezone.now(),
                        )
                    control = await in_database(control_of, self.run.id)
                    if control.stop or control.calls:
                        self._inbox.put_nowait(control)
                except DatabaseError:
                    log.exception("control_failed")
                await bell.wait(CONTROL_EVERY_S)

    async def _leave(self) -> None:
        """Close every upstream stream; readers then find the rest in the rows."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _resume(self) -> None:
        """Fold the log so far; for a fresh run that is its first fact."""
        for at_s, fact in self.run.history:
            self.journal.fold(fact, round(at_s * 1000))
        for stream, stored in self.run.texts.items():
            # Of a text that was still growing readers may hold more than was stored: a new rev
            # tells them to take it from its start.
            growing = stream in self.run.started and stream not in self.run.ended
            self.journal.restore_text(stream, stored, rev=stored.rev + growing)
        self.journal.restore(self.run.ended, self.run.spent, self.run.marks)
        running = self.journal.state.running
        if running is not None:
            self.journal.versions.fail(running.version, "worker_lost", self._now_ms())
