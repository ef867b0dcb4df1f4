"""Names are written by people, and some mean harm: to pages, logs, headers, spreadsheets."""

import csv
import html
import io
import json
import logging
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from rexsite import logs
from tests.conftest import Person
from tests.isolation.asking import ask
from tests.isolation.routes import routes
from tests.isolation.world import unknown_ids
from tests.used_runs import call, used_run
from workspaces.actions.accept_invitation import register_and_accept
from workspaces.actions.invite import invite
from workspaces.actions.issue_key import issue_key
from workspaces.models import ApiKey, Workspace

pytestmark = pytest.mark.django_db(transaction=True)

NAMES = {
    "script": "<script>alert(1)</script>",
    "end of a script": '</script><img src=x onerror="alert(1)">',
    "attribute": "\" onmouseover=\"alert(1)\" x='",
    "right to left": "\u202eevil\u202c\u2066x\u2069",
    "formula": '=HYPERLINK("http://evil.example","x")',
    "at": "@SUM(A1)",
    "ansi": "\x1b[2J\x1b[31mred\x1b[0m",
    "lines": "one\r\nSet-Cookie: a=b\r\n\r\n{\"event\": \"forged\"}",
    "template": "{{ request.user.password }}{% debug %}",
    "format": "%s%n{0.__class__}",
    "zero width": "a\u200bd\u200dmin\ufeff",
    "four bytes": "𝔸𝕔𝕞𝕖 🦊",
}  # fmt: skip


class Tags(HTMLParser):
    """The tags and attributes a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.bad: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = dict(attributes)
        if any(name.startswith("on") for name in names):
            self.bad.append(f"<{tag}> with a handler")
        # Ours come from a file, hold data, or have the nonce that no name can know.
        ours = names.get("src") or names.get("type") == "application/json" or names.get("nonce")
        if tag == "script" and not ours:
            self.bad.append("a script of its own")
        if tag == "img" and names.get("src") == "x":
            self.bad.append("an image")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    written = io.StringIO()
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    logs.configure({"level": "DEBUG", "format": "console"})
    [handler] = [each for each in root.handlers if each not in before]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written)
    yield written
    logs.configure({"level": "INFO", "format": "json"})
    root.handlers[:] = before
    root.setLevel(level)


def named(alice: Person, name: str) -> dict[str, object]:
    """A workspace in which everything that has a name has this one."""
    home = alice.workspace
    Workspace.objects.filter(pk=home.pk).update(name=name[:120], paused_reason=name[:200])
    key = issue_key(workspace=home, name=name.strip()[:120] or "x")
    with transaction.atomic():
        token = invite(workspace=home, role="member", note=name, by=None)
    User.objects.filter(pk=alice.user.pk).update(username=name[:150])
    run = used_run(
        home, call(f"local/{name}", started_ms=0), prompt=name, answer=name, started_by=name[:160],
        settings={"policy": {}, "titles": {f"local/{name}": name}},
    )  # fmt: skip
    alice.user.refresh_from_db()
    ids = unknown_ids() | {"label": "A", "run_id": run.pk, "public": key.split("-")[2]}
    numbers = {
        "workspaces.apikey": ApiKey.objects.in_workspace(home).latest("pk").pk,
        "workspaces.workspace": home.pk,
        "orchestration.run": run.pk,
        "auth.user": alice.user.pk,
    }
    return ids | numbers | {"token": token, "workspace_id": home.pk, "auth.group": 1}


# The others are for logs; on a page they are text like any.
ON_PAGES = [kind for kind in NAMES if kind not in ("at", "format", "zero width", "four bytes")]


@pytest.mark.parametrize("kind", ON_PAGES)
def test_no_page_does_what_a_name_says(alice: Person, log: io.StringIO, kind: str) -> None:
    name = NAMES[kind]
    ids = named(alice, name)
    User.objects.filter(pk=alice.user.pk).update(is_staff=True, is_superuser=True)
    alice.user.refresh_from_db()
    browser = alice.browser()
    shown = 0
    for route in routes():
        if route.name == "api-events":
            continue
        told = ask(browser, ("GET", "", ""), route.address(ids))
        assert told.status < 500 or route.name == "readyz", route  # which wants the service too
        assert not told.headers.keys() & {"Set-Cookie", "a"}, route
        assert all("\n" not in value and "\x1b" not in value for value in told.headers.values())
        kind_of = told.headers.get("Content-Type", "")
        shown += html.escape(name[:20]) in told.text or name[:20] in told.text
        if kind_of.startswith("text/html"):
            assert Tags(told.text).bad == [], route
        if kind_of.startswith("text/csv"):
            cells = [cell for row in csv.reader(io.StringIO(told.text)) for cell in row]
            assert not [cell for cell in cells if cell.startswith(("=", "@", "\t", "\r"))], route
    assert shown > 3, "the name is on no page: nothing was tested"
    assert "\x1b" not in log.getvalue()
    assert name not in log.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_value_of_a_log_line_moves_the_cursor_or_begins_a_line(form: str) -> None:
    import structlog

    written = io.StringIO()
    root = logging.getLogger()
    before = list(root.handlers)
    logs.configure({"level": "DEBUG", "format": form})
    try:
        [handler] = [each for each in root.handlers if each not in before]
        assert isinstance(handler, logging.StreamHandler)
        handler.setStream(written)
        for name in NAMES.values():
            structlog.get_logger("rex.test").info("something", name=name)
            logging.getLogger("elsewhere").warning("somebody said %s", name)
    finally:
        logs.configure({"level": "INFO", "format": "json"})
        root.handlers[:] = before
    text = written.getvalue()
    assert len(text.splitlines()) == 2 * len(NAMES)
    assert not [letter for letter in text if letter != "\n" and not letter.isprintable()]
    if form == "json":
        assert {json.loads(line)["event"] for line in text.splitlines()} >= {"something"}


def test_a_slug_is_of_plain_letters_and_there_is_one_of_each() -> None:
    Workspace(slug="acme", name="x").full_clean()
    for slug in ("аcme", "acme\u200b", "acmé", "acme\u0301", "ac me", "<b>", "=acme", ""):
        with pytest.raises(ValidationError):
            Workspace(slug=slug, name="x").full_clean()
    Workspace.objects.create(slug="acme", name="x")
    with pytest.raises(IntegrityError), transaction.atomic():
        Workspace.objects.create(slug="acme", name="y")


def test_names_of_users_are_one_after_normalisation(alice: Person) -> None:
    """NFKC, as Django signs in: a name in other code points is no second user."""
    with transaction.atomic():
        token = invite(workspace=alice.workspace, role="member", note="", by=None)
    for same in ("ａｌｉｃｅ", "ALICE", "Alice", "𝐚lice"):
        with pytest.raises(ValidationError):
            register_and_accept(token=token, username=same, password="a-long-password-9")
    for bad in ("al\u202eice", "al ice", "<b>", "al\x1bice", "al\u200bice"):
        with pytest.raises(ValidationError):
            register_and_accept(token=token, username=bad, password="a-long-password-9")
