"""Runs that have ended, written as rows: what they used is what a test is about."""

from datetime import UTC, datetime
from typing import Any

from orchestration.domain.run import RunStatus
from orchestration.models import Call, Run, Synthesis
from workspaces.models import Workspace

# Micro-dollars for a million tokens: $1 in, $4 out, a quarter of the first where it was known.
PRICE = {"version": "test", "input": 1_000_000, "output": 4_000_000, "cached_input": 250_000}

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def call(model: str = "openai/small", **fields: Any) -> dict[str, Any]:
    """A call that is done, of 1,000 tokens in and 100 out: $0.0014."""
    return {
        "model": model,
        "state": "done",
        "input_tokens": 1_000,
        "output_tokens": 100,
        "cost_micro_usd": 1_400,
        "price": PRICE,
        "first_token_ms": 300,
        "duration_ms": 2_000,
        **fields,
    }


def cached(model: str = "openai/small", **fields: Any) -> dict[str, Any]:
    """The same answer out of the cache."""
    return call(model, state="cached", cost_micro_usd=0, cached_age_s=60, **fields)


def unpriced(model: str = "openai/new", **fields: Any) -> dict[str, Any]:
    return call(model, cost_micro_usd=None, price=None, **fields)


def failed(model: str = "openai/small", reason: str = "rate_limited", **fields: Any) -> Any:
    """A call that never began to answer, and so used nothing."""
    nothing = {"input_tokens": 0, "output_tokens": 0, "cost_micro_usd": None}
    return call(model, state="failed", reason=reason, first_token_ms=None, **nothing, **fields)


def draft(model: str = "openai/editor", **fields: Any) -> dict[str, Any]:
    """A draft of 3,000 tokens in and 200 out: $0.0038."""
    return {
        "model": model,
        "state": "applied",
        "input_tokens": 3_000,
        "output_tokens": 200,
        "cost_micro_usd": 3_800,
        "price": PRICE,
        "first_token_ms": 200,
        "duration_ms": 1_500,
        **fields,
    }


def used_run(
    workspace: Workspace,
    *calls: dict[str, Any],
    drafts: tuple[dict[str, Any], ...] = (),
    at: datetime = NOON,
    **fields: Any,
) -> Run:
    """A run that was started at ``at`` and made these calls and drafts."""
    run = Run.objects.create(
        **{
            "workspace": workspace,
            "prompt": "How do lists and tuples differ?",
            "pipeline": "synthesis",
            "pipeline_version": 1,
            "settings": {"policy": "balanced"},
            "synthesizer": "openai/editor",
            "deadline_s": 180,
            "started_by": "alice",
            "status": RunStatus.DONE,
            "created_at": at,
            "ended_at": at,
            "duration_ms": 4_000,
            "ttfs_ms": 900,
            **fields,
        }
    )
    Call.objects.bulk_create(
        Call(run=run, label=chr(ord("A") + n), provider=each["model"].partition("/")[0], **each)
        for n, each in enumerate(calls)
    )
    Synthesis.objects.bulk_create(
        Synthesis(
            run=run, version=n, base_version=n - 1, kind="draft", trigger="quorum",
            started_ms=900, **each,
        )
        for n, each in enumerate(drafts, 1)
    )  # fmt: skip
    return run
