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

# A command's consequence is in the log; the moment that brought it about was a fact or a tick.
_CONSEQUENCES = frozenset(
    {
        EventType.CALL_CANCEL_REQUESTED,
        EventType.SYNTHESIS_STARTED,
        EventType.SYNTHESIS_CANCEL_REQUESTED,
        EventType.SYNTHESIS_FINAL,
        EventType.RUN_FINISHED,
    }
)


def facts_of(run: Run) -> list[TimedFact]:
    """(seconds on the run's clock, fact) in the very order the driver folded them; queries: 3.

    Facts that are rows have their seq; pieces of text say in their pacing behind which seq, and as
    which piece of the run, they came.
    """
    texts = {f"v{each.version}": each.text for each in run.syntheses.all()}
    placed: list[tuple[tuple[int, int, int], int, domain.Fact]] = []
    for row in run.events.all():
        fact = fact_of(row, run, texts)
        if fact is None:
            continue
        if row.type in _CONSEQUENCES:
            placed.append(((row.seq, -1, 0), row.at_ms, domain.Tick()))
        placed.append(((row.seq, -1, 1), row.at_ms, fact))
    for call in run.calls.all():
        for place, at_ms, offset, text in _pieces(call.pacing, call.text):
            placed.append((place, at_ms, domain.CallChunk(call.label, text, offset)))
    for each in run.syntheses.all():
        for place, at_ms, offset, text in _pieces(each.pacing, each.text):
            placed.append((place, at_ms, domain.SynthesisDelta(each.version, text, offset)))
    placed.sort(key=lambda entry: entry[0])
    return [(at_ms / 1000, fact) for _, at_ms, fact in placed]


def _pieces(pacing: list[Any], text: str) -> Iterator[tuple[tuple[int, int, int], int, int, str]]:
    """(place, at_ms, offset, text) of a text, by its recorded pacing."""
    start = 0
    for at_ms, end, behind_seq, ordinal in pacing:
        yield (behind_seq, ordinal, 0), at_ms, start, text[start:end]
        start = end


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
            return domain.Finalised(body["version"], body["mode"], body["label"], body["degraded"])
        case EventType.RUN_STOP_REQUESTED:
            return domain.StopRequested()
        case EventType.RUN_FINISHED:
            return domain.RunFinished(body["status"], body["reason"])
    return None
