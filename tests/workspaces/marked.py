"""The strings of the code and the pages that are marked for translation."""

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from babel.messages.extract import extract
from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parents[2]
_KEYWORDS = {
    "_": None,
    "gettext": None,
    "gettext_lazy": None,
    "ngettext": (1, 2),
    "ngettext_lazy": (1, 2),
}
_PACKAGES = ("rexsite", "workspaces", "orchestration")


def marked_strings() -> Iterator[tuple[str, str | tuple[str, str]]]:
    """(place, string), or (place, (singular, plural)), of everything that is marked."""
    for package in _PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            # Elsewhere "_" is the name of what nobody needs.
            if re.search(r"^from django.utils.translation import", text, re.M):
                yield from _strings_of(path, text)
    for path in sorted((ROOT / "templates").rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        if re.search(r"{% (block)?translate", text):
            yield from _strings_of(path, templatize(text, origin=str(path)))


def _strings_of(path: Path, text: str) -> Iterator[tuple[str, str | tuple[str, str]]]:
    for line, found, _, _ in extract("python", BytesIO(text.encode()), keywords=_KEYWORDS):
        message = found if isinstance(found, str) else (str(found[0]), str(found[1]))
        yield f"{path.relative_to(ROOT)}:{line}", message
