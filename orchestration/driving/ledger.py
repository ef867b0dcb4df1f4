"""The ledger of a run being driven: its folded state, its texts, and the rows still to write."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from orchestration.actions.record_event import Batch, NewEvent
from orchestration.domain import synthesis as domain
from orchestration.domain.run import EventType
from orchestration.driving.bill import Bill, Terms
from orchestration.driving.flow import Flow
from orchestration.driving.load import StoredText
from orchestration.fanout import wire
from orchestration.live import LiveTails
from orchestration.queries import tokens_per_s
from workspaces.actions.settle import Charge


class Ledger:
    """What the journals of calls and of versions write in.

    ``models`` is label → model id; ``ended`` holds the streams that are complete; ``marks`` the
    moments first text and the final were reached; ``bill`` what the run has used.
    """

    def __init__(
        self,
        *,
        run_id: UUID,
        models: Mapping[str, str],
        terms: Terms,
        tails: LiveTails,
        head: int,
    ) -> None:
        self.run_id = run_id
        self.models = models
        self.tails = tails
        self.state = domain.State()
        self.batch = Batch()
        self.ended: set[str] = set()
        self.marks: dict[str, int] = {}
        self.bill = Bill(models, terms)
        # The driver is the only writer of its run's log, so it knows the seq of each fact.
        self._seq = head
        self._pieces = 0
        self._flows: dict[str, Flow] = {}

    def fold(self, fact: domain.Fact, at_ms: int) -> None:
        """Apply a fact that needs no row of its own: a tick, or one already in the log."""
        self.state = domain.apply(self.state, fact, at_ms / 1000)

    def event(self, type_: EventType, at_ms: int, /, **body: Any) -> None:
        self._seq += 1
        self.batch.events.append(NewEvent(type_, at_ms, body))

    def call_row(self, label: str, **fields: Any) -> None:
        self.batch.calls.setdefault(label, {}).update(fields)

    def flow(self, stream: str) -> Flow:
        return self._flows.setdefault(stream, Flow())

    def add(self, stream: str, text: str, at_ms: int) -> int:
        """Append text of ``stream``; the offset it begins at."""
        self._pieces += 1
        return self.flow(stream).add(text, at_ms, self._seq, self._pieces)

    def text_fields(self, stream: str) -> dict[str, Any]:
        flow = self.flow(stream)
        flow.stored = flow.length
        return {"text": flow.text(), "pacing": flow.pacing}

    def start_over(self, label: str) -> None:
        """A call's text begins anew: readers, the row and the tail drop what they have."""
        flow = self.flow(label)
        flow.start_over()
        self.tails.restore(self.run_id, label, flow.rev, "")
        self.call_row(label, rev=flow.rev, text="", pacing=[])

    def numbers(
        self,
        stream: str,
        ended_ms: int | None,
        usage: wire.Usage | None,
        model: str,
        *,
        cached: bool = False,
    ) -> dict[str, Any]:
        """The numbers of an ended call, by the fan-out's clock; see ``spend``. Its lease closes."""
        flow = self.flow(stream)
        times = {
            "first_token_ms": flow.first_token_ms(),
            "duration_ms": None if ended_ms is None else flow.since_begin(ended_ms),
        }
        closes = stream in self.models
        return times | self.spend(stream, usage, model, cached=cached, closes=closes)

    def spend(
        self,
        stream: str,
        usage: wire.Usage | None,
        model: str,
        *,
        cached: bool = False,
        closes: bool = False,
        renews: bool = False,
    ) -> dict[str, Any]:
        """Count an attempt of ``stream`` into the run's bill; the sums over its attempts so far,
        which are empty where none was counted. ``closes`` and ``renews`` are those of a Charge."""
        flow = self.flow(stream)
        if usage is None:
            if closes:
                self.batch.charges.append(Charge(self.bill.lease_of(stream), closes=True))
            return flow.spent
        flow.spent, charge = self.bill.count(stream, usage, model, flow.spent, cached=cached)
        self.batch.charges.append(replace(charge, closes=closes, renews=renews))
        return flow.spent

    def take(self) -> Batch:
        """What is to be written now; the journal goes on with an empty batch.

        A charge waits for a fact to leave with: only facts are known again when they are written
        a second time, because the reply to the first was lost.
        """
        batch, self.batch = self.batch, Batch()
        if not batch.events:
            self.batch.charges, batch.charges = batch.charges, []
        return batch

    def checkpoint(self) -> None:
        """Put text that has grown since the last time into the batch."""
        for stream, flow in self._flows.items():
            if stream in self.ended or flow.stored == flow.length:
                continue
            flow.stored = flow.length
            if stream in self.models:
                self.call_row(stream, text=flow.text(), pacing=flow.pacing)
            else:
                row = self.batch.syntheses.setdefault(int(stream[1:]), {})
                row |= {"text": flow.text(), "pacing": flow.pacing}

    def restore_text(self, stream: str, stored: StoredText, *, rev: int) -> None:
        """Text of a run that another driver began; its facts are folded already."""
        flow = self.flow(stream)
        flow.parts, flow.length, flow.stored = [stored.text], len(stored.text), len(stored.text)
        flow.rev = rev
        flow.pacing = [list(piece) for piece in stored.pacing]
        self._pieces = max([self._pieces, *(piece[3] for piece in flow.pacing)])
        version = None if stream in self.models else self.state.version(int(stream[1:]))
        if version is None or version.kind != "patch":
            self.tails.restore(self.run_id, stream, rev, stored.text)
        if rev != stored.rev:
            self.call_row(stream, rev=rev)

    def restore_spent(self, stream: str, spent: Mapping[str, Any]) -> None:
        """What attempts of ``stream`` used under another driver, which charged it."""
        self.flow(stream).spent = dict(spent)
        self.bill.restore(stream, spent)

    def restore(self, ended: frozenset[str], marks: Mapping[str, int]) -> None:
        """What another driver had seen end, and reached."""
        self.ended |= ended
        self.marks |= marks


def speed(numbers: dict[str, Any]) -> dict[str, Any]:
    """``numbers`` with the tokens a second that follow from them."""
    per_second = tokens_per_s(
        numbers.get("output_tokens", 0), numbers["first_token_ms"], numbers["duration_ms"]
    )
    return numbers | {"tokens_per_s": per_second}
