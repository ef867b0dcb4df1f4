"""The ledger of a run being driven: its folded state, its texts, and the rows still to write."""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from orchestration.actions.record_event import Batch, NewEvent
from orchestration.domain import synthesis as domain
from orchestration.domain.cost import Price, cost_micro_usd
from orchestration.domain.run import EventType
from orchestration.driving.flow import Flow
from orchestration.driving.load import StoredText
from orchestration.fanout import wire
from orchestration.live import LiveTails
from orchestration.queries import tokens_per_s


class Ledger:
    """What the journals of calls and of versions write in.

    ``models`` is label → model id; ``price_of`` gives None for unknown ones; ``ended`` holds the
    streams that are complete; ``marks`` the moments first text and the final were reached.
    """

    def __init__(
        self,
        *,
        run_id: UUID,
        models: Mapping[str, str],
        price_of: Callable[[str], Price | None],
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
        self.totals = {"input_tokens": 0, "output_tokens": 0}
        self.cost_micro_usd: int | None = 0
        self._price_of = price_of
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
        price: Price | None = None,
    ) -> dict[str, Any]:
        """The numbers of an ended call, by the fan-out's clock; see ``spend``."""
        flow = self.flow(stream)
        times = {
            "first_token_ms": flow.first_token_ms(),
            "duration_ms": None if ended_ms is None else flow.since_begin(ended_ms),
        }
        return times | self.spend(stream, usage, model, price=price)

    def spend(
        self, stream: str, usage: wire.Usage | None, model: str, *, price: Price | None = None
    ) -> dict[str, Any]:
        """Count an attempt of ``stream`` into the run's totals; the sums over its attempts so far,
        which are empty where none was counted. ``price`` is that of ``model`` unless given."""
        flow = self.flow(stream)
        if usage is None:
            return flow.spent
        price = price or self._price_of(model)
        cost = None if price is None else cost_micro_usd(usage, price)
        self.totals["input_tokens"] += usage.input_tokens
        self.totals["output_tokens"] += usage.output_tokens
        # One unknown price makes the sum unknown: a sum without it would be a wrong number.
        self.cost_micro_usd = (
            None if cost is None or self.cost_micro_usd is None else self.cost_micro_usd + cost
        )
        before = flow.spent
        before_cost = before.get("cost_micro_usd", 0)
        flow.spent = {
            "input_tokens": before.get("input_tokens", 0) + usage.input_tokens,
            "output_tokens": before.get("output_tokens", 0) + usage.output_tokens,
            "cached_tokens": before.get("cached_tokens", 0) + usage.cached_tokens,
            "usage_estimated": before.get("usage_estimated", False) or usage.estimated,
            "cost_micro_usd": None if cost is None or before_cost is None else before_cost + cost,
        }
        return flow.spent

    def take(self) -> Batch:
        """What is to be written now; the journal goes on with an empty batch."""
        batch, self.batch = self.batch, Batch()
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

    def restore(
        self, ended: frozenset[str], spent: Mapping[str, int | None], marks: Mapping[str, int]
    ) -> None:
        """What another driver had counted."""
        self.ended |= ended
        self.cost_micro_usd = spent["cost_micro_usd"]
        self.totals = {name: spent[name] or 0 for name in self.totals}
        self.marks |= marks


def speed(numbers: dict[str, Any]) -> dict[str, Any]:
    """``numbers`` with the tokens a second that follow from them."""
    per_second = tokens_per_s(
        numbers.get("output_tokens", 0), numbers["first_token_ms"], numbers["duration_ms"]
    )
    return numbers | {"tokens_per_s": per_second}
