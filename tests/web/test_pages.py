"""The pages as a browser without scripts meets them: forms, lists, buttons and refusals."""

import html
import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import Client

from orchestration.actions.cancel_run import cancel_run
from orchestration.bridge import in_database
from orchestration.domain.errors import sentence_for
from orchestration.fanout.scripted import Fail, Script
from orchestration.models import Run
from orchestration.run_list import PAGE_SIZE
from tests.conftest import Person
from tests.runs import A_TEXT, B_TEXT, C_TEXT, driven, make_run
from workspaces.models import Workspace

pytestmark = pytest.mark.django_db

QUESTION = "Why <b>&amp; how?\n\n'\"{{ 1|add:1 }}"
LONG = "zebra " * 20_000
NOBODYS = "7d1f7c55-3c1e-4b52-8f4e-0d3f0c8b5a11"


def post(browser: Client, **fields: Any) -> Any:
    """The start form as the page would send it, with one thing changed."""
    given = {"prompt": QUESTION, "pipeline": "synthesis", "models": ["local/brisk"]}
    return browser.post("/", given | fields)


def is_page(response: Any, status: int) -> str:
    """Assert a whole page of ours, and give its text."""
    assert response.status_code == status, response.content[:300]
    assert response["Content-Type"] == "text/html; charset=utf-8"
    text: str = response.content.decode()
    assert text.startswith("<!doctype html>")
    assert "<h1" in text
    assert "Traceback" not in text
    return text


def shown_prompt(text: str) -> str:
    found = re.search(r"<textarea[^>]*>(.*?)</textarea>", text, re.DOTALL)
    assert found
    return html.unescape(found[1])


def runs() -> int:
    return Run.objects.everywhere().count()


# --- asking --------------------------------------------------------------------------------------


def test_the_start_page_offers_the_models_the_pipelines_and_a_fresh_key(alice: Person) -> None:
    browser = alice.browser()
    first, second = (is_page(browser.get("/"), 200) for _ in range(2))
    for offered in ("local/brisk", "local/plain", "local/thorough", "synthesis", "wait-all"):
        assert f'value="{offered}"' in first
    assert "local/editor" not in first, "the synthesizer does not answer"
    keys = [re.findall(r'name="idempotency_key" value="(\w+)"', text) for text in (first, second)]
    assert keys[0] != keys[1]


def test_a_question_becomes_a_run_and_the_browser_is_sent_to_its_page(alice: Person) -> None:
    response = post(alice.browser())
    run = Run.objects.everywhere().get()
    assert (response.status_code, response["Location"]) == (302, f"/runs/{run.pk}/")
    assert run.prompt == QUESTION.replace("\n", "\r\n") or run.prompt == QUESTION
    assert run.request_id == response["X-Request-Id"]
    assert run.started_by == "alice"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": ""}, "Write a question first."),
        ({"prompt": " \n\t "}, "Write a question first."),
        ({"prompt": "nul \x00 byte"}, "Null characters are not allowed."),
        ({"prompt": LONG}, "at most 100,000 are taken"),
        ({"prompt": "x" * 3_000_000}, "at most 100,000 are taken"),
        ({"prompt": "[" * 100_000 + "]"}, "at most 100,000 are taken"),
        ({"prompt": "\u200b \u2060\ufeff"}, "Write a question first."),
        ({"models": []}, "Choose at least one model."),
        ({"models": ["local/nobody"]}, "local/nobody is not one of the available choices"),
        ({"models": ["openai/gpt-4o"]}, "not one of the available choices"),
        ({"models": ["local/brisk"] * 9}, "takes at most 8"),
        ({"models": ["local/brisk", "local/plain"], "pipeline": "single"}, "takes at most 1"),
        ({"pipeline": "nope"}, "nope is not one of the available choices"),
        ({"pipeline": "synthesis@99"}, "not one of the available choices"),
        ({"models": ["\x00"]}, "not one of the available choices"),
        ({"idempotency_key": "k" * 201}, ""),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_a_question_that_cannot_be_asked_comes_back_with_its_text_and_the_reason(
    alice: Person, fields: dict[str, Any], words: str
) -> None:
    text = is_page(post(alice.browser(), **fields), 400)
    assert words in html.unescape(text)
    assert shown_prompt(text).lstrip("\n") == fields.get("prompt", QUESTION).lstrip("\n")
    assert runs() == 0


