"""A user's own page: theme and language everywhere, their workspaces, their password."""

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from tests.conftest import Person
from workspaces.access import CHOSEN
from workspaces.models import ApiKey, AuditEntry, Membership, Profile, Workspace

pytestmark = pytest.mark.django_db


def signed_in(user: User) -> Client:
    """A browser that signed in by the page."""
    client = Client()
    sent = {"username": user.username, "password": f"{user.username}-password"}
    assert client.post(reverse("login"), sent).status_code == 302
    return client


def theme_of(client: Client, path: str = "/") -> str:
    page = client.get(path).content.decode()
    return page.partition('data-theme="')[2].partition('"')[0]


# --- theme ---------------------------------------------------------------------------------------


def test_a_theme_that_was_chosen_counts_on_every_device(alice: Person, bob: Person) -> None:
    here, there, bobs = alice.browser(), alice.browser(), bob.browser()
    there.cookies["theme"] = "light"
    here.post(reverse("set-theme"), {"theme": "dark", "next": "/account/"})
    assert theme_of(here) == "dark"
    assert theme_of(there) == "dark"
    assert theme_of(bobs) == "auto"


def test_without_a_choice_the_theme_is_the_browsers(alice: Person) -> None:
    client = alice.browser()
    assert theme_of(client) == "auto"
    client.cookies["theme"] = "dark"
    assert theme_of(client) == "dark"
    client.cookies["theme"] = "no-such-theme"
    assert theme_of(client) == "auto"


def test_signed_out_one_keeps_a_theme_in_the_browser(db: None) -> None:
    client = Client()
    client.post(reverse("set-theme"), {"theme": "light"})
    assert theme_of(client, "/login/") == "light"
    assert not Profile.objects.exists()


@pytest.mark.parametrize(("url", "field"), [("set-theme", "theme"), ("set-language", "language")])
def test_what_is_not_offered_is_refused_and_nobody_is_sent_to_another_site(
    alice: Person, url: str, field: str
) -> None:
    client = alice.browser()
    assert client.post(reverse(url), {field: "klingon"}).status_code == 400
    assert client.get(reverse(url)).status_code == 405
    sound = {"theme": "dark", "language": "de"}
    for elsewhere in ("https://evil.example/", "//evil.example/", "javascript:alert(1)"):
        answer = client.post(reverse(url), {field: sound[field], "next": elsewhere})
        assert answer["Location"] == "/"
    assert (
        client.post(reverse(url), {field: sound[field], "next": "/runs/"})["Location"] == "/runs/"
    )


# --- workspaces ----------------------------------------------------------------------------------


@pytest.fixture
def in_two(alice: Person, charlie: Person) -> Person:
    """Alice, who is a viewer of Charlie's workspace too."""
    Membership.objects.create(workspace=charlie.workspace, user=alice.user, role="viewer")
    return alice


def shown_workspace(client: Client) -> str:
    page = client.get(reverse("account")).content.decode()
    return page.partition("<summary><span>")[2].partition("<")[0]


def test_a_person_in_two_workspaces_chooses_and_each_page_follows(
    in_two: Person, charlie: Person
) -> None:
    client, other = in_two.browser(), in_two.browser()
    assert shown_workspace(client) == "Acme"
    chosen = client.post(reverse("choose-workspace"), {"workspace": str(charlie.workspace.pk)})
    assert chosen["Location"] == reverse("start")
    assert shown_workspace(client) == "Elsewhere"
    assert "charlie" in client.get(reverse("members")).content.decode()
    assert client.get(reverse("keys")).status_code == 403, "there they only look"
    assert shown_workspace(other) == "Acme", "the choice is this browser's"


def test_a_person_in_one_workspace_is_not_asked_to_choose(alice: Person, in_two: Person) -> None:
    choice = "<legend>Workspace</legend>"
    assert choice in in_two.browser().get(reverse("account")).content.decode()
    Membership.objects.everywhere().filter(user=alice.user, role="viewer").delete()
    assert choice not in alice.browser().get(reverse("account")).content.decode()


@pytest.mark.parametrize("named", ["nonsense", "", "00000000-0000-0000-0000-000000000000", None])
def test_a_workspace_one_is_not_in_cannot_be_chosen_and_is_as_unknown_as_none(
    alice: Person, charlie: Person, named: str | None
) -> None:
    client = alice.browser()
    chosen = str(charlie.workspace.pk) if named is None else named
    answer = client.post(reverse("choose-workspace"), {"workspace": chosen})
    assert answer.status_code == 404
    assert shown_workspace(client) == "Acme"


def test_whoever_is_removed_from_the_chosen_workspace_is_back_in_another(
    in_two: Person, charlie: Person
) -> None:
    client = in_two.browser()
    client.post(reverse("choose-workspace"), {"workspace": str(charlie.workspace.pk)})
    assert client.session[CHOSEN] == str(charlie.workspace.pk)
    Membership.objects.in_workspace(charlie.workspace).filter(user=in_two.user).delete()
    assert shown_workspace(client) == "Acme"


