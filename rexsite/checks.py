"""Wrong combinations of settings fail ``manage.py check`` instead of a run at night."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from orchestration.fanout.select import models_problem


@register()
def models_can_be_reached(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Every default model and the synthesizer must map to a configured provider."""
    found: list[CheckMessage] = []
    named = [("REX_MODELS", model) for model in settings.MODELS]
    for setting, model in (*named, ("REX_SYNTHESIZER", settings.SYNTHESIZER)):
        problem = models_problem(model)
        if problem:
            found.append(Error(problem, hint=f"See {setting}.", id="rex.E001"))
    if len(settings.MODELS) > settings.MAX_MODELS:
        found.append(
            Error("REX_MODELS names more models than REX_MAX_MODELS allows.", id="rex.E002")
        )
    return found


@register(deploy=True)
def debug_is_off(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    if settings.DEBUG:
        return [Warning("REX_DEBUG is on: its pages show settings to anyone.", id="rex.W001")]
    return []


@register(deploy=True)
def proxies_are_named(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    if settings.BEHIND_HTTPS and not settings.TRUSTED_PROXIES:
        return [
            Warning(
                "REX_BEHIND_HTTPS is on and REX_TRUSTED_PROXIES names no proxy: everybody who "
                "signs in seems to come from one address, so anyone can lock a name for a while.",
                id="rex.W002",
            )
        ]
    return []
