"""The documentation says what is: links lead somewhere, names exist, words are the code's words."""

import json
import re
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from django.urls import Resolver404, resolve

from orchestration.domain.errors import ErrorKind
from orchestration.domain.policies import PRESETS
from orchestration.domain.run import TRANSIENT, CallState, EventType, RunStatus
from tests.docs.markdown import ROOT, Page, cells, page, pages, sources, ticked

EVERY_PAGE = pytest.mark.parametrize("each", pages(), ids=lambda each: each.name)
DECISIONS = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
DECISION_NAMES = [path.name for path in DECISIONS]
EVERY_DECISION = pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)

# Set-up makes these; a clean clone does not have them.
MADE_AT_SET_UP = ("static/vendor/", ".rex/", ".venv/")
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def values(words: type[StrEnum]) -> set[str]:
    return {word.value for word in words}


# --- links ---------------------------------------------------------------------------------------


@EVERY_PAGE
def test_every_relative_link_leads_to_a_file_and_a_heading_that_exist(each: Page) -> None:
    broken = [link for link in each.links() if not leads_somewhere(each, link)]
    assert not broken


def leads_somewhere(source: Page, link: str) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = (source.path.parent / parts.path).resolve() if parts.path else source.path
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    if not parts.fragment:
        return True
    return parts.fragment in page(target.relative_to(ROOT).as_posix()).anchors()


def test_a_link_to_a_missing_file_or_heading_is_seen() -> None:
    glossary = page("docs/glossary.md")
    assert leads_somewhere(glossary, "events.md")
    assert leads_somewhere(glossary, "#measures")
    assert not leads_somewhere(glossary, "no-such-page.md")
    assert not leads_somewhere(glossary, "#no-such-heading")


@EVERY_PAGE
def test_pages_name_no_host_but_loopback_examples_and_the_providers(each: Page) -> None:
    """No registry, mirror or tracker can slip in: what is not listed here is a stranger."""
    table = json.loads((ROOT / "go/fanout-service/api/providers.json").read_text())
    known = LOOPBACK | {urlsplit(row["base_url"] or "").hostname for row in table["providers"]}
    urls = re.findall(r"https?://[^\s\"'`)>]+", each.text)
    hosts = {host for url in urls if (host := urlsplit(url).hostname)}
    assert not {host for host in hosts if host not in known and not is_example(host)}


def is_example(host: str) -> bool:
    labels = host.split(".")
    return labels[-1] in {"example", "test", "localhost"} or labels[-2:-1] == ["example"]


# --- decisions -----------------------------------------------------------------------------------


