"""The estimate of a run: its plan, with the prices in force and how long the models' answers are.

Reads; changes nothing. The first estimate of a process reads LiteLLM's table, which takes a moment:
not something to do while a row is locked.
"""

from collections import defaultdict
from collections.abc import Sequence
from math import ceil
from statistics import median

from django.conf import settings

from orchestration.domain.cost import FREE
from orchestration.domain.estimate import (
    SYNTHESIS,
    Ask,
    Plan,
    PricedAt,
    RunEstimate,
    estimate_run,
    token_bound,
)
from orchestration.domain.pipelines import Pipeline
from orchestration.domain.plain_prompts import BUDGET_CHARS
from orchestration.domain.policies import from_mapping
from orchestration.domain.routing import LOCAL, RECORDED, RoutingError
from orchestration.domain.run import CallState, label_of
from orchestration.fanout.output_limits import output_limit_of
from orchestration.fanout.select import resolve_model
from orchestration.models import Call, Run
from orchestration.price_book import prices_of
from workspaces.models import Workspace

# How far back the usual length of an answer is looked for.
_LATEST_RUNS = 50


def estimate_for(
    workspace: Workspace, prompt: str, models: Sequence[str], pipeline: Pipeline, synthesizer: str
) -> RunEstimate:
    """What a run of ``workspace`` would use. Two queries. Raises RoutingError where one of
    ``models`` cannot be asked; a ``synthesizer`` that cannot be asked is never paid."""
    prices = prices_of([*models, synthesizer])
    usual = _usual_tokens(workspace, models)
    question = token_bound(prompt)
    calls = tuple(
        _ask(label_of(position), model, question, prices[model], usual.get(model))
        for position, model in enumerate(models)
    )
    writer = _synthesizer(synthesizer, question, prices[synthesizer])
    policy = from_mapping({"preset": pipeline.policy})
    return estimate_run(Plan(calls, writer, policy, _synthesis_chars(synthesizer)))


def _ask(
    name: str, model: str, question: int, priced_at: PricedAt | None, usual_tokens: int | None
) -> Ask:
    target = resolve_model(model)
    return Ask(
        name=name,
        model=model,
        priced_at=priced_at,
        prompt_bound=question + token_bound(target.system or ""),
        max_tokens=output_limit_of(target),
        usual_tokens=usual_tokens,
        uses_nothing=target.provider == RECORDED,
    )


def _synthesizer(model: str, question: int, priced_at: PricedAt | None) -> Ask:
    """Its persona's rules are left out: a synthesis is asked for by the rules of its prompt."""
    try:
        target = resolve_model(model)
    except RoutingError:
        free = PricedAt(FREE, "free")
        return Ask(SYNTHESIS, model, free, question, max_tokens=1, uses_nothing=True)
    return Ask(
        name=SYNTHESIS,
        model=model,
        priced_at=priced_at,
        prompt_bound=question,
        max_tokens=output_limit_of(target),
        uses_nothing=target.provider == RECORDED,
    )


def _synthesis_chars(synthesizer: str) -> int | None:
    """The longest prompt of the synthesizer; None where only the answers' length bounds it."""
    limits = [settings.SYNTHESIS_PROMPT_CHARS] if settings.SYNTHESIS_PROMPT_CHARS else []
    if synthesizer.partition("/")[0] == LOCAL:
        limits.append(BUDGET_CHARS)
    return min(limits, default=None)


def _usual_tokens(workspace: Workspace, models: Sequence[str]) -> dict[str, int]:
    """Median output tokens of each model's whole answers in the latest runs; of a model that gave
    none there is no entry. An answer out of the cache counts with the tokens it was made of."""
    latest = Run.objects.in_workspace(workspace).order_by("-created_at", "-pk").values("pk")
    answers = Call.objects.filter(
        run__in=latest[:_LATEST_RUNS],
        model__in=set(models),
        state__in=(CallState.DONE, CallState.CACHED),
        output_tokens__gt=0,
    )
    counted = defaultdict(list)
    for model, tokens in answers.values_list("model", "output_tokens"):
        counted[model].append(tokens)
    return {model: ceil(median(tokens)) for model, tokens in counted.items()}
