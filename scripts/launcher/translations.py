"""The translations of the pages: kept as text, read by Django in a compiled form."""

from launcher.layout import Layout
from launcher.stamps import digest_of, stamped, write_stamp
from launcher.steps import run_tool, step


def compile_them(layout: Layout) -> None:
    """Leaves ``locale/<language>/LC_MESSAGES/django.mo`` as ``django.po`` beside it says."""
    folder = layout.root / "locale"
    texts = sorted(folder.glob("*/LC_MESSAGES/django.po"))
    digest = digest_of(texts, *(str(text.relative_to(folder)) for text in texts))
    stamp = layout.tools / "translations-stamp"
    if stamped(stamp, digest) and all(text.with_suffix(".mo").exists() for text in texts):
        return
    with step("Compiling the translations"):
        babel = (layout.python, "-m", "babel.messages.frontend", "-q")
        chosen = ("--directory", folder, "--domain", "django")
        run_tool(layout, "Compiling the translations", (*babel, "compile", *chosen))
        write_stamp(stamp, digest)
