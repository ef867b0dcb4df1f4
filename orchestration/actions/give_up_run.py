"""End a run that ended each of its drivers: from its rows alone, since driving it is what fails."""

from datetime import datetime
from uuid import UUID

from orchestration.actions.record_event import Batch, NewEvent, record_event
from orchestration.domain.errors import row_of
from orchestration.domain.run import CALL_ENDED, EventType, RunStatus
from orchestration.models import Run, Synthesis

REASON = "worker_lost"


def give_up_run(*, run_id: UUID, fence: int, now: datetime) -> None:
    """Fail what is open and the run itself. Raises LeaseLost when ``fence`` is no longer the run's.

    What had become the answer stays the answer.
    """
    run = Run.objects.everywhere().get(pk=run_id)
    at_ms = max(0, round((now - run.created_at).total_seconds() * 1000))
    row = row_of(REASON)
    batch = Batch()
    for call in run.calls.exclude(state__in=CALL_ENDED):
        failed = {"state": row.state, "reason": REASON, "message": row.sentence}
        batch.calls[call.label] = failed
        body = {
            "call": call.label,
            "state": row.state,
            "kind": REASON,
            "message": row.sentence,
            "retryable": row.retryable,
            "chars": len(call.text),
        }
        batch.events.append(NewEvent(EventType.CALL_FAILED, at_ms, body))
    for version in run.syntheses.filter(state=Synthesis.State.RUNNING):
        failed = {"state": Synthesis.State.FAILED, "reason": REASON, "message": row.sentence}
        batch.syntheses[version.version] = failed
        body = {
            "version": version.version,
            "kind": version.kind,
            "error_kind": REASON,
            "message": row.sentence,
            "rejected": False,
        }
        batch.events.append(NewEvent(EventType.SYNTHESIS_FAILED, at_ms, body))
    batch.run = {
        "status": RunStatus.FAILED,
        "reason": "internal",
        "ended_at": now,
        "duration_ms": at_ms,
        "lease_until": None,
    }
    body = {
        "status": RunStatus.FAILED,
        "reason": "internal",
        "answer_sha256": None,
        "cost_micro_usd": run.cost_micro_usd,
        "input_tokens": run.input_tokens,
        "output_tokens": run.output_tokens,
        "ttfs_ms": run.ttfs_ms,
        "ttms_ms": run.ttms_ms,
        "ttf_ms": run.ttf_ms,
        "duration_ms": at_ms,
    }
    batch.events.append(NewEvent(EventType.RUN_FINISHED, at_ms, body))
    record_event(run_id=run_id, fence=fence, behind=run.last_seq, batch=batch, now=now)
