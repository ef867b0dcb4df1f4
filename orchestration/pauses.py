"""Which models an operator has paused, and why."""

from collections.abc import Iterable, Mapping

from orchestration.models import PausedModel

Pauses = Mapping[str, str]
"""What is paused, a model id or ``provider/*``, and the operator's reason, which may be empty."""


def pauses() -> Pauses:
    """Those in force. One query."""
    return dict(PausedModel.objects.values_list("model", "reason"))


def pause_of(model: str, paused: Pauses) -> str | None:
    """Why ``model`` is paused, itself or with its provider; None where it is not."""
    of_all = f"{model.partition('/')[0]}/*"
    return next((paused[name] for name in (model, of_all) if name in paused), None)


def unpaused(models: Iterable[str], paused: Pauses) -> tuple[str, ...]:
    """Those of ``models`` that may be asked."""
    return tuple(model for model in models if pause_of(model, paused) is None)
