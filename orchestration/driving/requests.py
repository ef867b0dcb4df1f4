"""The requests a driver sends through the one door: the fan-out of calls, and single syntheses."""

from dataclasses import replace

from django.conf import settings
from msgspec import UNSET

from orchestration.domain import plain_prompts, prompts
from orchestration.domain.routing import LOCAL, RECORDED
from orchestration.domain.synthesis import StartSynthesis, State
from orchestration.driving.load import DrivenRun
from orchestration.fanout import wire
from orchestration.fanout.client import call_for
from orchestration.fanout.select import resolve_model

# Calls run for as long as their run may: a model that is slow but steady is the policy's to cut.
FIRST_TOKEN_MS = 60_000
STALL_MS = 30_000

# Who has room for less gets the plain prompts: rules and quoting alone would take half of it.
SMALL_PROMPT_CHARS = 8_000


def calls_fanout_id(run: DrivenRun) -> str:
    return f"{run.id}.{run.fence}"


def synthesis_fanout_id(run: DrivenRun, version: int) -> str:
    return f"{run.id}.{run.fence}.v{version}"


def calls_request(run: DrivenRun, labels: list[str], *, time_left_ms: int) -> wire.FanoutRequest:
    """All of ``labels`` as one fan-out. Raises RoutingError when a model is no longer offered."""
    question = (wire.Message("user", run.prompt),)
    timeouts = _timeouts(time_left_ms)
    calls = tuple(
        call_for(resolve_model(run.models[label]), label, question, timeouts=timeouts)
        for label in labels
    )
    return _fanout(calls_fanout_id(run), run, calls, time_left_ms)


def synthesis_request(
    run: DrivenRun, command: StartSynthesis, state: State, *, time_left_ms: int
) -> wire.FanoutRequest:
    """The synthesizer's call for ``command``: a fan-out of width one, its call named "v<N>"."""
    target = resolve_model(run.synthesizer)
    if target.provider == RECORDED:
        # A replayed run has a recording per version; "<run>/synthesis" stands for all of them.
        original = target.upstream_model.partition("/")[0]
        target = replace(target, upstream_model=f"{original}/v{command.version}")
    budget = settings.SYNTHESIS_PROMPT_CHARS or None
    small = target.provider == LOCAL or (budget is not None and budget < SMALL_PROMPT_CHARS)
    messages_for = plain_prompts.messages_for if small else prompts.messages_for
    prompt = messages_for(command, state, run.prompt, budget_chars=budget)
    limits = [limit for limit in (target.max_tokens, prompt.max_tokens) if limit is not None]
    params = wire.Params(
        max_tokens=min(limits) if limits else UNSET,
        # The same seed would write again what was of no use the first time.
        seed=UNSET if target.seed is None else target.seed + command.version,
        response_format=UNSET if prompt.response_format is None else prompt.response_format,
    )
    messages = [wire.Message(each["role"], each["content"]) for each in prompt.messages]  # type: ignore[arg-type]
    call = call_for(
        # The synthesizer's rules are the prompt's own; a persona's would compete with them.
        replace(target, system=None),
        f"v{command.version}",
        messages,
        params=params,
        timeouts=_timeouts(time_left_ms),
    )
    return _fanout(synthesis_fanout_id(run, command.version), run, (call,), time_left_ms)


def _timeouts(time_left_ms: int) -> wire.Timeouts:
    return wire.Timeouts(
        first_token=min(FIRST_TOKEN_MS, time_left_ms),
        stall=min(STALL_MS, time_left_ms),
        total=time_left_ms,
    )


def _fanout(
    fanout_id: str, run: DrivenRun, calls: tuple[wire.CallRequest, ...], time_left_ms: int
) -> wire.FanoutRequest:
    return wire.FanoutRequest(
        id=fanout_id, request_id=run.request_id or UNSET, deadline_ms=time_left_ms, calls=calls
    )
