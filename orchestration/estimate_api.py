"""``POST /api/estimate``: what a run would use, before anything is asked or spent."""

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from orchestration.actions.plan_run import plan_run
from orchestration.actions.start_run import estimate_plan, offers_of
from orchestration.api import actor_who_reads, run_request_from
from orchestration.domain.estimate import Amount, Part, RunEstimate
from orchestration.quota_words import refusal_json, refusal_sentence
from workspaces.actions.reserve import WorkspacePaused
from workspaces.standing import Prospect, prospect_of


class Estimate(APIView):
    """Takes the body of ``POST /api/run`` and refuses what that would refuse, but for quotas: how
    they stand is part of the answer. Nothing is stored, reserved or counted."""

    def post(self, request: Request) -> Response:
        actor = actor_who_reads(request)
        # A key would be about a run, and there is none.
        plan = plan_run(actor, run_request_from(dict(request.data), idempotency_key=None))
        estimate = estimate_plan(actor, plan)
        if actor.workspace.paused_at is not None:
            raise WorkspacePaused(actor.workspace.paused_reason)
        offers = offers_of(estimate, actor.workspace)
        prospect = prospect_of(actor.workspace, actor.counted_in(plan.pipeline.name), offers)
        width = 0 if prospect.offer is None else offers[prospect.offer].width
        return Response(
            {"pipeline": plan.pipeline.name, **_estimate_json(estimate)}
            | {"quotas": _prospect_json(prospect, width)},
            headers={"Cache-Control": "no-store"},
        )


def _estimate_json(estimate: RunEstimate) -> dict[str, Any]:
    """Tokens are input and output together; a cost is null where a price is not known."""
    synthesis = estimate.synthesis
    return {
        "low": _amount_json(estimate.low),
        "expected": _amount_json(estimate.expected),
        "worst": _amount_json(estimate.worst),
        "calls": [{"call": part.name, **_part_json(part)} for part in estimate.calls],
        "synthesis": None if synthesis is None else _part_json(synthesis),
    }


def _part_json(part: Part) -> dict[str, Any]:
    return {
        "model": part.model,
        "price": part.priced_at and part.priced_at.to_json(),
        "low": _amount_json(part.low),
        "expected": _amount_json(part.expected),
        "worst": _amount_json(part.worst),
    }


def _amount_json(amount: Amount) -> dict[str, int | None]:
    return {"tokens": amount.tokens, "cost_micro_usd": amount.cost_micro_usd}


def _prospect_json(prospect: Prospect, width: int) -> dict[str, Any]:
    """``width`` is how many of the models would be asked; 0 where the run would be refused."""
    refusal = prospect.refusal
    return {
        "fits": refusal is None,
        "width": width,
        "detail": "" if refusal is None else refusal_sentence(refusal),
        "refusal": None if refusal is None else refusal_json(refusal),
    }
