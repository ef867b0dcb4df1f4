"""The log and the domain's facts: one into the other, both ways.

A stored run gives back the facts its driver saw, text included, so that a driver can go on where
another died, and so that a policy can be replayed over it.
"""

from collections.abc import Iterator
from typing import Any

from orchestration.domain import synthesis_state as domain
from orchestration.domain.run import EventType
from orchestration.models import Run, RunEvent

TimedFact = tuple[float, domain.Fact]

# Within one millisecond: what opens a stream comes before its text, what ends it after.
_OPENS = {EventType.RUN_STARTED, EventType.CALL_STARTED, EventType.SYNTHESIS_STARTED}
_BEFORE_TEXT, _TEXT, _AFTER_TEXT = 0, 1, 2


def facts_of(run: Run) -> list[TimedFact]:
    """(seconds on the run's clock, fact) in the order they were seen; queries: 3."""
    texts = {f"v{each.version}": each.text for each in run.syntheses.all()}
    timed: list[tuple[int, int, int, domain.Fact]] = []
    for row in run.events.all():
        fact = fact_of(row, run, texts)
        if fact is not None:
            place = _BEFORE_TEXT if row.type in _OPENS else _AFTER_TEXT
            timed.append((row.at_ms, place, row.seq, fact))
    for call in run.calls.all():
        for at_ms, offset, text in _pieces(call.pacing, call.text):
            timed.append((at_ms, _TEXT, 0, domain.CallChunk(call.label, text, offset)))
    for each in run.syntheses.all():
        for at_ms, offset, text in _pieces(each.pacing, each.text):
            timed.append((at_ms, _TEXT, 0, domain.SynthesisDelta(each.version, text, offset)))
    timed.sort(key=lambda entry: entry[:3])
    return [(at_ms / 1000, fact) for at_ms, _, _, fact in timed]


def _pieces(pacing: list[Any], text: str) -> Iterator[tuple[int, int, str]]:
    """(at_ms, offset, text) of a text by its recorded pacing; what has none comes last, at once."""
    start, at_ms = 0, 0
    for at_ms, end in pacing:
        yield at_ms, start, text[start:end]
        start = end
    if start < len(text):
        yield at_ms, start, text[start:]


def fact_of(row: RunEvent, run: Run, texts: dict[str, str]) -> domain.Fact | None:
    """The domain's fact for a row of the log; None for rows that only readers care about."""
    body = row.body
    match row.type:
        case EventType.RUN_STARTED:
            return domain.RunStarted(tuple(body["labels"]), run.seed, float(run.deadline_s))
        case EventType.CALL_STARTED:
            return domain.CallStarted(body["call"], body["attempt"])
        case EventType.CALL_FINISHED:
            return domain.CallFinished(body["call"])
        case EventType.CALL_FAILED:
            return domain.CallFailed(body["call"], body["kind"])
        case EventType.CALL_CANCEL_REQUESTED:
            return domain.CancelRequested(body["call"], body["reason"])
        case EventType.SYNTHESIS_CANCEL_REQUESTED:
            return domain.CancelRequested(f"v{body['version']}", body["reason"])
        case EventType.SYNTHESIS_STARTED:
            sources = tuple(
                domain.Source(label, chars)
                for label, chars in zip(body["sources"], body["source_chars"], strict=True)
            )
            return domain.SynthesisStarted(
                body["version"],
                body["kind"],
                body["base_version"],
                sources,
                body["trigger"],
                body["late"],
            )
        case EventType.SYNTHESIS_REVISED if not body["cut"]:
            return domain.SynthesisFinished(body["version"], texts[f"v{body['version']}"])
        case EventType.SYNTHESIS_REVISED:
            return domain.SynthesisFailed(body["version"], body["cut"])
        case EventType.SYNTHESIS_FAILED if body["rejected"]:
            return domain.SynthesisFinished(body["version"], texts[f"v{body['version']}"])
        case EventType.SYNTHESIS_FAILED:
            return domain.SynthesisFailed(body["version"], body["error_kind"])
        case EventType.SYNTHESIS_FINAL:
            return domain.Finalised(
                body["version"], body["mode"], body["label"], body["degraded"]
            )
        case EventType.RUN_STOP_REQUESTED:
            return domain.StopRequested()
        case EventType.RUN_FINISHED:
            return domain.RunFinished(body["status"], body["reason"])
    return None
