"""The journal of a run being driven: what happened becomes facts, rows to write, and live text.

No I/O but the live tail: the driver feeds it what came in, asks the policy, writes ``take()`` in
one transaction, and then carries out what was decided.
"""

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from orchestration.actions.record_event import Batch, NewEvent
from orchestration.domain import synthesis as domain
from orchestration.domain.cost import Price, cost_micro_usd
from orchestration.domain.errors import row_of, sentence_for
from orchestration.domain.overlap import view
from orchestration.domain.policies import Policy
from orchestration.domain.run import CallState, EventType, RunStatus
from orchestration.domain.synthesis_state import Version
from orchestration.driving.flow import Flow
from orchestration.driving.load import StoredText
from orchestration.fanout import wire
from orchestration.live import LiveTails
from orchestration.queries import tokens_per_s

# Overlap is drawn on pages while they wait for a draft: soon enough to be live, no more often.
OVERLAP_EVERY_MS = 120


class Journal:
    """Folds one run. ``models`` is label → model id; ``price_of`` gives None for unknown ones."""

    def __init__(
        self,
        *,
        run_id: UUID,
        policy: Policy,
        models: Mapping[str, str],
        synthesizer: str,
        price_of: Callable[[str], Price | None],
        tails: LiveTails,
        head: int,
    ) -> None:
        self.run_id = run_id
        self.policy = policy
        self.models = models
        self.synthesizer = synthesizer
        self.state = domain.State()
        self._price_of = price_of
        self._tails = tails
        # The driver is the only writer of its run's log, so it knows the seq of each fact.
        self._seq = head
        self._pieces = 0
        self._batch = Batch()
        self._flows: dict[str, Flow] = {}
        self._ended: set[str] = set()
        self._totals = {"input_tokens": 0, "output_tokens": 0}
        self._cost: int | None = 0
        self._marks: dict[str, int] = {}
        self._overlap_at_ms = -OVERLAP_EVERY_MS
        self._overlap_shown: Any = None

    # --- facts from outside -------------------------------------------------------------------

    def stop(self, at_ms: int) -> None:
        """Someone asked for the run to end; asking again changes nothing."""
        if self.state.stop_requested:
            return
        self.fold(domain.StopRequested(), at_ms)
        self._event(EventType.RUN_STOP_REQUESTED, at_ms)

    def fold(self, fact: domain.Fact, at_ms: int) -> None:
        """Apply a fact that needs no row of its own: a tick, or one already in the log."""
        self.state = domain.apply(self.state, fact, at_ms / 1000)

    def restore_text(self, stream: str, stored: StoredText, *, rev: int) -> None:
        """Text of a run that another driver began; its facts are folded already."""
        flow = self._flow(stream)
        flow.parts, flow.length, flow.stored = [stored.text], len(stored.text), len(stored.text)
        flow.pacing = [list(piece) for piece in stored.pacing]
        self._pieces = max([self._pieces, *(piece[3] for piece in flow.pacing)])
        version = None if stream in self.models else self.state.version(int(stream[1:]))
        if version is None or version.kind != "patch":
            self._tails.restore(self.run_id, stream, rev, stored.text)
        if rev != stored.rev:
            self._call(stream, rev=rev)

    def restore(
        self, ended: frozenset[str], spent: Mapping[str, int | None], marks: Mapping[str, int]
    ) -> None:
        """What another driver had counted."""
        self._ended |= ended
        self._cost = spent["cost_micro_usd"]
        self._totals = {name: spent[name] or 0 for name in self._totals}
        self._marks |= marks

    def call_event(self, event: wire.Event, at_ms: int) -> None:
        """Fold one event of the fan-out of calls."""
        label = event.call
        if label in self._ended:
            return
        match event:
            case wire.Started():
                self._call_started(label, event, at_ms)
            case wire.Chunk():
                self._call_chunk(label, event, at_ms)
            case wire.Finished():
                self._call_finished(label, event, at_ms)
            case wire.Failed():
                numbers = self._numbers(label, event.at_ms, event.usage, self.models[label])
                self.fail_call(label, event.kind, at_ms, numbers=numbers, message=event.message)

    def _call_started(self, label: str, event: wire.Started, at_ms: int) -> None:
        flow = self._flow(label)
        flow.begin_ms = event.at_ms
        self.fold(domain.CallStarted(label, event.attempt), at_ms)
        self._call(label, state=CallState.WAITING, attempt=event.attempt, started_ms=at_ms)
        self._batch.run.setdefault("status", RunStatus.RUNNING)
        self._event(
            EventType.CALL_STARTED,
            at_ms,
            call=label,
            model=self.models[label],
            attempt=event.attempt,
        )

    def _call_chunk(self, label: str, event: wire.Chunk, at_ms: int) -> None:
        flow = self._flow(label)
        if flow.first_ms is None:
            flow.first_ms = event.at_ms
            first_token_ms = flow.first_token_ms()
            self._call(label, state=CallState.STREAMING, first_token_ms=first_token_ms)
            self._event(
                EventType.CALL_FIRST_TOKEN, at_ms, call=label, first_token_ms=first_token_ms
            )
        offset = self._add(flow, event.text, at_ms)
        self._tails.append(self.run_id, label, event.text)
        self.fold(domain.CallChunk(label, event.text, offset), at_ms)
        self._show_overlap(at_ms)

    def _call_finished(self, label: str, event: wire.Finished, at_ms: int) -> None:
        if not self._flow(label).text().strip():
            # Only white space: there is a finish, but no answer to show or to merge.
            numbers = self._numbers(label, event.at_ms, event.usage, self.models[label])
            self.fail_call(label, "bad_upstream_response", at_ms, numbers=numbers)
            return
        self._ended.add(label)
        numbers = self._numbers(label, event.at_ms, event.usage, self.models[label])
        self.fold(domain.CallFinished(label), at_ms)
        self._call(
            label,
            state=CallState.DONE,
            finish_reason=event.finish_reason,
            **numbers,
            **self._text_fields(label),
        )
        self._event(
            EventType.CALL_FINISHED,
            at_ms,
            call=label,
            finish_reason=event.finish_reason,
            chars=self._flow(label).length,
            **self._speed(numbers),
        )
        self._show_overlap(at_ms, force=True)

    def fail_call(
        self,
        label: str,
        kind: str,
        at_ms: int,
        *,
        numbers: dict[str, Any] | None = None,
        message: str = "",
    ) -> None:
        """End a call without an answer; what it said so far stays."""
        if label in self._ended:
            return
        self._ended.add(label)
        row = row_of(kind)
        numbers = numbers or self._numbers(label, None, None, self.models[label])
        self.fold(domain.CallFailed(label, kind), at_ms)
        message = message or row.sentence
        self._call(
            label,
            state=CallState(row.state),
            reason=kind,
            message=message[:300],
            **numbers,
            **self._text_fields(label),
        )
        self._event(
            EventType.CALL_FAILED,
            at_ms,
            call=label,
            state=row.state,
            kind=kind,
            message=message,
            retryable=row.retryable,
            chars=self._flow(label).length,
            **self._speed(numbers),
        )

    def open_calls(self) -> list[str]:
        return [label for label in self.models if label not in self._ended]

    # --- the synthesizer ----------------------------------------------------------------------

    def synthesis_event(self, version: int, event: wire.Event, at_ms: int) -> None:
        """Fold one event of the synthesizer's call for ``version``."""
        stream = f"v{version}"
        if stream in self._ended:
            return
        match event:
            case wire.Started():
                self._flow(stream).begin_ms = event.at_ms
            case wire.Chunk():
                self._synthesis_chunk(version, event, at_ms)
            case wire.Finished():
                fact = domain.SynthesisFinished(version, self._flow(stream).text())
                numbers = self._numbers(stream, event.at_ms, event.usage, self.synthesizer)
                self._end_version(
                    version, fact, at_ms, numbers | {"finish_reason": event.finish_reason}
                )
            case wire.Failed():
                numbers = self._numbers(stream, event.at_ms, event.usage, self.synthesizer)
                self.fail_synthesis(version, event.kind, at_ms, numbers=numbers)

    def _synthesis_chunk(self, version: int, event: wire.Chunk, at_ms: int) -> None:
        stream = f"v{version}"
        flow = self._flow(stream)
        if flow.first_ms is None:
            flow.first_ms = event.at_ms
        offset = self._add(flow, event.text, at_ms)
        self.fold(domain.SynthesisDelta(version, event.text, offset), at_ms)
        running = self.state.version(version)
        if running is not None and running.kind != "patch":
            self._tails.append(self.run_id, stream, event.text)
            self._mark_visible(running, at_ms)

    def fail_synthesis(
        self, version: int, kind: str, at_ms: int, *, numbers: dict[str, Any] | None = None
    ) -> None:
        if f"v{version}" in self._ended:
            return
        numbers = numbers or self._numbers(f"v{version}", None, None, self.synthesizer)
        self._end_version(version, domain.SynthesisFailed(version, kind), at_ms, numbers)

    def _end_version(
        self,
        number: int,
        fact: domain.SynthesisFinished | domain.SynthesisFailed,
        at_ms: int,
        numbers: dict[str, Any],
    ) -> None:
        """Fold the end of a version, and record what became of it."""
        stream = f"v{number}"
        self._ended.add(stream)
        self.fold(fact, at_ms)
        version = self.state.version(number)
        assert version is not None, "a version ends after it started"
        row = self._batch.syntheses.setdefault(number, {})
        row |= numbers | self._text_fields(stream)
        if version.state == "applied":
            self._record_revision(version, fact, at_ms, numbers)
        else:
            self._record_failure(version, fact, at_ms, numbers)

    def _record_revision(
        self,
        version: Version,
        fact: domain.SynthesisFinished | domain.SynthesisFailed,
        at_ms: int,
        numbers: dict[str, Any],
    ) -> None:
        document = self.state.document
        blocks = [
            {
                "id": block.id,
                "md": block.md,
                "sources": list(block.sources),
                "disputes": list(block.disputes),
                "status": block.status,
            }
            for block in document.blocks
        ]
        self._batch.syntheses[version.version] |= {"state": "applied", "blocks": blocks}
        self._mark_visible(version, at_ms)
        if self.state.final is not None:
            self._batch.run["answer"] = document.text
        self._event(
            EventType.SYNTHESIS_REVISED,
            at_ms,
            version=version.version,
            kind=version.kind,
            base_version=version.base_version,
            sources=[source.label for source in version.sources],
            blocks=blocks,
            changed=list(version.changed),
            late=version.late,
            # Cut short by a stop or the deadline, what was already on screen is kept.
            cut=fact.kind if isinstance(fact, domain.SynthesisFailed) else None,
            **self._speed(numbers),
        )

    def _record_failure(
        self,
        version: Version,
        fact: domain.SynthesisFinished | domain.SynthesisFailed,
        at_ms: int,
        numbers: dict[str, Any],
    ) -> None:
        rejected = isinstance(fact, domain.SynthesisFinished)
        kind = "bad_upstream_response" if isinstance(fact, domain.SynthesisFinished) else fact.kind
        message = (
            f"What the synthesizer wrote could not be used: {version.reason}."
            if rejected
            else sentence_for(kind)
        )
        self._batch.syntheses[version.version] |= {
            "state": "failed",
            "reason": kind,
            "message": message,
        }
        self._event(
            EventType.SYNTHESIS_FAILED,
            at_ms,
            version=version.version,
            kind=version.kind,
            error_kind=kind,
            message=message,
            rejected=rejected,
            **self._speed(numbers),
        )

    def _mark_visible(self, version: Version, at_ms: int) -> None:
        """Note when text of the synthesis was first on screen, and first built on two answers."""
        for mark, reached in (("ttfs_ms", True), ("ttms_ms", len(version.sources) >= 2)):
            if reached and mark not in self._marks:
                self._marks[mark] = self._batch.run[mark] = at_ms

    # --- commands -----------------------------------------------------------------------------

    def accept(self, command: domain.Command, at_ms: int) -> None:
        """A command becomes a fact of the log before it is carried out."""
        match command:
            case domain.FinishRun():
                self._before_finish(command, at_ms)
                self.fold(domain.consequence(command), at_ms)
                self._run_finished(command, at_ms)
            case _:
                self.fold(domain.consequence(command), at_ms)
                self._record_command(command, at_ms)

    def _record_command(self, command: domain.Command, at_ms: int) -> None:
        match command:
            case domain.StartSynthesis():
                self._synthesis_started(command, at_ms)
            case domain.CancelCall(label, reason) if label in self.models:
                self._event(EventType.CALL_CANCEL_REQUESTED, at_ms, call=label, reason=reason)
            case domain.CancelCall(stream, reason):
                self._event(
                    EventType.SYNTHESIS_CANCEL_REQUESTED,
                    at_ms,
                    version=int(stream[1:]),
                    reason=reason,
                )
            case domain.Finalise():
                self._finalised(command, at_ms)

    def _synthesis_started(self, command: domain.StartSynthesis, at_ms: int) -> None:
        sources = [source.label for source in command.sources]
        self._flow(f"v{command.version}")
        self._batch.syntheses[command.version] = {
            "base_version": command.base_version,
            "kind": command.kind,
            "trigger": command.trigger,
            "late": command.late,
            "model": self.synthesizer,
            "sources": sources,
            "started_ms": at_ms,
        }
        self._event(
            EventType.SYNTHESIS_STARTED,
            at_ms,
            version=command.version,
            kind=command.kind,
            base_version=command.base_version,
            sources=sources,
            source_chars=[source.chars for source in command.sources],
            trigger=command.trigger,
            model=self.synthesizer,
            late=command.late,
        )

    def _finalised(self, command: domain.Finalise, at_ms: int) -> None:
        answer = self.state.document.text
        self._marks.setdefault("ttfs_ms", at_ms)
        self._marks["ttf_ms"] = at_ms
        self._batch.run |= {
            "answer": answer,
            "final_version": command.version,
            "degraded": command.degraded,
            **self._marks,
        }
        sources = sorted({label for block in self.state.document.blocks for label in block.sources})
        self._event(
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
        if self.state.stop_requested:
            kind = "stop.user"
        running = self.state.running
        if running is not None:
            self.fail_synthesis(running.version, kind, at_ms)
        for label in self.open_calls():
            self.fail_call(label, kind, at_ms)

    def _run_finished(self, command: domain.FinishRun, at_ms: int) -> None:
        answer = self.state.document.text if self.state.final is not None else None
        numbers = {**self._totals, "cost_micro_usd": self._cost, "duration_ms": at_ms}
        self._show_overlap(at_ms, force=True)
        self._batch.run |= {
            "status": RunStatus(command.status),
            "reason": command.reason,
            "overlap": self._overlap_shown,
            "lease_until": None,
            **numbers,
            **self._marks,
        }
        self._event(
            EventType.RUN_FINISHED,
            at_ms,
            status=command.status,
            reason=command.reason,
            answer_sha256=None if answer is None else _sha256(answer),
            ttfs_ms=self._marks.get("ttfs_ms"),
            ttms_ms=self._marks.get("ttms_ms"),
            ttf_ms=self._marks.get("ttf_ms"),
            **numbers,
        )

    # --- rows ---------------------------------------------------------------------------------

    def take(self) -> Batch:
        """What is to be written now; the journal goes on with an empty batch."""
        batch, self._batch = self._batch, Batch()
        return batch

    def checkpoint(self) -> None:
        """Put text that has grown since the last time into the batch."""
        for stream, flow in self._flows.items():
            if stream in self._ended or flow.stored == flow.length:
                continue
            flow.stored = flow.length
            if stream in self.models:
                self._call(stream, text=flow.text(), pacing=flow.pacing)
            else:
                row = self._batch.syntheses.setdefault(int(stream[1:]), {})
                row |= {"text": flow.text(), "pacing": flow.pacing}

    def finished_at(self, now: datetime) -> None:
        self._batch.run["ended_at"] = now

    def _add(self, flow: Flow, text: str, at_ms: int) -> int:
        self._pieces += 1
        return flow.add(text, at_ms, self._seq, self._pieces)

    def _event(self, type_: EventType, at_ms: int, /, **body: Any) -> None:
        self._seq += 1
        self._batch.events.append(NewEvent(type_, at_ms, body))

    def _call(self, label: str, **fields: Any) -> None:
        self._batch.calls.setdefault(label, {}).update(fields)

    def _flow(self, stream: str) -> Flow:
        return self._flows.setdefault(stream, Flow())

    def _text_fields(self, stream: str) -> dict[str, Any]:
        flow = self._flow(stream)
        flow.stored = flow.length
        return {"text": flow.text(), "pacing": flow.pacing}

    def _numbers(
        self, stream: str, ended_ms: int | None, usage: wire.Usage | None, model: str
    ) -> dict[str, Any]:
        """The numbers of an ended call, by the fan-out's clock; counted into the run's totals."""
        flow = self._flow(stream)
        numbers: dict[str, Any] = {
            "first_token_ms": flow.first_token_ms(),
            "duration_ms": None if ended_ms is None else max(0, ended_ms - flow.begin_ms),
        }
        if usage is None:
            return numbers
        price = self._price_of(model)
        cost = None if price is None else cost_micro_usd(usage, price)
        self._totals["input_tokens"] += usage.input_tokens
        self._totals["output_tokens"] += usage.output_tokens
        # One unknown price makes the sum unknown: a sum without it would be a wrong number.
        self._cost = None if cost is None or self._cost is None else self._cost + cost
        return numbers | {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cached_tokens": usage.cached_tokens,
            "usage_estimated": usage.estimated,
            "cost_micro_usd": cost,
        }

    @staticmethod
    def _speed(numbers: dict[str, Any]) -> dict[str, Any]:
        speed = tokens_per_s(
            numbers.get("output_tokens", 0), numbers["first_token_ms"], numbers["duration_ms"]
        )
        return numbers | {"tokens_per_s": speed}

    def _show_overlap(self, at_ms: int, *, force: bool = False) -> None:
        if len(self.models) < 2 or (not force and at_ms - self._overlap_at_ms < OVERLAP_EVERY_MS):
            return
        self._overlap_at_ms = at_ms
        shown = view(self.state.overlap)
        if shown != self._overlap_shown:
            self._overlap_shown = shown
            self._tails.set_overlap(self.run_id, shown)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