def test_a_body_beyond_every_bound_is_a_page_too_and_stores_nothing(alice: Person) -> None:
    is_page(post(alice.browser(), prompt="x" * 20_000_000), 400)
    assert runs() == 0


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"prompt=%ff%fe&models=local/brisk", "application/x-www-form-urlencoded"),
        (b"&".join(b"a%d=1" % n for n in range(5000)), "application/x-www-form-urlencoded"),
        (b'{"prompt": "Why?"}', "application/json"),
        (b"--nonsense", "multipart/form-data; boundary=other"),
        (b"--x\r\n\r\n", "multipart/form-data"),
    ],
)
def test_a_body_no_page_of_ours_would_send_is_never_a_failure(
    alice: Person, body: bytes, kind: str
) -> None:
    response = alice.browser().post("/", body, content_type=kind)
    assert response.status_code in (302, 400), response.content[:300]
    if response.status_code == 400:
        is_page(response, 400)
        assert runs() == 0


def test_sending_the_same_form_twice_makes_one_run(alice: Person) -> None:
    browser = alice.browser()
    first, second = (post(browser, idempotency_key="from-the-page") for _ in range(2))
    assert first["Location"] == second["Location"]
    assert runs() == 1


def test_a_question_is_asked_afresh_where_that_is_ticked(alice: Person) -> None:
    browser = alice.browser()
    for ticked in ({}, {"fresh": "on"}):
        assert post(browser, **ticked).status_code == 302
    wishes = Run.objects.everywhere().order_by("created_at").values_list("settings", flat=True)
    assert [settings["cache"] for settings in wishes] == ["use", "refresh"]


def test_going_back_and_asking_something_else_is_another_run(alice: Person) -> None:
    """A browser may bring the form back as it was left, its hidden key included."""
    browser = alice.browser()
    first = post(browser, idempotency_key="from-the-page")
    second = post(browser, idempotency_key="from-the-page", prompt="And now?")
    assert (first.status_code, second.status_code) == (302, 302)
    assert first["Location"] != second["Location"]
    assert runs() == 2


def test_a_viewer_may_look_but_not_ask(vera: Person, alice: Person) -> None:
    page = is_page(vera.browser().get("/"), 200)
    assert "You may look at this workspace but not ask in it" in page
    assert "not ask in it" not in is_page(alice.browser().get("/"), 200)
    is_page(post(vera.browser()), 403)
    assert runs() == 0


# --- looking -------------------------------------------------------------------------------------


def test_the_list_is_paged_newest_first_without_loss_or_doubling(alice: Person) -> None:
    made = [make_run(alice, prompt=f"Question {n}?").pk for n in range(PAGE_SIZE + 3)]
    browser, seen, address = alice.browser(), [], "/runs/"
    while address:
        text = is_page(browser.get(address), 200)
        seen += re.findall(r'href="/runs/([0-9a-f-]{36})/"', text)
        older = re.search(r'rel="next" href="([^"]+)"', text)
        address = f"/runs/{html.unescape(older[1])}" if older else ""
    assert seen == [str(pk) for pk in reversed(made)]


@pytest.mark.parametrize(
    "cursor",
    [
        "nonsense",
        "~",
        "2026-01-01~x",
        "\x00",
        "2026-01-01T00:00:00~" + NOBODYS,
        "0001-01-01T00:00:00+23:59~" + NOBODYS,
        "9999-12-31T23:59:59-23:59~" + NOBODYS,
        "9" * 5000,
        "💥",
    ],
    ids=lambda cursor: repr(cursor)[:40],
)
def test_a_cursor_nobody_gave_out_starts_the_page_at_the_top_and_the_api_refuses_it(
    alice: Person, cursor: str
) -> None:
    run = make_run(alice)
    page = alice.browser().get("/runs/", {"cursor": cursor})
    assert str(run.pk) in is_page(page, 200)
    answer = alice.api().get("/api/runs", {"cursor": cursor})
    assert answer.status_code == 400
    assert answer.json()["code"] == "bad_request"
    assert answer.json()["errors"][0]["field"] == "cursor"


def test_the_page_of_a_waiting_run_has_its_question_escaped_and_both_buttons(
    alice: Person,
) -> None:
    run = make_run(alice, prompt="<script>alert(1)</script></script>", models=("local/brisk",))
    text = is_page(alice.browser().get(f"/runs/{run.pk}/"), 200)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert f'action="/runs/{run.pk}/stop/"' in text
    assert f'action="/runs/{run.pk}/replay/"' in text
    assert 'http-equiv="refresh"' in text, "a page without scripts must reload by itself"


def test_a_viewers_page_of_a_run_has_no_buttons(alice: Person, vera: Person) -> None:
    run = make_run(alice)
    text = is_page(vera.browser().get(f"/runs/{run.pk}/"), 200)
    assert "/stop/" not in text
    assert "/replay/" not in text


# --- stopping and replaying ----------------------------------------------------------------------


