"""Accept a question: reserve for all of it, and write the run, its calls and its first facts."""

import hashlib
import json
import secrets
from dataclasses import asdict, replace
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from orchestration.actions.plan_run import InvalidRun, RunPlan, RunRequest, plan_run
from orchestration.actions.record_event import Batch, NewEvent, record_event
from orchestration.domain.errors import ErrorKind, row_of
from orchestration.domain.estimate import Part, RunEstimate
from orchestration.domain.run import CallState, EventType
from orchestration.estimates import estimate_for
from orchestration.models import Call, Run
from orchestration.queue import announce_run
from workspaces.access import Actor
from workspaces.actions.reserve import QuotaExceeded, reserve
from workspaces.domain.quotas import MONEY, Hold, Offer
from workspaces.limits import limits_of
from workspaces.models import Workspace
from workspaces.refusals import refusing_early

__all__ = ["InvalidRun", "RunRequest", "start_run"]

LEFT_OUT: Final = "It was not asked: the quotas had no room for all the models that were named."


class _CopyWasFaster(Exception):
    """There is a run under the idempotency key by now."""


def start_run(*, actor: Actor, request: RunRequest, request_id: str = "") -> Run:
    """Write a queued run and wake a driver. Raises InvalidRun, QuotaExceeded or WorkspacePaused,
    and then nothing is stored and nothing is used up.

    The same idempotency key with the same request gives the same run, however many copies race;
    with another request it is an ``idempotency_conflict``.
    """
    digest = _digest(request)
    if request.idempotency_key:
        earlier = _earlier(actor, request.idempotency_key, digest)
        if earlier is not None:
            return earlier
    plan = plan_run(actor, request)
    estimate = estimate_plan(actor, plan)
    run = Run(
        workspace=actor.workspace,
        prompt=plan.prompt,
        pipeline=plan.pipeline.name,
        pipeline_version=plan.pipeline.version,
        settings=_settings(plan, estimate),
        synthesizer=plan.synthesizer,
        deadline_s=settings.RUN_DEADLINE_S,
        seed=secrets.token_hex(16),
        request_id=request_id,
        started_by=actor.name,
        idempotency_key=request.idempotency_key or None,
        body_sha256=digest,
        created_at=timezone.now(),
    )
    try:
        with refusing_early(actor.workspace, actor.counted_in(run.pipeline)):
            _write(run, actor, estimate)
    except (_CopyWasFaster, QuotaExceeded):
        # A copy of this request was faster; its run is the one, and may have had the last room.
        key = request.idempotency_key
        earlier = _earlier(actor, key, digest) if key else None
        if earlier is None:
            raise
        return earlier
    return run


def estimate_plan(actor: Actor, plan: RunPlan) -> RunEstimate:
    """What ``plan`` may use. Raises InvalidRun where a price must be known and is not."""
    estimate = estimate_for(
        actor.workspace,
        prompt=plan.prompt,
        models=plan.models,
        pipeline=plan.pipeline,
        synthesizer=plan.synthesizer,
    )
    unpriced = next((part for part in estimate.parts if part.priced_at is None), None)
    if unpriced is not None and (advice := _advice_on_prices(actor, plan)):
        raise InvalidRun(
            "unpriced_model",
            "models" if unpriced in estimate.calls else "pipeline",
            f"Nobody knows what {unpriced.model} costs, so it is not asked. {advice}",
        )
    return estimate


def _advice_on_prices(actor: Actor, plan: RunPlan) -> str:
    """What to do so that models without a price are asked; empty where they are."""
    if not actor.workspace.allow_unpriced:
        return "An operator can set its price, or allow models without one in this workspace."
    limits = limits_of(actor.workspace, actor.counted_in(plan.pipeline.name), timezone.now())
    if any(limit.dimension in MONEY for limit in limits):
        return (
            "There is a quota of money, which it would not count in. An operator can set its price."
        )
    return ""


