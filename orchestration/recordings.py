"""Stored runs as recordings: what the ``recorded`` provider plays."""

from uuid import UUID

from orchestration.bridge import in_database
from orchestration.domain.errors import ErrorKind
from orchestration.fanout.call_sink import Counted
from orchestration.fanout.recorded import Recording, UnknownRecording
from orchestration.models import Call, Run, Synthesis


async def load_recording(run_id: str, stream: str) -> Recording:
    """The answer of a call ("A") or a synthesis version ("v2"); raises UnknownRecording.

    Not scoped: ``start_run`` takes a recorded model only of the caller's own workspace.
    """
    return await in_database(_load, run_id, stream)


def _load(run_id: str, stream: str) -> Recording:
    try:
        run = Run.objects.everywhere().get(pk=UUID(run_id))
        part: Call | Synthesis
        if stream.startswith("v"):
            part = run.syntheses.get(version=int(stream[1:]))
        else:
            part = run.calls.get(label=stream)
    except (ValueError, Run.DoesNotExist, Call.DoesNotExist, Synthesis.DoesNotExist):
        raise UnknownRecording(f"{run_id}/{stream}") from None
    return Recording(
        text=part.text,
        pacing=_from_start(part),
        finish_reason=part.finish_reason or "stop",  # type: ignore[arg-type]
        counted=Counted(
            input_tokens=part.input_tokens,
            output_tokens=part.output_tokens,
            cached_tokens=part.cached_tokens,
        ),
        failure=_failure(part),
        ended_ms=part.duration_ms,
    )


def _failure(part: Call | Synthesis) -> ErrorKind | None:
    """How the answer broke off. Nobody stops it this time: what was stopped is just incomplete."""
    # A version's failure to apply is no failure of its call: the text is played as it came.
    if part.reason is None or part.finish_reason is not None:
        return None
    return ErrorKind.INCOMPLETE if part.reason.startswith("stop.") else ErrorKind(part.reason)


def _from_start(part: Call | Synthesis) -> tuple[tuple[int, int], ...]:
    """Pacing since the call began; the rows have it on the run's clock."""
    began = part.started_ms or 0
    return tuple((max(0, at_ms - began), end) for at_ms, end, *_ in part.pacing)
