"""Accept a question: check it whole, then write the run, its calls and its first fact at once."""

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass, replace
from typing import Final
from unicodedata import category
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from orchestration.actions.record_event import Batch, NewEvent, record_event
from orchestration.domain.pipelines import (
    DEFAULT_PIPELINE,
    Pipeline,
    UnknownPipeline,
    find_pipeline,
)
from orchestration.domain.routing import RECORDED, RoutingError
from orchestration.domain.run import CacheWish, EventType, label_of
from orchestration.fanout.select import resolve_model
from orchestration.models import Call, Run
from orchestration.queue import announce_run
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


def start_run(*, actor: Actor, request: RunRequest, request_id: str = "") -> Run:
    """Write a queued run and wake a driver. Raises InvalidRun, and then nothing is stored.

    The same idempotency key with the same request gives the same run, however many copies race;
    with another request it is an ``idempotency_conflict``.
    """
    digest = _digest(request)
    if request.idempotency_key:
        earlier = _earlier(actor, request.idempotency_key, digest)
        if earlier is not None:
            return earlier
    original = _original(actor, request.replay_of, request) if request.replay_of else None
    pipeline = _checked_pipeline(original.pipeline if original else request.pipeline)
    prompt = original.prompt if original else _checked_prompt(request.prompt or "")
    models = (
        _recorded_models(original) if original else _checked_models(actor, request.models, pipeline)
    )
    synthesizer = f"{RECORDED}/{original.pk}/{SYNTHESIS}" if original else settings.SYNTHESIZER
    run = Run(
        workspace=actor.workspace,
        prompt=prompt,
        pipeline=pipeline.name,
        pipeline_version=pipeline.version,
        settings={
            "policy": pipeline.policy,
            "titles": _titles(actor, [*models, synthesizer]),
            "cache": _checked_cache(request.cache),
        },
        synthesizer=synthesizer,
        deadline_s=settings.RUN_DEADLINE_S,
        seed=secrets.token_hex(16),
        request_id=request_id,
        started_by=actor.name,
        idempotency_key=request.idempotency_key or None,
        body_sha256=digest,
        created_at=timezone.now(),
    )
    try:
        _write(run, models)
    except IntegrityError:
        # A copy of this request was faster; its run is the one.
        earlier = _earlier(actor, request.idempotency_key or "", digest)
        if earlier is None:
            raise
        return earlier
    return run


@transaction.atomic
def _write(run: Run, models: tuple[str, ...]) -> None:
    run.save(force_insert=True)
    labels = [label_of(position) for position in range(len(models))]
    Call.objects.bulk_create(
        Call(run=run, label=label, model=model, provider=model.partition("/")[0])
        for label, model in zip(labels, models, strict=True)
    )
    started = NewEvent(
        EventType.RUN_STARTED,
        0,
        {
            "pipeline": run.pipeline,
            "version": run.pipeline_version,
            "policy": run.settings["policy"],
            "models": list(models),
            "labels": labels,
            "deadline_s": run.deadline_s,
        },
    )
    record_event(
        run_id=run.pk, fence=0, behind=0, batch=Batch(events=[started]), now=run.created_at
    )
    announce_run()


def _digest(request: RunRequest) -> str:
    body = asdict(replace(request, idempotency_key=None))
    if request.cache is None:
        # The field is younger than runs that are stored, and sent again without it they are theirs.
        del body["cache"]
    # Lone surrogates are refused further down; here they must not stop the digest.
    return hashlib.sha256(json.dumps(body, default=str).encode()).hexdigest()


def _earlier(actor: Actor, key: str, digest: str) -> Run | None:
    earlier = Run.objects.in_workspace(actor.workspace).filter(idempotency_key=key).first()
    if earlier is not None and earlier.body_sha256 != digest:
        raise InvalidRun(
            "idempotency_conflict",
            "idempotency_key",
            "This idempotency key was used for another request.",
        )
    return earlier


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
    chosen = settings.MODELS[:most] if models is None else models
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
