"""Translations are compiled when their text has changed, and when what was compiled is gone."""

import gettext
from pathlib import Path

import pytest

from launcher.failure import Failed
from launcher.layout import Layout
from launcher.translations import compile_them

_HEAD = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n'


@pytest.fixture
def text(layout: Layout, checkout: Path) -> Path:
    """A German catalogue in a checkout whose Python is this one's."""
    layout.venv.symlink_to(checkout / ".venv")
    layout.tools.mkdir()
    made = layout.root / "locale" / "de" / "LC_MESSAGES" / "django.po"
    made.parent.mkdir(parents=True)
    made.write_text(f'{_HEAD}msgid "Runs"\nmsgstr "Läufe"\n', encoding="utf-8")
    return made


def said(text: Path) -> str:
    with text.with_suffix(".mo").open("rb") as compiled:
        return gettext.GNUTranslations(compiled).gettext("Runs")


def test_what_changed_is_compiled_and_what_did_not_is_left_alone(
    layout: Layout, text: Path
) -> None:
    compile_them(layout)
    assert said(text) == "Läufe"
    before = text.with_suffix(".mo").stat().st_mtime_ns
    compile_them(layout)
    assert text.with_suffix(".mo").stat().st_mtime_ns == before
    text.write_text(text.read_text(encoding="utf-8").replace("Läufe", "Durchläufe"), "utf-8")
    compile_them(layout)
    assert said(text) == "Durchläufe"


def test_what_somebody_deleted_is_compiled_again(layout: Layout, text: Path) -> None:
    compile_them(layout)
    text.with_suffix(".mo").unlink()
    compile_them(layout)
    assert said(text) == "Läufe"


def test_a_text_that_cannot_be_read_is_an_error_and_the_next_set_up_tries_again(
    layout: Layout, text: Path
) -> None:
    right = text.read_bytes()
    text.write_bytes(right + "msgid 'Läufe".encode("latin-1"))
    with pytest.raises(Failed, match="Compiling the translations failed"):
        compile_them(layout)
    text.write_bytes(right)
    compile_them(layout)
    assert said(text) == "Läufe"
