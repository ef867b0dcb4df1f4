"""What the driver reads: the run it drives, and what people asked of it meanwhile."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from orchestration.domain.estimate import SYNTHESIS, Amount, PricedAt
from orchestration.domain.policies import Policy, from_mapping
from orchestration.domain.run import CacheWish
from orchestration.facts import TimedFact, facts_of
from orchestration.models import Call, ModelCall, Run
from workspaces.models import Lease

_SPENT: Final = (
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "usage_estimated",
    "cost_micro_usd",
)


@dataclass(frozen=True, slots=True)
class StoredText:
    """A text as the rows have it, with when it arrived."""

    text: str
    pacing: list[list[int]]
    rev: int = 0


@dataclass(frozen=True, slots=True)
class DrivenRun:
    """A claimed run. ``max_tokens`` are the longest answers that are held for, by label; empty for
    a run from before that was kept. ``spent`` is `spent_by` of each stream; it and ``history`` are
    empty of calls unless another driver began it."""

    id: UUID
    workspace_id: UUID
    fence: int
    prompt: str
    pipeline: str
    pipeline_version: int
    policy: Policy
    cache: CacheWish
    synthesizer: str
    deadline_s: int
    created_at: datetime
    last_seq: int
    request_id: str
    models: dict[str, str]
    max_tokens: dict[str, int]
    prices: dict[str, PricedAt]
    pool: Amount | None
    history: list[TimedFact]
    texts: dict[str, StoredText]
    started: frozenset[str]
    ended: frozenset[str]
    spent: dict[str, dict[str, Any]]
    marks: dict[str, int]
    stop_requested: bool


class NotOurs(LookupError):
    """The run is not there under this fence: someone else was faster."""


def load_run(run_id: UUID, fence: int) -> DrivenRun:
    """The run as its driver needs it; raises NotOurs. Six queries."""
    run = (
        Run.objects.everywhere()
        .prefetch_related("calls", "events", "syntheses")
        .filter(pk=run_id, fence=fence)
        .first()
    )
    if run is None:
        raise NotOurs(str(run_id))
    calls = list(run.calls.all())
    versions = list(run.syntheses.all())
    texts = {call.label: StoredText(call.text, call.pacing, call.rev) for call in calls}
    texts |= {f"v{each.version}": StoredText(each.text, each.pacing) for each in versions}
    return DrivenRun(
        id=run.pk,
        workspace_id=run.workspace_id,
        fence=fence,
        prompt=run.prompt,
        pipeline=run.pipeline,
        pipeline_version=run.pipeline_version,
        policy=from_mapping({"preset": run.settings["policy"]}),
        # Runs accepted before there was a cache say nothing of it.
        cache=CacheWish(run.settings.get("cache", CacheWish.USE)),
        synthesizer=run.synthesizer,
        deadline_s=run.deadline_s,
        created_at=run.created_at,
        last_seq=run.last_seq,
        request_id=run.request_id,
        models={call.label: call.model for call in calls},
        max_tokens=run.settings.get("max_tokens", {}),
        prices=prices_of(run, calls),
        pool=_pool(run),
        history=facts_of(run),
        texts=texts,
        started=frozenset(call.label for call in calls if call.started_ms is not None),
        ended=frozenset(
            [call.label for call in calls if call.duration_ms is not None or call.reason]
            + [f"v{each.version}" for each in versions if each.state != "running"]
        ),
        spent={call.label: spent_by(call) for call in calls}
        | {f"v{each.version}": spent_by(each) for each in versions},
        stop_requested=run.stop_requested_at is not None,
        marks={
            name: value
            for name, value in (
                ("ttfs_ms", run.ttfs_ms),
                ("ttms_ms", run.ttms_ms),
                ("ttf_ms", run.ttf_ms),
            )
            if value is not None
        },
    )


def spent_by(part: ModelCall) -> dict[str, Any]:
    """What the attempts of a call or draft have used, as its row has it; empty where none was
    counted."""
    if not (part.input_tokens or part.output_tokens):
        return {}
    return {name: getattr(part, name) for name in _SPENT}


def _pool(run: Run) -> Amount | None:
    """The most the drafts may use: nothing, where none was foreseen. None where nothing is held:
    replays pay nothing, and a run may be from before there were reservations."""
    leases = Lease.objects.filter(reservation__subject=run.pk)
    bounds = {lease.name: Amount(lease.bound_tokens, lease.bound_micro_usd) for lease in leases}
    return bounds.get(SYNTHESIS, Amount(0, 0)) if bounds else None


def prices_of(run: Run, calls: list[Call]) -> dict[str, PricedAt]:
    """Model id → the price that was fixed for it; models nobody knows the price of are not in it,
    nor are those of runs from before prices were kept."""
    fixed = {call.model: call.price for call in calls}
    fixed[run.synthesizer] = run.settings.get("synthesizer_price") or fixed.get(run.synthesizer)
    return {model: PricedAt.from_json(price) for model, price in fixed.items() if price}


@dataclass(frozen=True, slots=True)
class Control:
    """What people have asked for: the whole run to stop, or some of its calls."""

    stop: bool
    calls: frozenset[str]


def control_of(run_id: UUID) -> Control:
    stop = Run.objects.everywhere().filter(pk=run_id, stop_requested_at__isnull=False).exists()
    calls = Call.objects.filter(run_id=run_id, stop_requested_at__isnull=False)
    return Control(stop, frozenset(calls.values_list("label", flat=True)))
