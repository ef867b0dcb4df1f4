"""Check a question whole: what a run of it would be, or why there can be none. Writes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from unicodedata import category
from uuid import UUID

from django.conf import settings

from orchestration.domain.pipelines import (
    DEFAULT_PIPELINE,
    Pipeline,
    UnknownPipeline,
    find_pipeline,
)
from orchestration.domain.routing import RECORDED, RoutingError
from orchestration.domain.run import CacheWish
from orchestration.fanout.select import resolve_model
from orchestration.models import Call, Run
from orchestration.pauses import pause_of, pauses, unpaused
from workspaces.access import Actor

# The stream of a recording that stands for whichever version is being written.
SYNTHESIS: Final = "synthesis"

_UNSEEN: Final = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp", "Mn", "Me"})
# Letters and a symbol that are drawn as nothing: Hangul fillers, and the empty Braille pattern.
_FILLERS: Final = "\u115f\u1160\u3164\uffa0\u2800"


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a caller asks for. None means the default; a model named twice is asked twice.

    ``replay_of`` names a stored run of the same workspace whose recorded answers are played again
    with their real pacing, at no cost; prompt, pipeline and models are that run's and must be None.
    ``cache`` is a CacheWish, "use" unless given; a replay has nothing to wish for.
    """

    prompt: str | None = None
    pipeline: str | None = None
    models: tuple[str, ...] | None = None
    replay_of: UUID | None = None
    cache: str | None = None
    idempotency_key: str | None = None


