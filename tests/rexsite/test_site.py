"""What every answer has, whatever it says: an id, the security headers, and honest health."""

import re
from typing import Any

import pytest
from django.db import DatabaseError
from django.db.migrations.executor import MigrationExecutor
from django.test import Client

from rexsite import health
from tests.conftest import Person
from tests.runs import make_run

pytestmark = pytest.mark.django_db

POLICY = {
    "default-src": "'self'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}
SOME_OF_EACH = ("/", "/runs/", "/login/", "/docs/errors", "/nothing", "/api/runs", "/api/nothing")


def answers(alice: Person) -> dict[str, Any]:
    """An answer of every kind: pages, forms, the API, and refusals of both."""
    browser = alice.browser()
    run = make_run(alice)
    found = {address: browser.get(address) for address in (*SOME_OF_EACH, f"/runs/{run.pk}/")}
    found["refused form"] = browser.post("/", {"prompt": ""})
    found["bad host"] = browser.get("/", headers={"Host": "evil.example"})
    found["forged"] = Client(enforce_csrf_checks=True).post("/login/", {})
    found["redirect"] = Client().get("/runs/")
    return found


# --- security headers ----------------------------------------------------------------------------


def test_every_answer_carries_a_strict_content_security_policy(alice: Person) -> None:
    for what, answer in answers(alice).items():
        given = dict(
            part.strip().split(" ", 1) for part in answer["Content-Security-Policy"].split(";")
        )
        given["script-src"] = re.sub(r" 'nonce-[\w+/=-]{16,}'", "", given["script-src"])
        assert given == POLICY, what


def test_every_script_of_a_page_has_the_nonce_of_its_answer_or_is_a_file_of_ours(
    alice: Person,
) -> None:
    seen = 0
    for what, answer in answers(alice).items():
        text = answer.content.decode()
        nonce = re.search(r"'nonce-([^']+)'", answer["Content-Security-Policy"])
        for attributes in re.findall(r"<script\b([^>]*)>", text):
            if 'type="application/json"' in attributes:
                continue  # data, which no browser runs
            assert nonce, f"{what} has a script and no nonce"
            assert f'nonce="{nonce[1]}"' in attributes, what
            seen += 1
        assert not re.search(r"<[a-z][^>]*\s(on[a-z]+|style)=", text), f"{what} has inline code"
        assert "<style" not in text
    assert seen >= 4


def test_a_nonce_is_used_once(alice: Person) -> None:
    browser = alice.browser()
    policies = {browser.get("/")["Content-Security-Policy"] for _ in range(3)}
    assert len(policies) == 3


def test_every_answer_forbids_sniffing_framing_and_telling_others_the_address(
    alice: Person,
) -> None:
    for what, answer in answers(alice).items():
        assert answer["X-Content-Type-Options"] == "nosniff", what
        assert answer["X-Frame-Options"] == "DENY", what
        assert answer["Referrer-Policy"] == "same-origin", what
        assert answer["Cross-Origin-Opener-Policy"] == "same-origin", what


def test_cookies_are_out_of_reach_of_scripts_and_other_sites(alice: Person) -> None:
    client = Client()
    signed_in = client.post("/login/", {"username": "alice", "password": "alice-password"})
    session = signed_in.cookies["sessionid"]
    assert session["httponly"]
    assert session["samesite"] == "Lax"


# --- the request id ------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["a1b2c3d4", "run-41f2.retry_2", "x" * 64])
def test_a_sound_request_id_is_kept_and_answered(client: Client, given: str) -> None:
    assert client.get("/healthz", headers={"X-Request-Id": given})["X-Request-Id"] == given


@pytest.mark.parametrize(
    "given",
    ["", "short", "x" * 65, "has spaces in it", 'quote"quote"', "line\u2028break", "<b>bold"],
)
def test_any_other_request_id_is_replaced_by_a_new_one(client: Client, given: str) -> None:
    replaced = [
        client.get("/healthz", headers={"X-Request-Id": given})["X-Request-Id"] for _ in "ab"
    ]
    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in replaced)
    assert replaced[0] != replaced[1]


def test_refusals_show_the_id_to_quote(alice: Person) -> None:
    for what, answer in answers(alice).items():
        if answer.status_code >= 400 and what != "refused form":
            assert answer["X-Request-Id"] in answer.content.decode(), what


# --- health --------------------------------------------------------------------------------------


def test_a_ready_process_says_so_to_anyone_and_nothing_else(client: Client) -> None:
    for address in ("/healthz", "/readyz"):
        answer = client.get(address)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        assert "no-store" in answer["Cache-Control"]
        assert client.head(address).status_code == 200
        assert client.post(address).status_code == 405


@pytest.mark.parametrize("part", ["database", "migrations"])
def test_a_process_that_cannot_take_runs_is_alive_but_not_ready(
    client: Client, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def gone(*_: Any) -> Any:
        raise DatabaseError("secret-host refused")

    def behind(*_: Any) -> Any:
        return [("a migration", False)]

    if part == "database":
        monkeypatch.setattr(health, "MigrationExecutor", gone)
    else:
        monkeypatch.setattr(MigrationExecutor, "migration_plan", behind)

    assert client.get("/healthz").status_code == 200
    unready = client.get("/readyz")
    assert (unready.status_code, unready["Retry-After"]) == (503, "1")
    assert unready.json() == {"status": "unavailable", "part": part}
