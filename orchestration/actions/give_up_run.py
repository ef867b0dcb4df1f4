"""End a run that ended each of its drivers: from its rows alone, since driving it is what fails."""

from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from orchestration.actions.record_event import Batch, NewEvent, record_event
from orchestration.domain.errors import row_of
from orchestration.domain.run import CALL_ENDED, EventType, RunStatus
from orchestration.driving.bill import Bill, Terms, price_in, read_by_draft
from orchestration.driving.load import prices_of, spent_by
from orchestration.models import ModelCall, Run, Synthesis
from orchestration.queries import total_cost

REASON = "worker_lost"


def give_up_run(*, run_id: UUID, fence: int, now: datetime) -> None:
    """Fail what is open and the run itself. Raises LeaseLost when ``fence`` is no longer the run's.

    What had become the answer stays the answer. What was on its way is billed by an estimate.
    """
    run = Run.objects.everywhere().get(pk=run_id)
    calls, versions = list(run.calls.all()), list(run.syntheses.all())
    at_ms = max(0, round((now - run.created_at).total_seconds() * 1000))
    bill = Bill(
        {call.label: call.model for call in calls},
        Terms(partial(price_in, prices_of(run, calls)), question_chars=len(run.prompt)),
    )
    batch = Batch(closes=True)
    row = row_of(REASON)
    failed = {"reason": REASON, "message": row.sentence}
    for call in calls:
        if call.state in CALL_ENDED:
            continue
        # An answer out of the cache is no attempt: 0.
        spent = _spent(bill, batch, call.label, call, 0) if call.attempt else {}
        batch.calls[call.label] = {"state": row.state, **failed, **spent}
        body = {
            "call": call.label,
            "state": row.state,
            "kind": REASON,
            "message": row.sentence,
            "retryable": row.retryable,
            "chars": len(call.text),
        }
        batch.events.append(NewEvent(EventType.CALL_FAILED, at_ms, body))
    for version in versions:
        if version.state != Synthesis.State.RUNNING:
            continue
        read = read_by_draft(sum(len(call.text) for call in calls))
        spent = _spent(bill, batch, f"v{version.version}", version, read)
        batch.syntheses[version.version] = {"state": Synthesis.State.FAILED, **failed, **spent}
        body = {
            "version": version.version,
            "kind": version.kind,
            "error_kind": REASON,
            "message": row.sentence,
            "rejected": False,
        }
        batch.events.append(NewEvent(EventType.SYNTHESIS_FAILED, at_ms, body))
    totals = _totals([*calls, *versions], bill)
    batch.run = {
        "status": RunStatus.FAILED,
        "reason": "internal",
        "ended_at": now,
        "duration_ms": at_ms,
        "lease_until": None,
        **totals,
    }
    body = {
        "status": RunStatus.FAILED,
        "reason": "internal",
        "answer_sha256": None,
        "ttfs_ms": run.ttfs_ms,
        "ttms_ms": run.ttms_ms,
        "ttf_ms": run.ttf_ms,
        "duration_ms": at_ms,
        **totals,
    }
    batch.events.append(NewEvent(EventType.RUN_FINISHED, at_ms, body))
    record_event(run_id=run_id, fence=fence, behind=run.last_seq, batch=batch, now=now)


def _spent(
    bill: Bill, batch: Batch, stream: str, part: ModelCall, read_chars: int
) -> dict[str, Any]:
    """What a call or draft that was on its way may have used, as its row has it; and its charge."""
    usage = bill.estimated(read_chars=read_chars, written_chars=len(part.text))
    sums, charge = bill.count(stream, usage, part.model, spent_by(part), cached=False)
    batch.charges.append(charge)
    return sums


def _totals(parts: list[ModelCall], bill: Bill) -> dict[str, Any]:
    """What the rows had, and what was estimated just now."""
    billed = [part for part in parts if part.input_tokens or part.output_tokens]
    costs = [*(part.cost_micro_usd for part in billed), bill.cost_micro_usd]
    return {
        "input_tokens": sum(part.input_tokens for part in billed) + bill.totals["input_tokens"],
        "output_tokens": sum(part.output_tokens for part in billed) + bill.totals["output_tokens"],
        "cost_micro_usd": total_cost(costs),
    }
