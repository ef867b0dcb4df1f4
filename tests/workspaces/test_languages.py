"""Languages: each reader's own, every marked string translated, and no page of two languages."""

import asyncio
import re

import pytest
from babel.messages.pofile import read_po
from django.conf import settings
from django.contrib.auth.models import User
from django.template.loader import render_to_string
from django.test import AsyncClient, Client
from django.urls import reverse
from django.utils import translation
from django.utils.translation import trans_real

from launcher.layout import ROOT, Layout
from launcher.translations import compile_them
from tests.conftest import Person
from tests.workspaces.marked import marked_strings
from workspaces.models import ApiKey, Membership, Profile

pytestmark = pytest.mark.django_db

GERMAN = {"Accept-Language": "de-DE,de;q=0.9,en;q=0.5"}
PO = ROOT / "locale" / "de" / "LC_MESSAGES" / "django.po"


@pytest.fixture(autouse=True, scope="module")
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the launcher does at set-up, for whoever starts pytest alone."""
    state = tmp_path_factory.mktemp("state")
    layout = Layout(ROOT, state)
    layout.logs.mkdir()
    compile_them(layout)
    trans_real._translations.clear()  # type: ignore[attr-defined]


@pytest.fixture
def german(alice: Person) -> Client:
    """Alice, who chose German; her browser asks for English."""
    Profile.objects.create(user=alice.user, language="de")
    client = alice.browser()
    client.defaults["HTTP_ACCEPT_LANGUAGE"] = "en"
    return client


# --- the catalogue -------------------------------------------------------------------------------


def catalogue() -> dict[str | tuple[str, str], tuple[str, ...]]:
    with PO.open("rb") as text:
        read = read_po(text, locale="de", abort_invalid=True)
    found: dict[str | tuple[str, str], tuple[str, ...]] = {}
    for message in read:
        if message.id:
            assert not message.fuzzy, message.id
            said = message.string
            name = message.id if isinstance(message.id, str) else (message.id[0], message.id[1])
            found[name] = (said,) if isinstance(said, str) else tuple(said or ())
    return found


def test_every_marked_string_has_a_translation_and_every_translation_a_string() -> None:
    marked = {text: place for place, text in marked_strings()}
    assert len(marked) > 150
    told = catalogue()
    untranslated = {text: place for text, place in marked.items() if not all(told.get(text, [""]))}
    assert untranslated == {}
    assert set(told) - set(marked) == set()


def test_a_translation_has_the_gaps_and_the_markup_of_its_string() -> None:
    gap = re.compile(r"%\(\w+\)s|</?\w+>")
    for text, said in catalogue().items():
        wanted = set(gap.findall(text if isinstance(text, str) else text[1]))
        for each in said:
            assert set(gap.findall(each)) == wanted, text


def test_the_forms_a_number_takes_are_told_apart() -> None:
    with translation.override("de"):
        told = [render_to_string("registration/locked.html", {"wait_s": n}) for n in (1, 2)]
    assert "Noch 1 Sekunde zu warten." in told[0]
    assert "Noch 2 Sekunden zu warten." in told[1]


# --- whose language ------------------------------------------------------------------------------


def test_a_language_that_was_chosen_counts_on_every_device(alice: Person) -> None:
    here, there = alice.browser(), alice.browser()
    assert "Your account" in there.get(reverse("account")).content.decode()
    here.post(reverse("set-language"), {"language": "de", "next": "/account/"})
    for client in (here, there):
        page = client.get(reverse("account"), headers={"Accept-Language": "en"}).content.decode()
        assert "<h1>Ihr Konto</h1>" in page
    here.post(reverse("set-language"), {"language": "", "next": "/account/"})
    assert "Your account" in there.get(reverse("account")).content.decode()


@pytest.mark.parametrize(
    ("asked", "title"),
    [
        ("de-DE,de;q=0.9,en;q=0.5", "Anmelden"),
        ("fr,de;q=0.5", "Anmelden"),
        ("en-GB,de;q=0.5", "Sign in"),
        ("fr", "Sign in"),
        ("", "Sign in"),
        ("*;q=xyz,\x00,,;;", "Sign in"),
    ],
)
def test_without_a_choice_the_browser_is_asked(asked: str, title: str) -> None:
    answer = Client().get(reverse("login"), headers={"Accept-Language": asked})
    assert f"<h1>{title}</h1>" in answer.content.decode()
    assert "Accept-Language" in answer["Vary"]


def test_signed_out_one_may_choose_too_and_the_choice_is_the_browsers() -> None:
    client = Client()
    client.post(reverse("set-language"), {"language": "de"})
    assert "<h1>Anmelden</h1>" in client.get(reverse("login")).content.decode()
    client.post(reverse("set-language"), {"language": ""})
    assert "<h1>Sign in</h1>" in client.get(reverse("login")).content.decode()
    assert not Profile.objects.exists()


def test_one_readers_language_never_reaches_the_next(german: Client, bob: Person) -> None:
    assert "Ihr Konto" in german.get(reverse("account")).content.decode()
    assert "Your account" in bob.browser().get(reverse("account")).content.decode()
    assert translation.get_language() == settings.LANGUAGE_CODE


async def test_requests_served_at_once_keep_their_languages_apart() -> None:
    asked = ["de", "en"] * 6
    answers = await asyncio.gather(
        *(AsyncClient().get("/login/", headers={"Accept-Language": each}) for each in asked)
    )
    titles = {"de": "<h1>Anmelden</h1>", "en": "<h1>Sign in</h1>"}
    for each, answer in zip(asked, answers, strict=True):
        assert titles[each] in answer.content.decode()


# --- what is translated --------------------------------------------------------------------------


def visible(page: str) -> str:
    """The words of a page's content; code is the same in every language."""
    main = page.partition("<main")[2].partition("</main>")[0]
    return re.sub(r"<code.*?</code>|<[^>]+>", " ", main, flags=re.S)