def test_leaving_asks_first_and_is_in_the_audit_log(in_two: Person, charlie: Person) -> None:
    client = in_two.browser()
    url = reverse("leave-workspace", args=[charlie.workspace.pk])
    assert "Leave Elsewhere?" in client.get(url).content.decode()
    assert Membership.objects.in_workspace(charlie.workspace).count() == 2
    told = client.post(url, follow=True)
    assert "You have left Elsewhere." in told.content.decode()
    assert Membership.objects.in_workspace(charlie.workspace).count() == 1
    entry = AuditEntry.objects.in_workspace(charlie.workspace).latest("pk")
    assert (entry.action, entry.actor) == ("member.removed", "alice")


def test_a_workspace_one_is_not_in_cannot_be_left(alice: Person, charlie: Person) -> None:
    url = reverse("leave-workspace", args=[charlie.workspace.pk])
    assert alice.browser().get(url).status_code == 404
    assert alice.browser().post(url).status_code == 404
    assert Membership.objects.in_workspace(charlie.workspace).count() == 1


def test_one_who_is_in_no_workspace_has_an_account_and_is_told_why_there_is_no_more(
    db: None,
) -> None:
    user = User.objects.create_user(username="erin", password="erin-password")
    client = signed_in(user)
    page = client.get(reverse("account")).content.decode()
    assert "You are in no workspace." in page
    for path in (reverse("members"), reverse("keys")):
        assert path not in page
        refused = client.get(path)
        assert refused.status_code == 403
        assert "You are not a member of any workspace." in refused.content.decode()


# --- the password --------------------------------------------------------------------------------


def test_a_changed_password_ends_every_other_session_and_not_this_one(alice: Person) -> None:
    here, there = signed_in(alice.user), signed_in(alice.user)
    told = here.post(
        reverse("change-password"),
        {
            "old_password": "alice-password",
            "new_password1": "a much longer phrase",
            "new_password2": "a much longer phrase",
        },
        follow=True,
    )
    assert "Your password is changed." in told.content.decode()
    assert here.get(reverse("account")).status_code == 200
    assert there.get(reverse("account")).status_code == 302


@pytest.mark.parametrize(
    ("old", "new", "again", "reason"),
    [
        ("wrong", "a much longer phrase", "a much longer phrase", "entered incorrectly"),
        ("alice-password", "brief", "brief", "too short"),
        ("alice-password", "password123", "password123", "too common"),
        ("alice-password", "a much longer phrase", "another phrase", "match"),
    ],
)
def test_a_password_that_cannot_be_is_refused_with_the_reason(
    alice: Person, old: str, new: str, again: str, reason: str
) -> None:
    client = signed_in(alice.user)
    sent = {"old_password": old, "new_password1": new, "new_password2": again}
    answer = client.post(reverse("change-password"), sent)
    assert reason in answer.content.decode()
    assert new not in answer.content.decode()
    alice.user.refresh_from_db()
    assert alice.user.check_password("alice-password")


# --- signing in ----------------------------------------------------------------------------------


def test_signing_in_goes_on_to_the_page_that_was_asked_for_and_to_no_other_site(
    alice: Person,
) -> None:
    sent = {"username": "alice", "password": "alice-password"}
    asked = Client().get(reverse("members"))
    assert asked["Location"] == "/login/?next=/members/"
    went = {
        following: Client().post(reverse("login"), sent | {"next": following})["Location"]
        for following in ("/members/", "https://evil.example/", "//evil.example", "/\\evil.example")
    }
    assert went.pop("/members/") == "/members/"
    assert set(went.values()) == {"/"}


def test_a_wrong_name_and_a_wrong_password_are_told_alike_in_words(alice: Person) -> None:
    pages = [
        Client().post(reverse("login"), {"username": name, "password": "wrong"}).content.decode()
        for name in ("alice", "nobody")
    ]
    assert all("The name or the password is not right." in page for page in pages)
    assert all('role="alert"' in page for page in pages)


def test_signing_out_takes_a_press_and_ends_the_session(alice: Person) -> None:
    client = alice.browser()
    assert client.get(reverse("logout")).status_code == 405
    assert client.get(reverse("account")).status_code == 200
    assert client.post(reverse("logout"))["Location"] == reverse("login")
    assert client.get(reverse("account")).status_code == 302


def test_a_name_of_a_workspace_is_text_and_never_markup(alice: Person) -> None:
    Workspace.objects.filter(pk=alice.workspace.pk).update(name="<i>Acme</i> & Co")
    page = alice.browser().get(reverse("account")).content.decode()
    assert "<i>Acme" not in page
    assert "&lt;i&gt;Acme&lt;/i&gt; &amp; Co" in page


def test_another_theme_on_a_page_that_was_posted_leads_back_to_its_form(alice: Person) -> None:
    client = alice.browser()
    key = ApiKey.objects.in_workspace(alice.workspace).get()
    form = reverse("key", args=[key.public])
    refused = client.post(
        reverse("key-quotas", args=[key.public]),
        {"tokens_per_day": "x"},
        headers={"referer": f"http://testserver{form}"},
    )
    assert refused.status_code == 400
    back = re.search(r'name="next" value="([^"]*)"', refused.content.decode())
    assert back is not None
    answer = client.post(reverse("set-theme"), {"theme": "dark", "next": back[1]})
    assert answer["Location"] == f"http://testserver{form}"
    assert client.get(answer["Location"]).status_code == 200
