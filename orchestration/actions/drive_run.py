"""Drive one run from its lease to its end.

One loop owns all of a run's state. What the world does (text, ends, stops, time) comes in through
one inbox; each fact is folded into the domain's state, and after each the policy decides. A command
becomes a fact of the log before it is carried out. Text goes to the live tail at once and to its
row about once a second; facts go to the rows in one transaction per turn.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from django.db import DatabaseError, InterfaceError, OperationalError
from django.utils import timezone

from orchestration.actions.claim_runs import RENEW_EVERY_S, renew_lease
from orchestration.actions.give_up_run import give_up_run
from orchestration.actions.record_event import Batch, LeaseLost, Recorded, record_event
from orchestration.bridge import in_database
from orchestration.domain import synthesis as domain
from orchestration.domain.estimate import Amount, PricedAt
from orchestration.domain.run import RunStatus
from orchestration.driving.bill import Terms, price_in
from orchestration.driving.journal import Journal
from orchestration.driving.load import Control, DrivenRun, NotOurs, control_of, load_run
from orchestration.driving.requests import calls_request, most_of, synthesis_request
from orchestration.driving.upstream import CALLS, Arrived, Broken, Unconfirmed, Upstream
from orchestration.fanout import wire
from orchestration.fanout.client import ProviderClient
from orchestration.fanout.select import models_problem
from orchestration.live import tails
from orchestration.publish import doorbells, driver_of, readers_of

log = structlog.get_logger("rex.driver")

CHECKPOINT_EVERY_S = 1.0
CONTROL_EVERY_S = 1.0
MAX_DRIVES = 5


@dataclass(frozen=True, slots=True)
class Lost:
    """The lease is another driver's now."""