def test_decisions_are_numbered_without_gaps_and_each_is_indexed_once() -> None:
    assert [int(path.stem[:4]) for path in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    linked = [link for link in page("docs/adr/README.md").links() if re.match(r"\d{4}-", link)]
    assert linked == DECISION_NAMES


@EVERY_DECISION
def test_a_decision_is_one_page_that_says_what_is_built_and_what_would_change_it(
    path: Path,
) -> None:
    decision = page(path.relative_to(ROOT).as_posix())
    title, *headings = re.findall(r"^#+ (.+)$", decision.prose, re.MULTILINE)
    assert title.startswith(path.stem[:4])
    assert headings == ["Context", "Decision", "Consequences", "What would change our mind"]
    assert re.search(r"^Status: accepted\. \*\*Built today:\*\* ", decision.text, re.MULTILINE)
    assert len(decision.text.split()) <= 500


def test_every_decision_the_code_points_at_exists() -> None:
    pointed_at = {
        (source, name)
        for source, text in sources().items()
        for name in re.findall(r"docs/adr/(\d{4}-[\w-]+\.md)", text)
    }
    assert pointed_at, "the code should say why it is as it is"
    assert not {(source, name) for source, name in pointed_at if name not in DECISION_NAMES}


# --- names ---------------------------------------------------------------------------------------

HOMES = ("", "orchestration", "orchestration/actions", "orchestration/domain", "go/fanout-service")
_PATH = re.compile(r"(?:[\w.-]+/)+[\w.-]*|[\w-]+\.py")


@EVERY_PAGE
def test_every_path_a_page_names_exists(each: Page) -> None:
    """``actions/start_run.py`` may be said of ``orchestration/``, ``engine/`` of the Go service."""
    homes = [each.path.parent, *(ROOT / home for home in HOMES)]
    named = [name for name in each.names() if _PATH.fullmatch(name) and is_repository_path(name)]
    missing = [name for name in named if not any((home / name).exists() for home in homes)]
    assert not missing


def is_repository_path(name: str) -> bool:
    """A file with a suffix or a folder with its slash; ``local/brisk`` is a model, not a path."""
    if name.startswith(MADE_AT_SET_UP):
        return False
    return name.endswith(("/", ".py", ".md", ".json", ".js", ".html", ".ndjson", ".sh"))


@pytest.mark.parametrize(
    "name", [name for name in page("docs/glossary.md").names() if re.fullmatch(r"[A-Z]\w+", name)]
)
def test_every_class_in_the_glossary_is_a_class_in_the_code(name: str) -> None:
    assert any(
        re.search(rf"^class {name}\b|^{name} = ", text, re.MULTILINE)
        for source, text in sources().items()
        if source.startswith(("orchestration/", "workspaces/"))
    )


@EVERY_PAGE
def test_every_environment_variable_a_page_names_is_read_by_the_code(each: Page) -> None:
    code = "\n".join(text for source, text in sources().items() if not source.startswith("tests/"))
    named = set(re.findall(r"\b(?:REX_[A-Z_]+[A-Z]|[A-Z]+_API_KEY|[A-Z]+_BASE_URL)\b", each.text))
    # Any setting can come from a file, any server has its own name: the code forms these two.
    formed = {name for name in named if re.match(r"REX_PROVIDER_|.*_FILE$", name)}
    assert not {name for name in named - formed if name not in code}


@EVERY_PAGE
def test_every_command_of_rex_a_page_uses_is_one_that_help_lists(each: Page) -> None:
    used = set(re.findall(r"\./rex ([a-z]+)", each.text))
    if not used:
        return
    told = subprocess.run(
        [sys.executable, "-B", str(ROOT / "scripts/launcher"), "help"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert used <= set(re.findall(r"[a-z]+", told.stdout))


@EVERY_PAGE
def test_every_route_of_the_api_a_page_names_is_routed(each: Page) -> None:
    named = set(re.findall(r"/api/runs?[\w/{}<>-]*", each.text))
    lost = []
    for path in named:
        concrete = path.replace("{label}", "A").replace("{id}", str(uuid4())).rstrip("/")
        try:
            resolve(concrete)
        except Resolver404:
            lost.append(path)
    assert not lost


# --- vocabulary ----------------------------------------------------------------------------------


def test_the_glossary_lists_exactly_the_states_of_runs_and_calls() -> None:
    states = page("docs/glossary.md").section("States")
    runs, calls = states.split("**A call**")
    assert set(ticked(runs)) == values(RunStatus)
    assert [cell.strip("`") for cell in cells(calls)] == [state.value for state in CallState]


def test_the_glossary_lists_exactly_the_error_kinds() -> None:
    assert set(ticked(page("docs/glossary.md").section("Reasons"))) == values(ErrorKind)


def test_the_glossary_names_every_preset_of_the_policies() -> None:
    row = re.search(r"^\| \*\*policy\*\* \| (.+) \|$", page("docs/glossary.md").text, re.MULTILINE)
    assert row
    assert set(ticked(row[1])) - {"Policy"} == set(PRESETS)


def test_events_md_lists_exactly_the_types_of_the_log() -> None:
    events = page("docs/events.md")
    facts = {cell.strip("`") for cell in cells(events.section("Facts"))}
    text = {cell.strip("`") for cell in cells(events.section("Text in flight"))}
    assert text == {kind.value for kind in TRANSIENT}
    assert facts == values(EventType) - text


@EVERY_PAGE
def test_json_examples_are_json(each: Page) -> None:
    for block in each.code("json"):
        json.loads(block.replace("…", "."))
