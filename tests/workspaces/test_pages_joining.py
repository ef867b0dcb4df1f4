"""The page behind an invitation: join as who you are, or as somebody new."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.conftest import Person
from workspaces.actions.invite import invite
from workspaces.actions.withdraw_invitation import withdraw_invitation
from workspaces.models import Invitation, Membership

pytestmark = pytest.mark.django_db

DORA = {"username": "dora", "password1": "a phrase of dora", "password2": "a phrase of dora"}


@pytest.fixture
def token(alice: Person) -> str:
    return invite(workspace=alice.workspace, role="viewer", note="Dora", by=None)


def role_of(name: str, alice: Person) -> str | None:
    rows = Membership.objects.in_workspace(alice.workspace).filter(user__username=name)
    return rows.values_list("role", flat=True).first()


def test_somebody_new_registers_joins_and_is_signed_in(alice: Person, token: str) -> None:
    client = Client()
    url = reverse("join", args=[token])
    asked = client.get(url)
    assert "Join Acme" in asked.content.decode()
    assert "no-store" in asked["Cache-Control"]
    told = client.post(url, DORA, follow=True)
    assert "You are in Acme now." in told.content.decode()
    assert role_of("dora", alice) == "viewer"
    assert User.objects.get(username="dora").check_password("a phrase of dora")
    assert client.get(reverse("members")).status_code == 200


def test_somebody_who_has_an_account_signs_in_first_and_comes_back(
    alice: Person, charlie: Person, token: str
) -> None:
    client = Client()
    url = reverse("join", args=[token])
    assert f'href="{reverse("login")}?next={url}"' in client.get(url).content.decode()
    sent = {"username": "charlie", "password": "charlie-password", "next": url}
    assert client.post(reverse("login"), sent)["Location"] == url
    page = client.get(url).content.decode()
    assert "Join as charlie" in page
    assert "password1" not in page
    told = client.post(url, follow=True)
    assert "You are in Acme now." in told.content.decode()
    assert "<summary><span>Acme" in told.content.decode(), "and the pages are about it"
    assert role_of("charlie", alice) == "viewer"


def test_a_member_is_told_so_and_the_invitation_stays_open(
    alice: Person, bob: Person, token: str
) -> None:
    url = reverse("join", args=[token])
    assert "You are a member already." in bob.browser().get(url).content.decode()
    bob.browser().post(url)
    assert role_of("bob", alice) == "member"
    assert Invitation.objects.everywhere().get().accepted_at is None


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("signed_in", [False, True])
def test_used_withdrawn_expired_and_unknown_are_one_answer(
    alice: Person, charlie: Person, method: str, signed_in: bool
) -> None:
    tokens = [invite(workspace=alice.workspace, role="owner", note="", by=None) for _ in range(3)]
    used, withdrawn, expired = Invitation.objects.everywhere().order_by("pk")
    assert Client().post(reverse("join", args=[tokens[0]]), DORA).status_code == 302
    withdraw_invitation(invitation=withdrawn, by=None)
    Invitation.objects.everywhere().filter(pk=expired.pk).update(
        expires_at=timezone.now() - timedelta(seconds=1)
    )
    members = Membership.objects.everywhere().count()
    client = charlie.browser() if signed_in else Client()
    pages = set()
    for token in (*tokens, "x" * 43, "x", "é" * 43, "a" * 4000):
        url = reverse("join", args=[token])
        answer = getattr(client, method)(
            url, DORA | {"username": "mallory"}, headers={"X-Request-Id": "the-same-one"}
        )
        assert answer.status_code == 404
        # The theme switch leads back to the address that was asked for.
        page = answer.content.decode().replace(url, "<address>")
        assert "This invitation is no longer valid." in page
        pages.add("".join(line for line in page.splitlines() if "csrf" not in line))
    assert len(pages) == 1
    assert Membership.objects.everywhere().count() == members
    assert not User.objects.filter(username="mallory").exists()
    assert used.pk


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"username": "alice"}, "A user with that "),
        ({"username": "ALICE"}, "A user with that name exists."),
        ({"username": ""}, "This field is required."),
        ({"username": "a b"}, "Enter a valid username."),
        ({"password1": "short", "password2": "short"}, "too short"),
        ({"password1": "password123", "password2": "password123"}, "too common"),
        ({"password2": "another phrase"}, "match"),
    ],
)
def test_an_account_that_cannot_be_made_is_refused_with_the_reason_and_nothing_is_used_up(
    alice: Person, token: str, wrong: dict[str, str], reason: str
) -> None:
    client = Client()
    url = reverse("join", args=[token])
    before = User.objects.count()
    answer = client.post(url, DORA | wrong)
    page = answer.content.decode()
    assert answer.status_code == 400
    assert reason in page
    assert DORA["password1"] not in page
    assert User.objects.count() == before
    assert client.post(url, DORA).status_code == 302
