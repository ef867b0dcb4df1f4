"""What the tests of the documentation read: its pages, links, headings and names in backticks."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Markdown of these places is documentation; everything else (node_modules, .venv) is not ours.
PAGES = ("*.md", "docs/**/*.md", "go/**/*.md", "scripts/**/*.md", "results/**/*.md")
SOURCES = {".py", ".go", ".js", ".mjs", ".css", ".html", ".json", ".sh", ".toml", ""}
OURS = (
    "rexsite", "orchestration", "workspaces", "evals", "go", "scripts", "static/rex", "templates",
    "tests", ".ci",
)  # fmt: skip
GENERATED = {"__pycache__", "node_modules", ".rex"}

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)[^)]*\)|(?:src|srcset|href)=\"([^\"]+)\"")


@dataclass(frozen=True, slots=True)
class Page:
    """One page of documentation. ``prose`` is its text without fenced code."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def prose(self) -> str:
        return _FENCE.sub("", self.text)

    def code(self, language: str) -> list[str]:
        """The fenced blocks of ``language``."""
        return [body for found, body in _FENCE.findall(self.text) if found == language]

    def links(self) -> list[str]:
        return [one or other for one, other in _LINK.findall(self.prose)]

    def names(self) -> list[str]:
        """What stands in backticks, in order."""
        return re.findall(r"`([^`\n]+)`", self.prose)

    def anchors(self) -> set[str]:
        """The anchors of its headings, as the usual renderers form them."""
        headings = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        explicit = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", self.prose))
        return explicit | {
            re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings
        }

    def section(self, heading: str) -> str:
        """The text under ``heading``, up to the next heading of any level."""
        match = re.search(
            rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", self.text, re.MULTILINE | re.DOTALL
        )
        assert match, f"{self.name} has no section {heading!r}"
        return match[1]


def page(path: str) -> Page:
    return Page(ROOT / path, (ROOT / path).read_text(encoding="utf-8"))


@cache
def pages() -> tuple[Page, ...]:
    found = {path for pattern in PAGES for path in ROOT.glob(pattern)}
    return tuple(
        page(path.relative_to(ROOT).as_posix())
        for path in sorted(found)
        if not GENERATED & set(path.parts)
    )


@cache
def sources() -> dict[str, str]:
    """The text of every source file of ours, by path from the root."""
    found: dict[str, str] = {}
    for folder in OURS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix in SOURCES and not GENERATED & set(path.parts):
                text = path.read_text(encoding="utf-8", errors="replace")
                found[path.relative_to(ROOT).as_posix()] = text
    for name in ("rex", "pyproject.toml", "manage.py"):
        found[name] = (ROOT / name).read_text(encoding="utf-8")
    return found


def cells(table: str, column: int = 0) -> list[str]:
    """One column of a Markdown table, without its head."""
    rows = [line for line in table.splitlines() if line.startswith("|")]
    return [row.strip("|").split("|")[column].strip() for row in rows[2:]]


def ticked(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)