@pytest.fixture
def german_pages(german: Client, alice: Person, bob: Person) -> dict[str, str]:
    key = ApiKey.objects.in_workspace(alice.workspace).get(name="alice's key")
    bobs = Membership.objects.get(user=bob.user)
    paths = [
        *("/account/", "/account/password/", f"/account/leave/{alice.workspace.pk}/"),
        *("/members/", f"/members/{bobs.pk}/remove/", "/join/unknown/", "/no-such-page/"),
        *("/keys/", "/keys/new/", f"/keys/{key.public}/", f"/keys/{key.public}/revoke/"),
    ]
    pages = {path: german.get(path).content.decode() for path in paths}
    pages["invited"] = german.post("/members/", {"role": "member", "note": "Dora"}).content.decode()
    sent = {"name": "x", "scopes": ["runs:read"], "expires": ""}
    pages["issued"] = german.post("/keys/new/", sent).content.decode()
    pages["refused"] = german.post("/keys/new/", {}).content.decode()
    rotated = german.post(f"/keys/{key.public}/rotate/", {"grace": "3600"})
    pages["rotated"] = rotated.content.decode()
    Membership.objects.filter(user=alice.user).delete()
    pages["forbidden"] = german.get("/keys/").content.decode()
    pages["signed out"] = Client().get("/login/", headers=GERMAN).content.decode()
    return pages


def test_a_german_reader_sees_german_and_nothing_else(german_pages: dict[str, str]) -> None:
    english = {
        text
        for _, marked in marked_strings()
        for text in ([marked] if isinstance(marked, str) else marked)
        # Longer than a word, which could be the same in both; without gaps, to be found whole.
        if " " in text and "%" not in text
    }
    for path, page in german_pages.items():
        assert '<html lang="de"' in page, path
        words = visible(page)
        left = {text for text in english if text in words.replace("&#x27;", "'")}
        assert left == set(), path
        assert not re.search(r"\b(the|and|your|this|is required)\b", words, re.I), path


def test_dates_are_written_as_the_reader_writes_them(german: Client, bob: Person) -> None:
    Membership.objects.update(created_at="2026-03-05T12:00:00Z")
    assert "seit 5. März 2026" in german.get(reverse("members")).content.decode()
    assert "since 5 Mar 2026" in bob.browser().get(reverse("members")).content.decode()


def test_a_page_that_is_not_translated_is_english_and_says_so(german: Client) -> None:
    page = german.get(reverse("help-errors")).content.decode()
    assert '<html lang="en"' in page
    assert '<header class="site" lang="de">' in page
    assert "Mitglieder" in page.partition("<main")[0]
    assert "Mitglieder" not in visible(page)


def test_a_page_that_is_not_translated_has_english_dates_and_complaints(
    german: Client, alice: Person
) -> None:
    refused = visible(german.post(reverse("start"), {"prompt": ""}).content.decode())
    assert "This question was not sent." in refused
    assert "Feld" not in refused


def test_the_api_and_the_admin_console_speak_english_to_everybody(
    german: Client, alice: Person
) -> None:
    told = german.post("/api/run", "{}", content_type="application/json", headers=GERMAN)
    assert not re.search(r"\b(Das|Feld|ist)\b", told.content.decode())
    User.objects.filter(pk=alice.user.pk).update(is_staff=True, is_superuser=True)
    console = german.get("/admin/").content.decode()
    assert '<html lang="en' in console
    assert "Abmelden" not in console


def test_a_refusal_is_told_in_german_with_its_reason(vera: Person) -> None:
    asked = vera.browser().post(reverse("start"), {"prompt": "Why?"}, headers=GERMAN)
    assert asked.status_code == 403
    assert "Sie dürfen in diesem Arbeitsbereich lesen, aber nichts ändern." in visible(
        asked.content.decode()
    )


def test_a_reader_sees_the_words_of_a_locked_out_sign_in_in_german() -> None:
    client = Client()
    sent = {"username": "nobody", "password": "wrong"}
    for _ in range(settings.AXES_FAILURE_LIMIT + 1):
        answer = client.post(reverse("login"), sent, headers=GERMAN)
    assert answer.status_code == 429
    assert "Zu viele Versuche" in answer.content.decode()
