"""The one map from a model id to the provider that serves it; nothing else in Rex names providers.

A model id is ``<provider>/<the provider's own name of the model>``; that name may hold slashes of
its own. ``local`` is different: its ids name personas, several configurations of the one embedded
model. ``recorded/<run id>/<label>`` plays a stored answer again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final, Literal

LOCAL: Final = "local"
RECORDED: Final = "recorded"


class RoutingError(Exception):
    """A model id that leads nowhere; ``code`` is the API error code in docs/errors.md."""

    code = "unknown_model"


class UnknownModel(RoutingError):
    def __init__(self, model_id: str, close: Sequence[str]) -> None:
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        super().__init__(f"There is no model {model_id[:100]}.{hint}")
        self.close = tuple(close)


class ProviderNotConfigured(RoutingError):
    code = "provider_not_configured"

    def __init__(self, model_id: str, provider: "Provider") -> None:
        super().__init__(
            f"{model_id[:100]} needs {provider.title}, which is not configured: "
            f"set {provider.missing_env}."
        )
        self.env = provider.missing_env


@dataclass(frozen=True, slots=True)
class Provider:
    """A place where models are reached. Holds no secret.

    ``missing_env`` names the environment variable that is still to be set; empty when the provider
    is configured. ``litellm`` is its prefix in LiteLLM's model and price tables. ``served_model``:
    the one model it serves, where that is fixed. ``free``: it runs on the operator's own machines,
    so its tokens cost nothing. ``quirks``: how its endpoint differs from OpenAI's
    wire format (``max_tokens_param``, ``seed_param``, ``omit_stream_options``,
    ``close_connections``).
    """

    name: str
    title: str
    litellm: str
    missing_env: str = ""
    served_model: str | None = None
    free: bool = False
    quirks: Mapping[str, str | bool] = field(default_factory=dict)

    @property
    def configured(self) -> bool:
        return not self.missing_env


@dataclass(frozen=True, slots=True)
class Persona:
    """One way to run the embedded model. ``max_tokens`` makes the personas end at different times
    on a slow CPU, so that a synthesis of them has something to grow on."""

    name: str
    title: str
    description: str
    system: str
    temperature: float
    seed: int
    max_tokens: int


PERSONAS: Final = {
    persona.name: persona
    for persona in (
        Persona(
            "brisk",
            "Brisk",
            "The embedded model, in a few plain sentences.",
            "You are a helpful assistant. You answer briefly, in two or three short sentences.",
            temperature=0.2,
            seed=11,
            max_tokens=90,
        ),
        Persona(
            "plain",
            "Plain",
            "The embedded model, explaining in everyday words.",
            "You are a helpful assistant. You explain things in everyday words, in two short "
            "paragraphs with one concrete example.",
            temperature=0.5,
            seed=23,
            max_tokens=200,
        ),
        Persona(
            "thorough",
            "Thorough",
            "The embedded model, at length and in order.",
            "You are a careful teacher. You explain the main point first, then the reasons one by "
            "one as a numbered list, then limits and exceptions.",
            temperature=0.7,
            seed=37,
            max_tokens=380,
        ),
        Persona(
            "editor",
            "Editor",
            "The embedded model as the synthesizer: merges the answers of the others.",
            "You are an editor. You merge several answers into one: keep what they agree on, name "
            "what they disagree on, add nothing of your own.",
            temperature=0.1,
            seed=5,
            max_tokens=420,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a model id leads, and what goes with every call to it.

    ``system`` is a system message to put in front; the other fields are defaults a caller may
    override; None leaves them to the provider.
    """

    model_id: str
    provider: str
    upstream_model: str
    system: str | None = None
    temperature: float | None = None
    seed: int | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """A model one may ask. ``wildcard``: ``id`` is ``<provider>/*``, any name of the provider's."""

    id: str
    title: str
    provider: str
    description: str
    role: Literal["answer", "synthesis"] = "answer"
    wildcard: bool = False


def resolve(model_id: str, providers: Mapping[str, Provider]) -> Target:
    """Where ``model_id`` leads. Raises UnknownModel or ProviderNotConfigured."""
    name, _, upstream = model_id.partition("/")
    if name == RECORDED:
        return _resolve_recorded(model_id, upstream)
    provider = providers.get(name)
    if provider is None or not _is_model_name(upstream):
        raise UnknownModel(model_id, _close_to(model_id, providers))
    if not provider.configured:
        raise ProviderNotConfigured(model_id, provider)
    if name == LOCAL:
        return _resolve_local(model_id, upstream, provider, providers)
    return Target(model_id, name, upstream)


def _resolve_local(
    model_id: str, name: str, provider: Provider, providers: Mapping[str, Provider]
) -> Target:
    """A persona, or the embedded model itself under its own name."""
    served = provider.served_model or ""
    persona = PERSONAS.get(name)
    if persona is None:
        if name != served:
            raise UnknownModel(model_id, _close_to(model_id, providers))
        return Target(model_id, LOCAL, served)
    return Target(
        model_id,
        LOCAL,
        served,
        system=persona.system,
        temperature=persona.temperature,
        seed=persona.seed,
        max_tokens=persona.max_tokens,
    )


def _resolve_recorded(model_id: str, upstream: str) -> Target:
    run_id, _, label = upstream.partition("/")
    if not run_id or not label or not _is_model_name(upstream):
        raise UnknownModel(model_id, ())
    return Target(model_id, RECORDED, upstream)


def _is_model_name(name: str) -> bool:
    """Contract v2 takes 1 … 256 characters, no white space and no control characters."""
    return 0 < len(name) <= 256 and not any(c <= " " or c == "\x7f" for c in name)


def _close_to(model_id: str, providers: Mapping[str, Provider]) -> list[str]:
    known = [model.id for model in catalogue(providers) if not model.wildcard]
    close = get_close_matches(model_id[:256], known, n=2, cutoff=0.5)
    if close:
        return close
    name, _, upstream = model_id.partition("/")
    # Only what can be asked: a hint at a provider without a key would end in the next refusal.
    configured = [each.name for each in providers.values() if each.configured]
    named = get_close_matches(name[:64], configured, n=1, cutoff=0.6)
    if not named or named[0] in (name, LOCAL) or not _is_model_name(upstream):
        return []
    return [f"{named[0]}/{upstream}"]


def catalogue(providers: Mapping[str, Provider]) -> tuple[OfferedModel, ...]:
    """The models that can be asked now: the personas first, then one wildcard a provider."""
    offered: list[OfferedModel] = []
    for provider in providers.values():
        if not provider.configured:
            continue
        if provider.name == LOCAL:
            offered += [
                OfferedModel(
                    f"{LOCAL}/{persona.name}",
                    persona.title,
                    LOCAL,
                    persona.description,
                    role="synthesis" if persona.name == "editor" else "answer",
                )
                for persona in PERSONAS.values()
            ]
        else:
            offered.append(
                OfferedModel(
                    f"{provider.name}/*",
                    provider.title,
                    provider.name,
                    f"Any model of {provider.title}, by its own name: {provider.name}/<name>.",
                    wildcard=True,
                )
            )
    return tuple(offered)
