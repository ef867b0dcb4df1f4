"""The typed reader behind ``settings.py``: every setting is read once, through here.

A value comes from ``NAME``, or from the file named by ``NAME_FILE`` (how Docker and Kubernetes hand
over secrets). A value of the wrong form stops the start with a sentence that names the setting and
what it takes, and never repeats the value: it may be a secret. Each read is remembered, so
``docs/settings.md`` can be checked against the code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})


@dataclass(frozen=True, slots=True)
class Setting:
    """One documented setting: its name, its kind in words, its default as text, and its help."""

    name: str
    kind: str
    default: str
    help: str


class Env:
    """Reads settings out of ``source``; raises ImproperlyConfigured where one is not usable."""

    def __init__(self, source: Mapping[str, str]) -> None:
        self._source = source
        self.settings: list[Setting] = []

    def text(self, name: str, default: str, help: str) -> str:
        return self._read(Setting(name, "text", default, help), default)

    def choice(self, name: str, options: tuple[str, ...], default: str, help: str) -> str:
        value = self._read(Setting(name, " or ".join(options), default, help), default)
        if value not in options:
            raise ImproperlyConfigured(f"{name} takes one of: {', '.join(options)}.")
        return value

    def integer(
        self, name: str, default: int, help: str, *, minimum: int = 0, maximum: int = 10**12 - 1
    ) -> int:
        value = self._read(Setting(name, "whole number", str(default), help), str(default))
        # Twelve digits are more than any setting means, and fewer than Python refuses to convert.
        whole = value.isascii() and value.isdigit() and len(value) <= 12
        if not whole or not minimum <= int(value) <= maximum:
            most = f" and at most {maximum}" if maximum < 10**12 - 1 else ""
            raise ImproperlyConfigured(f"{name} takes a whole number of at least {minimum}{most}.")
        return int(value)

    def flag(self, name: str, default: bool, help: str) -> bool:
        shown = "1" if default else "0"
        value = self._read(Setting(name, "1 or 0", shown, help), shown).lower()
        if value in _TRUE:
            return True
        if value in _FALSE:
            return False
        raise ImproperlyConfigured(f"{name} takes 1 or 0.")

    def names(self, name: str, default: str, help: str) -> tuple[str, ...]:
        value = self._read(Setting(name, "comma-separated list", default, help), default)
        return tuple(part.strip() for part in value.split(",") if part.strip())

    def secret(self, name: str, help: str) -> str:
        """A secret without a default: a start without it fails rather than invent one."""
        value = self._read(Setting(name, "secret", "", help), "")
        if not value:
            raise ImproperlyConfigured(
                f"{name} is not set. Set it, or {name}_FILE to a file that holds it; "
                "./rex up makes one for you."
            )
        return value

    def _read(self, setting: Setting, default: str) -> str:
        self.settings.append(setting)
        file = self._source.get(f"{setting.name}_FILE")
        if file is None:
            return self._source.get(setting.name, default)
        if setting.name in self._source:
            raise ImproperlyConfigured(
                f"{setting.name} and {setting.name}_FILE are both set; keep one."
            )
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise ImproperlyConfigured(
                f"{setting.name}_FILE names a file that cannot be read: {error.__class__.__name__}."
            ) from None