async def drive_run(*, run_id: UUID, fence: int, client: ProviderClient) -> None:
    """Drive the run until it ends, or until its lease is lost (then nothing more is written)."""
    try:
        if fence > MAX_DRIVES:
            # A run that ends its driver each time must not do so for ever.
            await in_database(give_up_run, run_id=run_id, fence=fence, now=timezone.now())
            return
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
        self._clock = clock
        # The run's clock starts when the run was accepted, so waiting for a driver is on it too.
        self._zero = clock() - (timezone.now() - run.created_at).total_seconds()
        tails.open(run.id)
        self.journal = Journal(
            run_id=run.id,
            models=run.models,
            synthesizer=run.synthesizer,
            price=_stored(run.prices.get(run.synthesizer)),
            terms=Terms(partial(price_in, run.prices), run.pool, len(run.prompt)),
            tails=tails,
            head=run.last_seq,
        )
        self._upstream = Upstream(run, client)
        self._inbox = self._upstream.inbox
        self._due: list[domain.Command] = []
        self._draft = Amount(0, 0)  # the most that the draft under way may use
        self._head = run.last_seq
        self._started = bool(run.started)
        self._checkpoint_at = clock()

    def _now_ms(self) -> int:
        return max(0, round((self._clock() - self._zero) * 1000))

    async def drive(self) -> None:
        control = asyncio.create_task(self._watch_control(), name=f"control-of-{self.run.id}")
        try:
            self._resume()
            self._decide()
            await self._turn()
            if self.journal.state.finished is None:
                self._start_calls()
                await self._turn()
            while self.journal.state.finished is None:
                await self._wait()
                await self._turn()
        finally:
            control.cancel()
            await asyncio.gather(control, return_exceptions=True)
            await self._upstream.leave()

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

    def _fold(self, item: object) -> None:
        now = self._now_ms()
        match item:
            case Arrived("calls", event):
                self.journal.calls.take_in(event, now)
            case Arrived(source, event):
                self.journal.versions.take_in(int(source[1:]), event, now)
                if isinstance(event, wire.AttemptFailed) and event.wait_ms is not None:
                    self._check_next_attempt(int(source[1:]), now)
            case Broken("calls", kind, message):
                for label in self.journal.calls.open():
                    self.journal.calls.fail(label, kind, now, message=message)
            case Broken(source, kind):
                self.journal.versions.fail(int(source[1:]), kind, now)
            case Unconfirmed(label, kind) if label in self.run.models:
                self.journal.calls.fail(label, kind, now)
            case Unconfirmed(label, kind):
                self.journal.versions.fail(int(label[1:]), kind, now)
            case Control(stop, calls):
                if stop:
                    self.journal.stop(now)
                self._stop_calls(calls, now)
            case Lost():
                raise LeaseLost(str(self.run.id))
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
        no_room: frozenset[str] = frozenset()
        if batch:
            recorded = await self._record(batch, now)
            self._head = recorded.head
            no_room = recorded.no_room
            tails.set_head(self.run.id, self._head)
        # Text has no row, so nobody else rings for it.
        doorbells.ring(readers_of(self.run.id))
        due, self._due = self._due, []
        for command in due:
            self._carry_out(command)
        if no_room:
            # Now, not at the next turn: the attempt that found no room is only a moment away.
            self._stop_calls(no_room, self._now_ms(), reason="quota.exceeded")
            await self._turn()

    async def _record(self, batch: Batch, now: datetime) -> Recorded:
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
            except (OperationalError, InterfaceError):
                # Anything else would fail again: the run is let go, and given up in the end.
                log.exception("record_failed", retry_in_s=delay_s)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, 5.0)

    # --- commands -----------------------------------------------------------------------------

    def _carry_out(self, command: domain.Command) -> None:
        match command:
            case domain.StartSynthesis():
                self._start_synthesis(command)
            case domain.CancelCall(label, reason):
                self._upstream.cancel(label, reason)
            case _:
                # The answer and the end are facts by now; there is nothing left to do for them.
                pass

    def _start_calls(self) -> None:
        """Send what was never sent; what was on its way when a driver died is lost, and said so."""
        now = self._now_ms()
        sendable: list[str] = []
        for label in self.journal.calls.open():
            if label in self.run.started:
                self.journal.calls.fail(label, "worker_lost", now)
            elif self.journal.state.stop_requested:
                self.journal.calls.fail(label, "stop.user", now)
            elif problem := models_problem(self.run.models[label]):
                self.journal.calls.fail(label, "invalid_request", now, message=problem)
            else:
                sendable.append(label)
        if sendable:
            request = calls_request(self.run, sendable, time_left_ms=self._time_left_ms())
            self._upstream.send(CALLS, request)
        self._decide()

    def _start_synthesis(self, command: domain.StartSynthesis) -> None:
        if models_problem(self.run.synthesizer):
            self.journal.versions.fail(command.version, "invalid_request", self._now_ms())
            self._decide()
            return
        request = synthesis_request(
            self.run, command, self.journal.state, time_left_ms=self._time_left_ms()
        )
        self._draft = most_of(request, self.run.prices.get(self.run.synthesizer))
        if not self.journal.bill.affords(self._draft):
            self.journal.versions.fail(command.version, "budget.run", self._now_ms())
            self._decide()
            return
        self._upstream.send(f"v{command.version}", request)

    def _check_next_attempt(self, version: int, now: int) -> None:
        """A draft is written again only where there is room for all of it once more."""
        running = self.journal.state.running
        if running is None or running.version != version or running.cancelling:
            return
        if not self.journal.bill.affords(self._draft):
            command = domain.CancelCall(f"v{version}", "budget.run")
            self.journal.accept(command, now)
            self._due.append(command)

    def _stop_calls(self, labels: frozenset[str], now: int, *, reason: str = "stop.user") -> None:
        """These calls are to end; asking again changes nothing."""
        for label in sorted(labels & set(self.journal.calls.open())):
            if not self.journal.state.calls[label].cancelling:
                command = domain.CancelCall(label, reason)
                self.journal.accept(command, now)
                self._due.append(command)

    def _time_left_ms(self) -> int:
        return max(1, self.run.deadline_s * 1000 - self._now_ms())

    # --- beside the loop ----------------------------------------------------------------------

    async def _watch_control(self) -> None:
        """Keep the lease, and bring in what people ask for."""
        renewed_at = self._clock()
        with doorbells.listen(driver_of(self.run.id)) as bell:
            while True:
                try:
                    if self._clock() - renewed_at >= RENEW_EVERY_S:
                        renewed_at = self._clock()
                        if not await in_database(
                            renew_lease,
                            run_id=self.run.id,
                            fence=self.run.fence,
                            now=timezone.now(),
                        ):
                            await self._inbox.put(Lost())
                    control = await in_database(control_of, self.run.id)
                    if control.stop or control.calls:
                        await self._inbox.put(control)
                except DatabaseError:
                    log.exception("control_failed")
                await bell.wait(CONTROL_EVERY_S)

    def _resume(self) -> None:
        """Fold the log so far; for a fresh run that is its first fact."""
        for at_s, fact in self.run.history:
            self.journal.fold(fact, round(at_s * 1000))
        for stream, stored in self.run.texts.items():
            # Of a text that was still growing readers may hold more than was stored: a new rev
            # tells them to take it from its start.
            growing = stream in self.run.started and stream not in self.run.ended
            self.journal.restore_text(stream, stored, rev=stored.rev + growing)
        self.journal.restore(self.run.ended, self.run.marks)
        for stream, spent in self.run.spent.items():
            self.journal.restore_spent(stream, spent)
        if self.run.stop_requested:
            self.journal.stop(self._now_ms())
        running = self.journal.state.running
        if running is not None:
            self.journal.versions.fail(running.version, "worker_lost", self._now_ms(), sent=True)


def _stored(priced: PricedAt | None) -> dict[str, Any] | None:
    return None if priced is None else priced.to_json()
