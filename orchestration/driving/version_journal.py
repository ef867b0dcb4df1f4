"""The journal of a run's synthesis: what each version wrote becomes facts, rows and live text."""

from typing import Any

from orchestration.domain import synthesis as domain
from orchestration.domain.errors import sentence_for
from orchestration.domain.run import EventType
from orchestration.domain.synthesis_state import Version
from orchestration.driving.bill import read_by_draft
from orchestration.driving.ledger import Ledger, speed
from orchestration.fanout import wire

Ending = domain.SynthesisFinished | domain.SynthesisFailed


class VersionJournal:
    """``synthesizer`` is the model id of whoever writes the versions, ``price`` what it costs, as
    their rows have it."""

    def __init__(
        self, ledger: Ledger, synthesizer: str, price: dict[str, Any] | None = None
    ) -> None:
        self._ledger = ledger
        self._synthesizer = synthesizer
        self._price = price

    def start(self, command: domain.StartSynthesis, at_ms: int) -> None:
        sources = [source.label for source in command.sources]
        self._ledger.flow(f"v{command.version}")
        self._ledger.batch.syntheses[command.version] = {
            "base_version": command.base_version,
            "kind": command.kind,
            "trigger": command.trigger,
            "late": command.late,
            "model": self._synthesizer,
            "sources": sources,
            "started_ms": at_ms,
            "price": self._price,
        }
        self._ledger.event(
            EventType.SYNTHESIS_STARTED,
            at_ms,
            version=command.version,
            kind=command.kind,
            base_version=command.base_version,
            sources=sources,
            source_chars=[source.chars for source in command.sources],
            trigger=command.trigger,
            model=self._synthesizer,
            late=command.late,
        )

    def take_in(self, version: int, event: wire.Event, at_ms: int) -> None:
        """Fold one event of the synthesizer's call for ``version``."""
        stream = f"v{version}"
        if stream in self._ledger.ended:
            return
        match event:
            case wire.Started():
                # Its call asks for no restart, so no attempt follows one that has said something.
                self._ledger.flow(stream).begin(event.at_ms)
            case wire.AttemptFailed():
                self._ledger.spend(stream, event.usage, self._synthesizer)
            case wire.Chunk():
                self._chunk(version, event, at_ms)
            case wire.Finished():
                fact = domain.SynthesisFinished(version, self._ledger.flow(stream).text())
                numbers = self._ledger.numbers(stream, event.at_ms, event.usage, self._synthesizer)
                self._end(version, fact, at_ms, numbers | {"finish_reason": event.finish_reason})
            case wire.Failed():
                numbers = self._ledger.numbers(stream, event.at_ms, event.usage, self._synthesizer)
                self.fail(version, event.kind, at_ms, numbers=numbers)

    def _chunk(self, version: int, event: wire.Chunk, at_ms: int) -> None:
        stream = f"v{version}"
        flow = self._ledger.flow(stream)
        if flow.first_ms is None:
            flow.first_ms = event.at_ms
        offset = self._ledger.add(stream, event.text, at_ms)
        self._ledger.fold(domain.SynthesisDelta(version, event.text, offset), at_ms)
        running = self._ledger.state.version(version)
        if running is not None and running.kind != "patch":
            self._ledger.tails.append(self._ledger.run_id, stream, event.text)
            self._mark_visible(running, at_ms)

    def fail(
        self,
        version: int,
        kind: str,
        at_ms: int,
        *,
        numbers: dict[str, Any] | None = None,
        sent: bool = False,
    ) -> None:
        """End a version without its own end. ``sent``: its synthesizer was asked, also where this
        driver did not hear it begin."""
        if f"v{version}" in self._ledger.ended:
            return
        if numbers is None:
            sent = sent or self._ledger.flow(f"v{version}").begin_ms is not None
            usage = self._unheard(version) if sent else None
            numbers = self._ledger.numbers(f"v{version}", None, usage, self._synthesizer)
        self._end(version, domain.SynthesisFailed(version, kind), at_ms, numbers)

    def _unheard(self, number: int) -> wire.Usage | None:
        """What a draft may have used whose end nobody told."""
        version = self._ledger.state.version(number)
        assert version is not None, "a version ends after it started"
        return self._ledger.bill.estimated(
            read_chars=read_by_draft(sum(source.chars for source in version.sources)),
            written_chars=self._ledger.flow(f"v{number}").length,
        )

    def _end(
        self,
        number: int,
        fact: Ending,
        at_ms: int,
        numbers: dict[str, Any],
    ) -> None:
        """Fold the end of a version, and record what became of it."""
        stream = f"v{number}"
        self._ledger.ended.add(stream)
        self._ledger.fold(fact, at_ms)
        version = self._ledger.state.version(number)
        assert version is not None, "a version ends after it started"
        row = self._ledger.batch.syntheses.setdefault(number, {})
        row |= numbers | self._ledger.text_fields(stream)
        if version.state == "applied":
            self._record_revision(version, fact, at_ms, numbers)
        else:
            self._record_failure(version, fact, at_ms, numbers)

    def _record_revision(
        self,
        version: Version,
        fact: Ending,
        at_ms: int,
        numbers: dict[str, Any],
    ) -> None:
        document = self._ledger.state.document
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
        self._ledger.batch.syntheses[version.version] |= {"state": "applied", "blocks": blocks}
        self._mark_visible(version, at_ms)
        if self._ledger.state.final is not None:
            self._ledger.batch.run["answer"] = document.text
        self._ledger.event(
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
            **speed(numbers),
        )

    def _record_failure(
        self,
        version: Version,
        fact: Ending,
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
        self._ledger.batch.syntheses[version.version] |= {
            "state": "failed",
            "reason": kind,
            "message": message,
        }
        self._ledger.event(
            EventType.SYNTHESIS_FAILED,
            at_ms,
            version=version.version,
            kind=version.kind,
            error_kind=kind,
            message=message,
            rejected=rejected,
            **speed(numbers),
        )

    def _mark_visible(self, version: Version, at_ms: int) -> None:
        """Note when text of the synthesis was first on screen, and first built on two answers."""
        for mark, reached in (("ttfs_ms", True), ("ttms_ms", len(version.sources) >= 2)):
            if reached and mark not in self._ledger.marks:
                self._ledger.marks[mark] = self._ledger.batch.run[mark] = at_ms
