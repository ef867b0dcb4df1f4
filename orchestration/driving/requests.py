"""The requests a driver sends through the one door: the fan-out of calls, and single syntheses.

Calls are tried again only while they have said nothing (``restart`` is false): a reader has seen
the text and the draft may be built on it, and both would lose it for an answer that may break off
again. Fallbacks and hedges are not asked for: a run asks the models somebody chose.

Every call has a limit to its answer, so that the most it can cost is known before it is sent.

Answers may come from the cache and go there. Syntheses bypass it: their prompts hold what the
answers had said at some moment, between fences of the run's own, so none is ever asked twice.
"""

import json
from collections import Counter
from dataclasses import replace
from typing import Final

from django.conf import settings
from msgspec import UNSET, UnsetType, to_builtins
from msgspec.structs import replace as with_fields

from orchestration.domain import plain_prompts, prompts
from orchestration.domain.cache_key import Question, cache_key
from orchestration.domain.estimate import Amount, PricedAt, synthesis_call_bound, token_bound
from orchestration.domain.routing import LOCAL, RECORDED, Target
from orchestration.domain.run import CacheWish
from orchestration.domain.synthesis import StartSynthesis, State
from orchestration.driving.load import DrivenRun
from orchestration.fanout import wire
from orchestration.fanout.client import call_for
from orchestration.fanout.output_limits import output_limit_of
from orchestration.fanout.select import address_of, resolve_model

# Calls run for as long as their run may: a model that is slow but steady is the policy's to cut.
# The fan-out's deadline is the run's. It is in no timeout: runs that share an answer get it by the
# timeouts of the one that came first, whose time would then end the others' too.
TIMEOUTS: Final = wire.Timeouts(first_token=60_000, stall=30_000, total=3_600_000)

# Who has room for less gets the plain prompts: rules and quoting alone would take half of it.
SMALL_PROMPT_CHARS = 8_000


def calls_fanout_id(run: DrivenRun) -> str:
    return f"{run.id}.{run.fence}"


def synthesis_fanout_id(run: DrivenRun, version: int) -> str:
    return f"{run.id}.{run.fence}.v{version}"


def calls_request(run: DrivenRun, labels: list[str], *, time_left_ms: int) -> wire.FanoutRequest:
    """All of ``labels`` as one fan-out. Raises RoutingError when a model is no longer offered."""
    question = (wire.Message("user", run.prompt),)
    candidates = _candidates(run)
    calls: list[wire.CallRequest] = []
    for label in labels:
        target = resolve_model(run.models[label])
        limit = output_limit_of(target)
        params = wire.Params(max_tokens=min(limit, run.max_tokens.get(label, limit)))
        call = call_for(target, label, question, params=params, timeouts=TIMEOUTS)
        cache = _cache_use(run, call, candidates[label])
        calls.append(with_fields(call, retry=_retry(target), cache=cache))
    return _fanout(calls_fanout_id(run), run, tuple(calls), time_left_ms)


def _retry(target: Target) -> wire.Retry | UnsetType:
    """What is played from a recording ends as it did then, also where it failed."""
    if target.provider == RECORDED:
        return UNSET
    return wire.Retry(attempts=settings.CALL_ATTEMPTS, restart=False)


def _candidates(run: DrivenRun) -> dict[str, int]:
    """How many calls before it ask the same model, by label."""
    seen: Counter[str] = Counter()
    candidates = {}
    for label in sorted(run.models):
        candidates[label] = seen[run.models[label]]
        seen[run.models[label]] += 1
    return candidates


def _cache_use(run: DrivenRun, call: wire.CallRequest, candidate: int) -> wire.CacheUse | UnsetType:
    wished = settings.CACHE_ENABLED and run.cache is not CacheWish.OFF
    if not wished or call.provider == RECORDED:
        return UNSET
    question = Question(
        workspace=str(run.workspace_id),
        pipeline=run.pipeline,
        pipeline_version=run.pipeline_version,
        provider=call.provider,
        address=address_of(call.provider),
        model=call.model,
        messages=to_builtins(call.messages),
        params={} if call.params is UNSET else to_builtins(call.params),
        candidate=candidate,
        thoughts=call.thoughts is True,
    )
    # Signed for this purpose alone: the server's key also signs sessions.
    secret = f"rex.cache:{settings.SECRET_KEY}".encode()
    key = cache_key(secret, question)
    return wire.CacheUse(key, "write" if run.cache is CacheWish.REFRESH else "read_write")


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
    limit = output_limit_of(target)
    params = wire.Params(
        max_tokens=limit if prompt.max_tokens is None else min(limit, prompt.max_tokens),
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
        timeouts=TIMEOUTS,
    )
    call = with_fields(call, retry=_retry(target))
    return _fanout(synthesis_fanout_id(run, command.version), run, (call,), time_left_ms)


def most_of(request: wire.FanoutRequest, priced: PricedAt | None) -> Amount:
    """The most that the draft ``request`` asks for may use, at one attempt."""
    (call,) = request.calls
    params = wire.Params() if call.params is UNSET else call.params
    read = 0
    for message in call.messages:
        assert isinstance(message.content, str), "prompts of the synthesis are text"
        read += token_bound(message.content)
    if params.response_format is not UNSET:
        read += token_bound(json.dumps(params.response_format))
    written = 0 if params.max_tokens is UNSET else params.max_tokens
    return synthesis_call_bound(read, written, priced)


def _fanout(
    fanout_id: str, run: DrivenRun, calls: tuple[wire.CallRequest, ...], time_left_ms: int
) -> wire.FanoutRequest:
    return wire.FanoutRequest(
        id=fanout_id,
        request_id=run.request_id or UNSET,
        workspace=str(run.workspace_id),
        deadline_ms=time_left_ms,
        calls=calls,
    )