def test_stop_asks_the_driver_once_and_goes_back_to_the_run(alice: Person) -> None:
    run = make_run(alice)
    for _ in range(2):
        response = alice.browser().post(f"/runs/{run.pk}/stop/")
        assert (response.status_code, response["Location"]) == (302, f"/runs/{run.pk}/")
    asked_at = Run.objects.everywhere().get().stop_requested_at
    assert asked_at
    assert not cancel_run(run=run), "it was asked already"


def test_a_run_that_has_not_ended_is_not_replayed(alice: Person) -> None:
    run = make_run(alice)
    response = alice.browser().post(f"/runs/{run.pk}/replay/")
    assert (response.status_code, response["Location"]) == (302, f"/runs/{run.pk}/")
    assert runs() == 1


@pytest.mark.parametrize("verb", ["stop", "replay"])
def test_a_button_is_not_a_link(alice: Person, verb: str) -> None:
    run = make_run(alice)
    response = alice.browser().get(f"/runs/{run.pk}/{verb}/")
    assert (response.status_code, response["Allow"]) == (405, "POST")
    assert Run.objects.everywhere().get().stop_requested_at is None
    assert runs() == 1


@pytest.mark.parametrize("verb", ["stop", "replay"])
def test_a_button_pressed_by_another_site_or_by_a_viewer_does_nothing(
    alice: Person, vera: Person, verb: str
) -> None:
    run = make_run(alice)
    forged = Client(enforce_csrf_checks=True)
    forged.force_login(alice.user)
    for browser in (forged, vera.browser()):
        is_page(browser.post(f"/runs/{run.pk}/{verb}/"), 403)
    assert Run.objects.everywhere().get().stop_requested_at is None


# --- who -----------------------------------------------------------------------------------------

PAGES = ("/", "/runs/", f"/runs/{NOBODYS}/")


@pytest.mark.parametrize("address", PAGES)
def test_who_is_not_signed_in_is_sent_to_sign_in_and_back(client: Client, address: str) -> None:
    response = client.get(address)
    assert response.status_code == 302
    assert response["Location"] == f"/login/?next={address}"
    is_page(client.get(response["Location"]), 200)


@pytest.mark.parametrize("address", PAGES)
def test_a_user_of_no_workspace_is_told_so(django_user_model: Any, address: str) -> None:
    nobody = Client()
    nobody.force_login(django_user_model.objects.create_user(username="nobody"))
    is_page(nobody.get(address), 403)


def test_signing_in_goes_where_one_wanted_and_signing_out_ends_it(
    alice: Person, client: Client
) -> None:
    right = {"username": "alice", "password": "alice-password"}
    wrong = is_page(client.post("/login/?next=/runs/", right | {"password": "no"}), 200)
    assert "The name or the password is not right." in wrong
    assert client.get("/runs/").status_code == 302

    signed_in = client.post("/login/?next=/runs/", right)
    assert (signed_in.status_code, signed_in["Location"]) == (302, "/runs/")
    is_page(client.get("/runs/"), 200)

    assert client.get("/logout/").status_code == 405, "a link must not sign anyone out"
    assert client.post("/logout/")["Location"] == "/login/"
    assert client.get("/runs/").status_code == 302


ELSEWHERE = ["https://evil.example/", "//evil.example", "javascript:alert(1)", "/\\evil.example"]


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_signing_in_never_leads_to_another_site(
    alice: Person, client: Client, elsewhere: str
) -> None:
    fields = {"username": "alice", "password": "alice-password", "next": elsewhere}
    assert client.post("/login/", fields)["Location"] == "/"


# --- the theme -----------------------------------------------------------------------------------


def test_the_theme_is_kept_in_a_cookie_and_one_stays_on_the_page(client: Client) -> None:
    response = client.post("/theme/", {"theme": "dark", "next": "/docs/errors"})
    assert (response.status_code, response["Location"]) == (302, "/docs/errors")
    cookie = response.cookies["theme"]
    assert (cookie.value, cookie["httponly"], cookie["samesite"]) == ("dark", True, "Lax")
    assert 'data-theme="dark"' in is_page(client.get("/docs/errors"), 200)


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_the_theme_never_leads_to_another_site(client: Client, elsewhere: str) -> None:
    response = client.post("/theme/", {"theme": "dark", "next": elsewhere})
    assert response["Location"] == "/"
    referred = client.post("/theme/", {"theme": "dark"}, headers={"Referer": elsewhere})
    assert referred["Location"] == "/"


@pytest.mark.parametrize("theme", ["", "pink", "dark; Secure", '"><script>'])
def test_a_theme_there_is_not_is_refused(client: Client, theme: str) -> None:
    response = client.post("/theme/", {"theme": theme})
    assert "theme" not in response.cookies
    is_page(response, 400)


def test_a_forged_theme_cookie_cannot_write_into_the_page(client: Client) -> None:
    client.cookies["theme"] = "x onload=alert(1)"
    assert "onload=alert(1)>" not in is_page(client.get("/login/"), 200)