def offers_of(estimate: RunEstimate, workspace: Workspace) -> list[Offer]:
    """What the workspace's quotas are asked for: the whole fan-out, and where it may be shrunk the
    first models of it, one fewer each time."""
    asked = len(estimate.calls)
    shrinks = workspace.on_excess == Workspace.OnExcess.SHRINK
    widths = range(asked, 0, -1) if shrinks else (asked,)
    return [
        Offer(width, tuple(Hold(*hold) for hold in estimate.narrowed(width).holds()))
        for width in widths
    ]


def _settings(plan: RunPlan, estimate: RunEstimate) -> dict[str, Any]:
    synthesizer_price = estimate.synthesis and estimate.synthesis.priced_at
    return {
        "policy": plan.pipeline.policy,
        "titles": plan.titles,
        "cache": plan.cache,
        # What the leases are for: a setting that is raised meanwhile is not this run's.
        "max_tokens": {ask.name: ask.max_tokens for ask in estimate.plan.calls},
        "synthesizer_price": synthesizer_price and synthesizer_price.to_json(),
    }


@transaction.atomic
def _write(run: Run, actor: Actor, estimate: RunEstimate) -> None:
    offers = offers_of(estimate, run.workspace)
    admission = reserve(
        workspace=run.workspace,
        subject=run.pk,
        api_key=actor.api_key,
        pipeline=run.pipeline,
        offers=offers,
    )
    # Seen here, under the workspace's lock, which every copy takes. Were it left to the index, an
    # insert would wait for whoever is writing the earlier run, who may be waiting for this lock.
    if run.idempotency_key and _under_key(run.workspace, run.idempotency_key).exists():
        raise _CopyWasFaster
    # By the same clock as the reservation: around midnight both are of one day, or sums disagree.
    run.created_at = admission.reservation.created_at
    run.save(force_insert=True)
    width = offers[admission.offer].width
    asked, left_out = estimate.calls[:width], estimate.calls[width:]
    Call.objects.bulk_create(
        [*(_call(run, part) for part in asked), *(_skipped(run, part) for part in left_out)]
    )
    started = NewEvent(
        EventType.RUN_STARTED,
        0,
        {
            "pipeline": run.pipeline,
            "version": run.pipeline_version,
            "policy": run.settings["policy"],
            "models": [part.model for part in estimate.calls],
            "labels": [part.name for part in estimate.calls],
            "deadline_s": run.deadline_s,
        },
    )
    events = [started, *(_skip(part) for part in left_out)]
    record_event(run_id=run.pk, fence=0, behind=0, batch=Batch(events=events), now=run.created_at)
    announce_run()


def _call(run: Run, part: Part) -> Call:
    return Call(
        run=run,
        label=part.name,
        model=part.model,
        provider=part.model.partition("/")[0],
        price=part.priced_at and part.priced_at.to_json(),
    )


def _skipped(run: Run, part: Part) -> Call:
    """A model that was named and is not asked, because the quotas had no room for it."""
    call = _call(run, part)
    row = row_of(ErrorKind.QUOTA_EXCEEDED)
    call.state, call.reason, call.message = CallState(row.state), row.kind, LEFT_OUT
    return call


def _skip(part: Part) -> NewEvent:
    row = row_of(ErrorKind.QUOTA_EXCEEDED)
    body = {
        "call": part.name,
        "state": row.state,
        "kind": row.kind,
        "message": LEFT_OUT,
        "retryable": row.retryable,
        "chars": 0,
    }
    return NewEvent(EventType.CALL_FAILED, 0, body)


def _digest(request: RunRequest) -> str:
    body = asdict(replace(request, idempotency_key=None))
    if request.cache is None:
        # The field is younger than runs that are stored, and sent again without it they are theirs.
        del body["cache"]
    # Lone surrogates are refused further down; here they must not stop the digest.
    return hashlib.sha256(json.dumps(body, default=str).encode()).hexdigest()


def _earlier(actor: Actor, key: str, digest: str) -> Run | None:
    earlier = _under_key(actor.workspace, key).first()
    if earlier is not None and earlier.body_sha256 != digest:
        raise InvalidRun(
            "idempotency_conflict",
            "idempotency_key",
            "This idempotency key was used for another request.",
        )
    return earlier


def _under_key(workspace: Workspace, key: str) -> QuerySet[Run]:
    return Run.objects.in_workspace(workspace).filter(idempotency_key=key)
