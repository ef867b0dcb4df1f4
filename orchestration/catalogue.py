"""The models a page offers by name."""

from django.conf import settings

from orchestration.domain.routing import OfferedModel
from orchestration.fanout.select import models_problem, offered_models, resolve_model


def answering_models() -> tuple[OfferedModel, ...]:
    """What REX_MODELS names, in its order, then every other model that has a name of its own."""
    named = {model.id: model for model in offered_models() if not model.wildcard}
    titles = {model.provider: model.title for model in offered_models() if model.wildcard}
    chosen = [
        named.get(model_id) or _by_name(model_id, titles)
        for model_id in settings.MODELS
        if not models_problem(model_id)
    ]
    others = [model for model in named.values() if model not in chosen]
    return tuple(model for model in (*chosen, *others) if model.role == "answer")


def _by_name(model_id: str, titles: dict[str, str]) -> OfferedModel:
    target = resolve_model(model_id)
    where = titles.get(target.provider, target.provider)
    return OfferedModel(
        model_id, target.upstream_model, target.provider, f"{target.upstream_model} at {where}."
    )
