"""Reads from the environment which providers are configured: the same table and names as the Go
service (go/fanout-service/api/providers.json)."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from orchestration.domain.routing import LOCAL, Provider

PROVIDERS_FILE = Path(__file__).resolve().parents[2] / "go/fanout-service/api/providers.json"
DEFAULT_LOCAL_MODEL = "smollm2-135m"

_CUSTOM = re.compile(r"REX_PROVIDER_([A-Z][A-Z0-9_]{0,31})_BASE_URL\Z")


Wire = Literal["openai", "anthropic", "gemini"]


class ProviderSettingsError(Exception):
    """A provider setting that cannot be used; the sentence names it and never repeats its value."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A provider and how to reach it. ``base_url`` ends before ``/chat/completions``, ``/messages``
    or ``/models``, whichever its wire format has. A provider may have several keys: the next is for
    when it refuses one."""

    provider: Provider
    base_url: str
    api_keys: tuple[str, ...] = field(default=(), repr=False)


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    title: str
    base_url: str | None
    base_url_env: str
    api_key_env: str | None
    key_required: bool
    wire: Wire
    litellm: str
    quirks: dict[str, str | bool]


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    v: int
    about: str
    providers: list[_Row]


# Made with the module: threads that all decode a type for the first time crash the interpreter
# (msgspec 0.22, seen with 63 first requests at once).
_decoder = msgspec.json.Decoder(_Table)


@cache
def _built_in() -> tuple[_Row, ...]:
    return tuple(_decoder.decode(PROVIDERS_FILE.read_bytes()).providers)


@cache
def endpoints() -> Mapping[str, Endpoint]:
    """The providers of this process, read from its environment once."""
    return MappingProxyType(read_endpoints(os.environ))


def read_endpoints(env: Mapping[str, str]) -> dict[str, Endpoint]:
    """Every provider by name, configured or not, in the table's order and then the custom ones.

    Raises ProviderSettingsError where a setting cannot be used.
    """
    endpoints = {row.name: _endpoint(row, env) for row in _built_in()}
    for variable in sorted(env):
        named = _CUSTOM.match(variable)
        if not named or not env[variable].strip():
            continue
        name = named[1].lower()
        if name in endpoints:
            raise ProviderSettingsError(f"{variable} names a provider that Rex has built in.")
        wire = _wire(f"REX_PROVIDER_{named[1]}_WIRE", env)
        endpoints[name] = _endpoint(
            _Row(
                name=name,
                title=name,
                base_url=None,
                base_url_env=variable,
                api_key_env=f"REX_PROVIDER_{named[1]}_API_KEY",
                key_required=False,
                wire=wire,
                litellm=wire,
                quirks={},
            ),
            env,
            free=False,
        )
    return endpoints


def providers_of(endpoints: Mapping[str, Endpoint]) -> Mapping[str, Provider]:
    """What the domain may know of them: no address, no key."""
    return MappingProxyType({name: endpoint.provider for name, endpoint in endpoints.items()})


def _endpoint(row: _Row, env: Mapping[str, str], *, free: bool | None = None) -> Endpoint:
    base_url = (env.get(row.base_url_env, "").strip() or row.base_url or "").rstrip("/")
    if base_url and not _is_address(base_url):
        # The value is not repeated: people put keys into addresses.
        raise ProviderSettingsError(
            f"{row.base_url_env} takes an http or https address without user, query and fragment."
        )
    api_keys = _keys(row.api_key_env, env) if row.api_key_env else ()
    missing = ""
    if not base_url:
        missing = row.base_url_env
    elif row.key_required and not api_keys and row.api_key_env:
        missing = row.api_key_env
    provider = Provider(
        name=row.name,
        title=row.title,
        litellm=row.litellm,
        missing_env=missing,
        served_model=_local_model(env) if row.name == LOCAL else None,
        free=not row.key_required if free is None else free,
        quirks=MappingProxyType(row.quirks),
    )
    return Endpoint(provider, base_url, api_keys)


def _wire(name: str, env: Mapping[str, str]) -> Wire:
    match env.get(name, "").strip():
        case "" | "openai":
            return "openai"
        case "anthropic":
            return "anthropic"
        case "gemini":
            return "gemini"
    raise ProviderSettingsError(f"{name} takes openai, anthropic or gemini.")


def _keys(name: str, env: Mapping[str, str]) -> tuple[str, ...]:
    """The keys of ``name``: a comma stands between them."""
    return tuple(key.strip() for key in _secret(name, env).split(",") if key.strip())


def _is_address(base_url: str) -> bool:
    try:
        parts = urlsplit(base_url)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and not (parts.username or parts.password or parts.query or parts.fragment)
        )
    except ValueError:
        return False


def _local_model(env: Mapping[str, str]) -> str:
    return env.get("REX_LOCAL_MODEL", "").strip() or DEFAULT_LOCAL_MODEL


def _secret(name: str, env: Mapping[str, str]) -> str:
    """The value of ``name``, or of the file ``<name>_FILE`` names; empty when neither is set."""
    value, file = env.get(name, "").strip(), env.get(f"{name}_FILE", "").strip()
    if value and file:
        raise ProviderSettingsError(f"{name} and {name}_FILE are both set; keep one.")
    if file:
        try:
            value = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ProviderSettingsError(
                f"{name}_FILE names a file that cannot be read: {type(error).__name__}."
            ) from None
    # Spaces may stand beside the commas between keys, and nowhere else.
    if any(not "!" <= c <= "~" for key in value.split(",") for c in key.strip()):
        raise ProviderSettingsError(f"{name} takes a key of printable ASCII without spaces.")
    return value