class InvalidRun(Exception):
    """The request cannot become a run: ``code`` of docs/errors.md, ``field``, and a sentence."""

    def __init__(self, code: str, field: str, message: str) -> None:
        super().__init__(message)
        self.code, self.field, self.message = code, field, message


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A run that may be started, quotas and prices permitting. ``models`` in the order of their
    labels; ``titles`` of those whose id says nothing to people."""

    prompt: str
    pipeline: Pipeline
    models: tuple[str, ...]
    synthesizer: str
    titles: dict[str, str]
    cache: CacheWish


def plan_run(actor: Actor, request: RunRequest) -> RunPlan:
    """What ``request`` asks for, with what it leaves open filled in. Raises InvalidRun."""
    original = _original(actor, request.replay_of, request) if request.replay_of else None
    pipeline = _checked_pipeline(original.pipeline if original else request.pipeline)
    prompt = original.prompt if original else _checked_prompt(request.prompt or "")
    models = (
        _recorded_models(original) if original else _checked_models(actor, request.models, pipeline)
    )
    synthesizer = f"{RECORDED}/{original.pk}/{SYNTHESIS}" if original else settings.SYNTHESIZER
    _check_pauses(models, synthesizer)
    return RunPlan(
        prompt=prompt,
        pipeline=pipeline,
        models=models,
        synthesizer=synthesizer,
        titles=_titles(actor, [*models, synthesizer]),
        cache=_checked_cache(request.cache),
    )


def _original(actor: Actor, run_id: UUID, request: RunRequest) -> Run:
    for field in ("prompt", "pipeline", "models", "cache"):
        if getattr(request, field) is not None:
            raise InvalidRun(
                "replay_takes_nothing_else", field, f"A replay has the {field} of its run."
            )
    original = Run.objects.in_workspace(actor.workspace).filter(pk=run_id).first()
    if original is None:
        raise InvalidRun("unknown_run", "replay_of", "There is no such run to replay.")
    if original.ended_at is None:
        raise InvalidRun("run_not_ended", "replay_of", "Only a run that has ended can be replayed.")
    return original


def _recorded_models(original: Run) -> tuple[str, ...]:
    return tuple(
        f"{RECORDED}/{original.pk}/{label}"
        for label in original.calls.values_list("label", flat=True)
    )


def _titles(actor: Actor, models: list[str]) -> dict[str, str]:
    """What people read instead of the id of a recording: the model that gave the answer."""
    titles = {}
    for model in models:
        provider, _, recording = model.partition("/")
        if provider != RECORDED:
            continue
        run_id, _, stream = recording.partition("/")
        run = Run.objects.in_workspace(actor.workspace).get(pk=UUID(run_id))
        played = run.synthesizer if stream == SYNTHESIS else run.calls.get(label=stream).model
        titles[model] = run.title_of(played).removesuffix(", recorded") + ", recorded"
    return titles


def _checked_prompt(prompt: str) -> str:
    if len(prompt) > settings.MAX_PROMPT_CHARS:
        raise InvalidRun(
            "prompt_too_long",
            "prompt",
            f"The prompt has {len(prompt):,} characters; "
            f"at most {settings.MAX_PROMPT_CHARS:,} are taken.",
        )
    check_text("prompt", prompt)
    if not any(map(_is_seen, prompt)):
        raise InvalidRun("empty_prompt", "prompt", "Write a question first.")
    return prompt


def _is_seen(char: str) -> bool:
    """Whether a character shows by itself: no space, no control or format, no mark on another."""
    return category(char) not in _UNSEEN and char not in _FILLERS


def check_text(field: str, text: str) -> None:
    """Refuse what cannot be stored or sent as UTF-8 everywhere: NUL and lone surrogates."""
    if "\x00" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise InvalidRun("invalid_text", field, "The text holds a NUL or half of a surrogate pair.")


def _checked_cache(wish: str | None) -> CacheWish:
    try:
        return CacheWish(CacheWish.USE if wish is None else wish)
    except ValueError:
        raise InvalidRun(
            "unknown_cache", "cache", f"cache takes one of: {', '.join(CacheWish)}."
        ) from None


def _checked_pipeline(name: str | None) -> Pipeline:
    try:
        return find_pipeline(DEFAULT_PIPELINE if name is None else name)
    except UnknownPipeline as error:
        raise InvalidRun(
            "unknown_pipeline",
            "pipeline",
            f"There is no such pipeline. Known: {', '.join(error.known)}.",
        ) from None


def _checked_models(
    actor: Actor, models: tuple[str, ...] | None, pipeline: Pipeline
) -> tuple[str, ...]:
    most = min(settings.MAX_MODELS, pipeline.max_models or settings.MAX_MODELS)
    if models is None:
        # Nobody named them, so nobody misses those that are paused.
        chosen = unpaused(settings.MODELS, pauses())[:most]
    else:
        chosen = models
    if not chosen:
        raise InvalidRun("no_models", "models", "Choose at least one model.")
    if len(chosen) > most:
        raise InvalidRun(
            "too_many_models",
            "models",
            f"{len(chosen)} models were named; the {pipeline.name} pipeline takes at most {most}.",
        )
    for model in chosen:
        check_text("models", model)
        try:
            target = resolve_model(model)
        except RoutingError as error:
            raise InvalidRun(error.code, "models", str(error)) from None
        if target.provider == RECORDED and not _is_recorded(actor, target.upstream_model):
            # The same words for absent and foreign: a recording is as private as its run.
            raise InvalidRun("unknown_model", "models", "There is no such recorded answer.")
    return chosen


def _is_recorded(actor: Actor, name: str) -> bool:
    run_id, _, label = name.partition("/")
    try:
        calls = Call.objects.filter(run__workspace=actor.workspace, run_id=UUID(run_id))
    except ValueError:
        return False
    return calls.filter(label=label, run__ended_at__isnull=False).exists()


def _check_pauses(models: Sequence[str], synthesizer: str) -> None:
    paused = pauses()
    # Of one answer there is no synthesis to write.
    asked = (*models, synthesizer) if len(models) > 1 else models
    for model in asked:
        reason = pause_of(model, paused)
        if reason is None:
            continue
        what = model if model in models else f"{model}, which writes the synthesis,"
        raise InvalidRun(
            "model_paused",
            "models" if model in models else "pipeline",
            f"{what} is paused: an operator does not let it be asked now. {reason}".rstrip(),
        )
