"""The journal of a run's calls: what each model did becomes facts, rows and live text."""

from typing import Any

from orchestration.domain import synthesis as domain
from orchestration.domain.errors import row_of
from orchestration.domain.overlap import view
from orchestration.domain.run import CallState, EventType, RunStatus
from orchestration.driving.ledger import Ledger, speed
from orchestration.fanout import wire

# Overlap is drawn on pages while they wait for a draft: soon enough to be live, no more often.
OVERLAP_EVERY_MS = 120


class CallJournal:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._overlap_at_ms = -OVERLAP_EVERY_MS
        self._own: dict[str, tuple[str, str]] = {}
        self._asked = dict(ledger.models)  # the model id whose attempt is under way
        self.overlap: dict[str, Any] | None = None

    def take_in(self, event: wire.Event, at_ms: int) -> None:
        """Fold one event of the fan-out of calls."""
        label = event.call
        if label in self._ledger.ended:
            return
        match event:
            case wire.Started():
                self._started(label, event, at_ms)
            case wire.Chunk():
                self._chunk(label, event, at_ms)
            case wire.AttemptFailed():
                self._attempt_failed(label, event, at_ms)
            case wire.Finished():
                self._finished(label, event, at_ms)
            case wire.Failed():
                numbers = self._ledger.numbers(label, event.at_ms, event.usage, self._asked[label])
                self.fail(
                    label,
                    event.kind,
                    at_ms,
                    numbers=numbers,
                    message=event.message,
                    attempt=event.attempt,
                )
            # Queued needs no fact: until an attempt starts, a call is queued or retrying already.

    def _started(self, label: str, event: wire.Started, at_ms: int) -> None:
        flow = self._ledger.flow(label)
        if flow.begin_ms is None:
            self._ledger.call_row(label, started_ms=at_ms)
        flow.begin(event.at_ms)
        if flow.length:
            self._ledger.start_over(label)
        self._ledger.fold(domain.CallStarted(label, event.attempt), at_ms)
        state = CallState.RETRYING if event.attempt > 1 else CallState.WAITING
        self._ledger.call_row(label, state=state, attempt=event.attempt)
        self._ledger.batch.run.setdefault("status", RunStatus.RUNNING)
        self._asked[label] = self._model_of(label, event)
        self._ledger.event(
            EventType.CALL_STARTED,
            at_ms,
            call=label,
            model=self._asked[label],
            attempt=event.attempt,
            reason=event.reason,
            rev=flow.rev,
        )

    def _model_of(self, label: str, event: wire.Started) -> str:
        """The id of the model an attempt asks: the call's own, unless it is another's turn."""
        target = (event.provider, event.model)
        if self._own.setdefault(label, target) == target:
            return self._ledger.models[label]
        return f"{event.provider}/{event.model}"

    def _attempt_failed(self, label: str, event: wire.AttemptFailed, at_ms: int) -> None:
        spent = self._ledger.spend(
            label, event.usage, self._asked[label], renews=event.wait_ms is not None
        )
        self._ledger.call_row(label, **spent)
        if event.wait_ms is not None:
            self._ledger.call_row(label, state=CallState.RETRYING, attempt=event.attempt + 1)
        self._ledger.event(
            EventType.CALL_ATTEMPT_FAILED,
            at_ms,
            call=label,
            attempt=event.attempt,
            kind=event.kind,
            message=event.message,
            status=event.status,
            wait_ms=event.wait_ms,
            **spent,
        )

    def _chunk(self, label: str, event: wire.Chunk, at_ms: int) -> None:
        flow = self._ledger.flow(label)
        if flow.first_ms is None:
            flow.first_ms = event.at_ms
            first_token_ms = flow.first_token_ms()
            self._ledger.call_row(label, state=CallState.STREAMING, first_token_ms=first_token_ms)
            self._ledger.event(
                EventType.CALL_FIRST_TOKEN, at_ms, call=label, first_token_ms=first_token_ms
            )
        offset = self._ledger.add(label, event.text, at_ms)
        self._ledger.tails.append(self._ledger.run_id, label, event.text)
        self._ledger.fold(domain.CallChunk(label, event.text, offset), at_ms)
        self.show_overlap(at_ms)

    def _finished(self, label: str, event: wire.Finished, at_ms: int) -> None:
        cached = event.cached_age_ms is not None
        age_s = None if event.cached_age_ms is None else event.cached_age_ms // 1000
        numbers = self._ledger.numbers(
            label, event.at_ms, event.usage, self._asked[label], cached=cached
        )
        if not self._ledger.flow(label).text().strip():
            # Only white space: there is a finish, but no answer to show or to merge.
            self.fail(label, "bad_upstream_response", at_ms, numbers=numbers, attempt=event.attempt)
            return
        self._ledger.ended.add(label)
        self._ledger.fold(domain.CallFinished(label), at_ms)
        self._ledger.call_row(
            label,
            state=CallState.CACHED if cached else CallState.DONE,
            attempt=event.attempt,
            cached_age_s=age_s,
            finish_reason=event.finish_reason,
            **numbers,
            **self._ledger.text_fields(label),
        )
        self._ledger.event(
            EventType.CALL_FINISHED,
            at_ms,
            call=label,
            attempt=event.attempt,
            cached=cached,
            cached_age_s=age_s,
            finish_reason=event.finish_reason,
            chars=self._ledger.flow(label).length,
            # How fast a cached answer was read says nothing about its model.
            **(speed(numbers) | ({"tokens_per_s": None} if cached else {})),
        )
        self.show_overlap(at_ms, force=True)

    def fail(
        self,
        label: str,
        kind: str,
        at_ms: int,
        *,
        numbers: dict[str, Any] | None = None,
        message: str = "",
        attempt: int | None = None,
    ) -> None:
        """End a call without an answer; what it said so far stays. ``attempt`` is the newest that
        started; where nobody says, it is the one under way."""
        if label in self._ledger.ended:
            return
        self._ledger.ended.add(label)
        row = row_of(kind)
        numbers = numbers or self._ledger.numbers(
            label, None, self._unheard(label), self._asked[label]
        )
        newest = {} if attempt is None else {"attempt": attempt}
        self._ledger.fold(domain.CallFailed(label, kind), at_ms)
        message = message or row.sentence
        self._ledger.call_row(
            label,
            state=CallState(row.state),
            reason=kind,
            message=message[:300],
            **newest,
            **numbers,
            **self._ledger.text_fields(label),
        )
        self._ledger.event(
            EventType.CALL_FAILED,
            at_ms,
            call=label,
            state=row.state,
            kind=kind,
            message=message,
            retryable=row.retryable,
            chars=self._ledger.flow(label).length,
            **newest,
            **speed(numbers),
        )

    def _unheard(self, label: str) -> wire.Usage | None:
        """What a call may have used whose end nobody told; None for one that was not sent."""
        if not self._ledger.state.calls[label].attempt:
            return None
        written = self._ledger.flow(label).length
        return self._ledger.bill.estimated(read_chars=0, written_chars=written)

    def open(self) -> list[str]:
        return [label for label in self._ledger.models if label not in self._ledger.ended]

    def show_overlap(self, at_ms: int, *, force: bool = False) -> None:
        if len(self._ledger.models) < 2 or (
            not force and at_ms - self._overlap_at_ms < OVERLAP_EVERY_MS
        ):
            return
        self._overlap_at_ms = at_ms
        shown = view(self._ledger.state.overlap)
        if shown != self.overlap:
            self.overlap = shown
            self._ledger.tails.set_overlap(self._ledger.run_id, shown)
