"""The journal of a run being driven: what happened becomes facts, rows to write, and live text.

No I/O but the live tail: the driver feeds it what came in, asks the policy, writes ``take()`` in
one transaction, and then carries out what was decided.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from orchestration.actions.record_event import Batch
from orchestration.domain import synthesis as domain
from orchestration.domain.run import EventType, RunStatus
from orchestration.driving.bill import Bill, Terms
from orchestration.driving.call_journal import CallJournal
from orchestration.driving.ledger import Ledger
from orchestration.driving.load import StoredText
from orchestration.driving.version_journal import VersionJournal
from orchestration.live import LiveTails


class Journal:
    """Folds one run: ``calls`` and ``versions`` take in what models do, this the rest.

    ``models`` is label → model id, ``price`` what the synthesizer's rows say of its price.
    """

    def __init__(
        self,
        *,
        run_id: UUID,
        models: Mapping[str, str],
        synthesizer: str,
        price: dict[str, Any] | None,
        terms: Terms,
        tails: LiveTails,
        head: int,
    ) -> None:
        self._ledger = Ledger(run_id=run_id, models=models, terms=terms, tails=tails, head=head)
        self.calls = CallJournal(self._ledger)
        self.versions = VersionJournal(self._ledger, synthesizer, price)

    @property
    def state(self) -> domain.State:
        return self._ledger.state

    def fold(self, fact: domain.Fact, at_ms: int) -> None:
        """Apply a fact that needs no row of its own: a tick, or one already in the log."""
        self._ledger.fold(fact, at_ms)

    def restore_text(self, stream: str, stored: StoredText, *, rev: int) -> None:
        self._ledger.restore_text(stream, stored, rev=rev)

    def restore_spent(self, stream: str, spent: Mapping[str, Any]) -> None:
        self._ledger.restore_spent(stream, spent)

    @property
    def bill(self) -> Bill:
        return self._ledger.bill

    def restore(self, ended: frozenset[str], marks: Mapping[str, int]) -> None:
        self._ledger.restore(ended, marks)

    def take(self) -> Batch:
        """What is to be written now; the journal goes on with an empty batch."""
        return self._ledger.take()

    def checkpoint(self) -> None:
        """Put text that has grown since the last time into the batch."""
        self._ledger.checkpoint()

    def stop(self, at_ms: int) -> None:
        """Someone asked for the run to end; asking again changes nothing."""
        if self._ledger.state.stop_requested:
            return
        self._ledger.fold(domain.StopRequested(), at_ms)
        self._ledger.event(EventType.RUN_STOP_REQUESTED, at_ms)

    def accept(self, command: domain.Command, at_ms: int) -> None:
        """A command becomes a fact of the log before it is carried out."""
        match command:
            case domain.FinishRun():
                self._before_finish(command, at_ms)
                self._ledger.fold(domain.consequence(command), at_ms)
                self._run_finished(command, at_ms)
            case _:
                self._ledger.fold(domain.consequence(command), at_ms)
                self._record_command(command, at_ms)

    def _record_command(self, command: domain.Command, at_ms: int) -> None:
        match command:
            case domain.StartSynthesis():
                self.versions.start(command, at_ms)
            case domain.CancelCall(label, reason) if label in self._ledger.models:
                self._ledger.event(
                    EventType.CALL_CANCEL_REQUESTED, at_ms, call=label, reason=reason
                )
            case domain.CancelCall(stream, reason):
                self._ledger.event(
                    EventType.SYNTHESIS_CANCEL_REQUESTED,
                    at_ms,
                    version=int(stream[1:]),
                    reason=reason,
                )
            case domain.Finalise():
                self._finalised(command, at_ms)

    def _finalised(self, command: domain.Finalise, at_ms: int) -> None:
        answer = self._ledger.state.document.text
        self._ledger.marks.setdefault("ttfs_ms", at_ms)
        self._ledger.marks["ttf_ms"] = at_ms
        self._ledger.batch.run |= {
            "answer": answer,
            "final_version": command.version,
            "degraded": command.degraded,
            **self._ledger.marks,
        }
        sources = sorted(
            {label for block in self._ledger.state.document.blocks for label in block.sources}
        )
        self._ledger.event(
            EventType.SYNTHESIS_FINAL,
            at_ms,
            version=command.version,
            mode=command.mode,
            label=command.label,
            degraded=command.degraded,
            sources=sources,
            sha256=_sha256(answer),
        )

    def _before_finish(self, command: domain.FinishRun, at_ms: int) -> None:
        """Nothing may stay open in a run that has ended."""
        kind = "deadline" if command.reason == "deadline" else "stop.superseded"
        if self._ledger.state.stop_requested:
            kind = "stop.user"
        running = self._ledger.state.running
        if running is not None:
            self.versions.fail(running.version, kind, at_ms)
        for label in self.calls.open():
            self.calls.fail(label, kind, at_ms)

    def _run_finished(self, command: domain.FinishRun, at_ms: int) -> None:
        answer = self._ledger.state.document.text if self._ledger.state.final is not None else None
        numbers = {
            **self._ledger.bill.totals,
            "cost_micro_usd": self._ledger.bill.cost_micro_usd,
            "duration_ms": at_ms,
        }
        self.calls.show_overlap(at_ms, force=True)
        self._ledger.batch.closes = True
        self._ledger.batch.run |= {
            "status": RunStatus(command.status),
            "reason": command.reason,
            "overlap": self.calls.overlap,
            "lease_until": None,
            **numbers,
            **self._ledger.marks,
        }
        self._ledger.event(
            EventType.RUN_FINISHED,
            at_ms,
            status=command.status,
            reason=command.reason,
            answer_sha256=None if answer is None else _sha256(answer),
            ttfs_ms=self._ledger.marks.get("ttfs_ms"),
            ttms_ms=self._ledger.marks.get("ttms_ms"),
            ttf_ms=self._ledger.marks.get("ttf_ms"),
            **numbers,
        )

    def finished_at(self, now: datetime) -> None:
        self._ledger.batch.run["ended_at"] = now


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
