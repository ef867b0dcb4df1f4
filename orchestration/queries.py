"""Reading runs for pages and the API. Everything is scoped to one workspace."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from django.urls import reverse
from django.utils import timezone

from orchestration.domain.errors import sentence_for
from orchestration.domain.run import CallState, RunStatus
from orchestration.live import tails
from orchestration.models import Call, Run, Synthesis
from workspaces.models import Workspace


class RunNotFound(LookupError):
    """No such run in this workspace; whether it exists elsewhere is not told."""


def run_of(workspace: Workspace, run_id: UUID) -> Run:
    """The run, or RunNotFound, the same for absent and foreign. One query."""
    run = Run.objects.in_workspace(workspace).select_related("workspace").filter(pk=run_id).first()
    if run is None:
        raise RunNotFound(str(run_id))
    return run


def snapshot_of(run: Run) -> dict[str, Any]:
    """The whole run as JSON, at seq N: what a page starts from and what the API gives.

    The head is read before everything else, so the rest is at least that new; events are absolute
    and text is addressed, so a reader that applies them again after this changes nothing.
    """
    calls = [_call(each, run) for each in run.calls.all()]
    versions = list(run.syntheses.all())
    live = tails.texts(run.pk) or {}
    for call in calls:
        if call["label"] in live:
            call["rev"], call["text"] = live[call["label"]]
    synthesis = _synthesis(run, versions, live)
    _, overlap = tails.overlap(run.pk)
    answer = run.answer
    if answer is None and synthesis["blocks"]:
        answer = "\n\n".join(block["md"] for block in synthesis["blocks"])
    return {
        "id": str(run.pk),
        "url": reverse("run-detail", args=[run.pk]),
        "seq": run.last_seq,
        "status": run.status,
        "reason": run.reason,
        "message": sentence_for(run.reason) if run.reason else "",
        "prompt": run.prompt,
        "pipeline": {
            "name": run.pipeline,
            "version": run.pipeline_version,
            "policy": run.settings["policy"],
        },
        "created_at": _iso(run.created_at),
        "started_at": _iso(run.started_at),
        "ended_at": _iso(run.ended_at),
        "now": _iso(timezone.now()),
        "deadline_s": run.deadline_s,
        "stopping": run.stop_requested_at is not None and run.ended_at is None,
        "answer": answer,
        "answer_state": _answer_state(run, answer, versions),
        "degraded": run.degraded,
        "totals": _totals(run, calls, versions),
        "calls": calls,
        "synthesis": synthesis,
        "overlap": overlap or run.overlap,
    }


def _call(call: Call, run: Run) -> dict[str, Any]:
    return {
        "label": call.label,
        "model": call.model,
        "title": run.title_of(call.model),
        "provider": call.provider,
        "state": call.state,
        "reason": call.reason,
        "message": call.message,
        "attempt": call.attempt,
        "stopping": call.stop_requested_at is not None,
        "started_ms": call.started_ms,
        "first_token_ms": call.first_token_ms,
        "duration_ms": call.duration_ms,
        "tokens_per_s": None
        if call.state == CallState.CACHED
        else tokens_per_s(call.output_tokens, call.first_token_ms, call.duration_ms),
        "input_tokens": call.input_tokens,
        "output_tokens": call.output_tokens,
        "usage_estimated": call.usage_estimated,
        "cost_micro_usd": call.cost_micro_usd,
        "finish_reason": call.finish_reason,
        "cached_age_s": call.cached_age_s,
        "rev": call.rev,
        "text": call.text,
    }


def tokens_per_s(
    output_tokens: int, first_token_ms: int | None, duration_ms: int | None
) -> float | None:
    """Tokens after the first, over the time after the first; None where that says nothing."""
    if first_token_ms is None or duration_ms is None or duration_ms <= first_token_ms:
        return None
    if output_tokens < 2:
        return None
    return round((output_tokens - 1) * 1000 / (duration_ms - first_token_ms), 1)


def _synthesis(
    run: Run, versions: list[Synthesis], live: dict[str, tuple[int, str]]
) -> dict[str, Any]:
    applied = [each for each in versions if each.state == Synthesis.State.APPLIED]
    running = [each for each in versions if each.state == Synthesis.State.RUNNING]
    current = applied[-1] if applied else None
    writing = running[-1] if running and run.ended_at is None else None
    return {
        "state": _synthesis_state(run, versions, current, writing),
        "version": current.version if current else 0,
        "final_version": run.final_version,
        "model": run.synthesizer,
        "title": run.title_of(run.synthesizer),
        "blocks": current.blocks if current else [],
        "live": _live(writing, live),
        "versions": [_version(each) for each in versions],
    }


def _live(writing: Synthesis | None, live: dict[str, tuple[int, str]]) -> dict[str, Any] | None:
    if writing is None or writing.kind == "patch":
        return None
    rev, text = live.get(f"v{writing.version}", (0, writing.text))
    return {"version": writing.version, "kind": writing.kind, "rev": rev, "text": text}


def _synthesis_state(
    run: Run, versions: list[Synthesis], current: Synthesis | None, writing: Synthesis | None
) -> str:
    if writing is not None:
        return "revising" if current else "drafting"
    if run.final_version is not None and current is not None:
        return "amended" if current.late else "final"
    if run.answer is not None:
        return "single"
    if current is not None:
        return "draft"
    if run.ended_at is not None:
        return "failed" if versions or run.status == RunStatus.FAILED else "none"
    return "waiting"


def _version(each: Synthesis) -> dict[str, Any]:
    return {
        "version": each.version,
        "kind": each.kind,
        "trigger": each.trigger,
        "sources": each.sources,
        "late": each.late,
        "state": each.state,
        "reason": each.reason,
        "started_ms": each.started_ms,
        "first_token_ms": each.first_token_ms,
        "duration_ms": each.duration_ms,
        "input_tokens": each.input_tokens,
        "output_tokens": each.output_tokens,
        "cost_micro_usd": each.cost_micro_usd,
        "blocks": each.blocks,
    }


def _answer_state(run: Run, answer: str | None, versions: list[Synthesis]) -> str:
    if answer is None:
        return "none"
    if run.answer is None:
        return "provisional"
    return "amended" if any(each.late and each.blocks for each in versions) else "final"


def _totals(run: Run, calls: list[dict[str, Any]], versions: list[Synthesis]) -> dict[str, Any]:
    spent = [*calls, *(_version(each) for each in versions)]
    return {
        "duration_ms": run.duration_ms,
        "input_tokens": sum(each["input_tokens"] for each in spent),
        "output_tokens": sum(each["output_tokens"] for each in spent),
        "cost_micro_usd": total_cost(each["cost_micro_usd"] for each in spent if _billed(each)),
        "ttfs_ms": run.ttfs_ms,
        "ttms_ms": run.ttms_ms,
        "ttf_ms": run.ttf_ms,
    }


def _billed(part: dict[str, Any]) -> bool:
    """Whether a call or version has tokens to bill; one not yet heard from has no price either."""
    return bool(part["input_tokens"] or part["output_tokens"])


def total_cost(costs: Iterable[int | None]) -> int | None:
    """The sum in micro-USD, or None as soon as one price is unknown: never a wrong number."""
    total = 0
    for cost in costs:
        if cost is None:
            return None
        total += cost
    return total


def _iso(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