# --- refusals ------------------------------------------------------------------------------------


def refusals(alice: Person) -> list[tuple[str, Any, int]]:
    """(address, answer, status) of what every interface refuses, on the pages and in the API."""
    browser = alice.browser()
    forged = Client(enforce_csrf_checks=True)
    forged.force_login(alice.user)
    lost: Any = browser.get("/nothing/here")
    return [
        ("/nothing/here", lost, 404),
        ("/api/nothing", browser.get("/api/nothing"), 404),
        ("/runs/nonsense/", browser.get("/runs/nonsense/"), 404),
        ("/api/runs/nonsense", browser.get("/api/runs/nonsense"), 404),
        ("/", forged.post("/", {"prompt": "Why?"}), 403),
        ("/api/run", forged.post("/api/run", "{}", content_type="application/json"), 403),
        ("/runs/", browser.get("/runs/", headers={"Host": "evil.example"}), 400),
        ("/api/runs", browser.get("/api/runs", headers={"Host": "evil.example"}), 400),
    ]


def test_refusals_are_pages_on_the_pages_and_problems_under_the_api(alice: Person) -> None:
    for address, answer, status in refusals(alice):
        if not address.startswith("/api/"):
            is_page(answer, status)
            continue
        assert answer.status_code == status, address
        assert answer["Content-Type"] == "application/problem+json", address
        assert answer.json()["status"] == status


@pytest.mark.parametrize(("address", "kind"), [("/runs/", "text/html"), ("/api/runs", "problem")])
def test_a_failure_of_ours_says_nothing_of_its_cause_even_when_the_database_is_gone(
    alice: Person, monkeypatch: pytest.MonkeyPatch, address: str, kind: str
) -> None:
    from django.db import DatabaseError
    from django.db.backends.base.base import BaseDatabaseWrapper

    browser = alice.browser()
    browser.raise_request_exception = False

    def gone(*_: Any, **__: Any) -> Any:
        raise DatabaseError("no such secret-host")

    monkeypatch.setattr(BaseDatabaseWrapper, "_cursor", gone)
    response = browser.get(address)
    assert response.status_code == 500
    assert kind in response["Content-Type"]
    assert b"secret-host" not in response.content
    assert response["X-Request-Id"].encode() in response.content


# --- a run that has ended ------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
async def test_the_page_of_an_ended_run_is_whole_without_scripts_and_can_be_replayed(
    alice: Person,
) -> None:
    run = await driven(alice, pipeline="wait-all", prompt=QUESTION)
    browser = await in_database(alice.browser)
    text = is_page(await in_database(browser.get, f"/runs/{run.pk}/"), 200)
    assert 'http-equiv="refresh"' not in text
    for said in (A_TEXT, B_TEXT, C_TEXT):
        assert said.split(". ")[0] in html.unescape(text)
    snapshot = re.search(r'id="run-snapshot"[^>]*>(.*?)</script>', text, re.DOTALL)
    assert snapshot
    told = json.loads(snapshot[1])
    assert (told["id"], told["status"], told["answer"]) == (str(run.pk), "done", run.answer)
    assert told["prompt"] == QUESTION

    replayed = await in_database(browser.post, f"/runs/{run.pk}/replay/")
    again = await in_database(Run.objects.everywhere().exclude(pk=run.pk).get)
    assert replayed["Location"] == f"/runs/{again.pk}/"
    models = await in_database(lambda: list(again.calls.values_list("model", flat=True)))
    assert models == [f"recorded/{run.pk}/{label}" for label in "ABC"]
    assert again.prompt == QUESTION
    is_page(await in_database(browser.get, replayed["Location"]), 200)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ["auth", "timeout.stall", "content_filter"])
async def test_the_page_of_a_failed_run_says_why_in_words(alice: Person, kind: str) -> None:
    run = await driven(alice, {"*": Script([], Fail(kind, after_s=0.01))})
    browser = await in_database(alice.browser)
    text = is_page(await in_database(browser.get, f"/runs/{run.pk}/"), 200)
    assert run.status == "failed"
    assert sentence_for(kind) in html.unescape(text)


def test_every_page_tells_the_time_of_a_run_in_the_workspaces_zone(alice: Person) -> None:
    run = make_run(alice)
    Workspace.objects.filter(pk=alice.workspace.pk).update(time_zone="Asia/Tokyo")
    Run.objects.filter(pk=run.pk).update(created_at=datetime(2026, 11, 23, 18, 4, tzinfo=UTC))
    browser = alice.browser()
    for address in ("/", "/runs/", f"/runs/{run.pk}/"):
        text = browser.get(address).content.decode()
        assert re.search(r"24 Nov( 2026)?, 03:04 JST", text), address
