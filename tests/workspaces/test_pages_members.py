"""The members' page: everybody sees it, owners change things, the last owner stays."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.conftest import Person
from workspaces.actions.invite import invite
from workspaces.invitations import find_invitation
from workspaces.models import AuditEntry, Invitation, Membership, Workspace

pytestmark = pytest.mark.django_db

Act = Callable[[Client, "Scene"], Any]


class Scene:
    """Alice's workspace with Bob, Vera and an open invitation."""

    def __init__(self, alice: Person, bob: Person, vera: Person, charlie: Person) -> None:
        self.people = {"alice": alice, "bob": bob, "vera": vera, "charlie": charlie}
        invite(workspace=alice.workspace, role="viewer", note="Dora", by=None)
        self.invitation = Invitation.objects.everywhere().get()

    def membership(self, name: str) -> Membership:
        return Membership.objects.everywhere().get(user__username=name)


@pytest.fixture
def scene(alice: Person, bob: Person, vera: Person, charlie: Person) -> Scene:
    return Scene(alice, bob, vera, charlie)


def set_role(client: Client, scene: Scene) -> Any:
    url = reverse("member-role", args=[scene.membership("vera").pk])
    return client.post(url, {"role": "member"})


def remove(client: Client, scene: Scene) -> Any:
    return client.post(reverse("member-remove", args=[scene.membership("vera").pk]))


def make_invitation(client: Client, scene: Scene) -> Any:
    return client.post(reverse("members"), {"role": "member", "note": "Erin"})


def withdraw(client: Client, scene: Scene) -> Any:
    return client.post(reverse("invitation-withdraw", args=[scene.invitation.pk]))


def state(workspace: Workspace) -> object:
    """All that an owner could change."""
    members = Membership.objects.in_workspace(workspace).order_by("pk")
    invitations = Invitation.objects.in_workspace(workspace).order_by("pk")
    return list(members.values_list("user_id", "role")), list(
        invitations.values_list("pk", "withdrawn_at")
    )


ACTS = [set_role, remove, make_invitation, withdraw]


@pytest.mark.parametrize("act", ACTS)
def test_an_owner_may_and_it_is_in_the_audit_log(scene: Scene, alice: Person, act: Act) -> None:
    before = state(alice.workspace)
    assert act(alice.browser(), scene).status_code in (200, 302)
    assert state(alice.workspace) != before
    entry = AuditEntry.objects.in_workspace(alice.workspace).latest("pk")
    assert (entry.actor, entry.user_id) == ("alice", alice.user.pk)
    assert entry.request_id


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("name", ["bob", "vera"])
def test_a_member_or_viewer_is_refused_in_words_and_nothing_changes(
    scene: Scene, alice: Person, name: str, act: Act
) -> None:
    before = state(alice.workspace)
    answer = act(scene.people[name].browser(), scene)
    assert answer.status_code == 403
    assert "Only an owner of the workspace may do this." in answer.content.decode()
    assert state(alice.workspace) == before


@pytest.mark.parametrize("act", ACTS)
def test_signed_out_one_is_asked_to_sign_in_and_nothing_changes(
    scene: Scene, alice: Person, act: Act
) -> None:
    before = state(alice.workspace)
    answer = act(Client(), scene)
    assert answer.status_code == 302
    assert answer["Location"].startswith("/login/?next=/members/")
    assert state(alice.workspace) == before


@pytest.mark.parametrize(
    "path",
    ["/members/{}/role/", "/members/{}/remove/", "/members/invitations/{}/withdraw/"],
)
def test_what_is_elsewhere_is_as_unknown_as_what_is_nowhere(
    scene: Scene, alice: Person, charlie: Person, path: str
) -> None:
    row: Membership | Invitation = scene.membership("alice")
    if "invitations" in path:
        row = scene.invitation
    before = state(alice.workspace)
    client = charlie.browser()
    pages = []
    for number in (row.pk, 99_999_999, 10**40):
        answer = client.post(
            path.format(number), {"role": "viewer"}, headers={"X-Request-Id": "the-same-one"}
        )
        assert answer.status_code == 404
        pages.append(normal(answer, path.format(number)))
    assert pages[0] == pages[1] == pages[2]
    assert state(alice.workspace) == before


def normal(answer: Any, path: str) -> str:
    """The page without what differs from request to request: its own path and its token."""
    text = answer.content.decode().replace(path, "PATH")
    token = text.partition('name="csrf-token" content="')[2].partition('"')[0]
    return "".join(
        line for line in text.splitlines(True) if "csrf" not in line and token not in line
    )


@pytest.mark.parametrize("name", ["alice", "bob", "vera"])
def test_all_members_see_who_is_in_and_only_owners_see_what_they_may_change(
    scene: Scene, name: str
) -> None:
    page = scene.people[name].browser().get(reverse("members")).content.decode()
    assert all(f"<strong>{each}</strong>" in page for each in ("alice", "bob", "vera"))
    assert "charlie" not in page
    for owners in ("Dora", "Make a link", 'name="role"', "/remove/"):
        assert (owners in page) == (name == "alice"), owners


def test_an_invitations_link_is_shown_once_and_works(scene: Scene, alice: Person) -> None:
    client = alice.browser()
    answer = make_invitation(client, scene)
    page = answer.content.decode()
    token = page.partition("/join/")[2].partition("/")[0]
    found = find_invitation(token)
    assert found is not None
    assert (found.role, found.note) == ("member", "Erin")
    assert f"http://testserver/join/{token}/" in page
    assert "no-store" in answer["Cache-Control"]
    assert token not in client.get(reverse("members")).content.decode()


def test_loading_the_page_of_an_invitation_again_makes_no_second_one(
    scene: Scene, alice: Person
) -> None:
    client = alice.browser()

    def marked() -> dict[str, str]:
        found = re.search(
            r'name="mark" value="([0-9a-f-]{36})"', client.get(reverse("members")).content.decode()
        )
        assert found
        return {"role": "member", "note": "Erin", "mark": found[1]}

    form = marked()
    refused = client.post(reverse("members"), form | {"role": "nobody"})
    assert refused.status_code == 400
    assert form["mark"] in refused.content.decode()
    first, again = (client.post(reverse("members"), form) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 409)
    assert "/join/" in first.content.decode()
    assert "/join/" not in again.content.decode()
    assert "This invitation was made already" in again.content.decode()
    for_erin = Invitation.objects.in_workspace(alice.workspace).filter(note="Erin")
    assert for_erin.count() == 1
    assert client.post(reverse("members"), marked()).status_code == 200
    assert for_erin.count() == 2


def test_a_withdrawn_invitation_is_no_longer_listed(scene: Scene, alice: Person) -> None:
    client = alice.browser()
    assert "Dora" in client.get(reverse("members")).content.decode()
    page = withdraw(client, scene)
    assert page.status_code == 302
    shown = client.get(reverse("members")).content.decode()
    assert "Dora" not in shown
    assert "The invitation is withdrawn." in shown


def test_an_expired_invitation_is_no_longer_listed(scene: Scene, alice: Person) -> None:
    Invitation.objects.everywhere().update(expires_at=timezone.now())
    assert "Dora" not in alice.browser().get(reverse("members")).content.decode()


def test_the_last_owner_stays_with_the_reason_until_there_is_another(
    scene: Scene, alice: Person
) -> None:
    client = alice.browser()
    own = scene.membership("alice")
    demote = reverse("member-role", args=[own.pk])
    leave = reverse("leave-workspace", args=[alice.workspace.pk])
    for answer in (client.post(demote, {"role": "viewer"}), client.post(leave)):
        assert answer.status_code == 409
        assert "A workspace needs an owner." in answer.content.decode()
    client.post(reverse("member-role", args=[scene.membership("bob").pk]), {"role": "owner"})
    assert client.post(leave).status_code == 302
    assert not Membership.objects.in_workspace(alice.workspace).filter(user=alice.user).exists()


def test_removing_asks_first_and_of_oneself_is_leaving(scene: Scene, alice: Person) -> None:
    client = alice.browser()
    asked = client.get(reverse("member-remove", args=[scene.membership("bob").pk]))
    assert "Remove bob?" in asked.content.decode()
    assert scene.membership("bob").role == "member"
    own = client.get(reverse("member-remove", args=[scene.membership("alice").pk]))
    assert own["Location"] == reverse("leave-workspace", args=[alice.workspace.pk])


@pytest.mark.parametrize("role", ["", "admin", "owner\x00", "Owner"])
def test_a_role_that_does_not_exist_is_refused_with_the_page(
    scene: Scene, alice: Person, role: str
) -> None:
    client = alice.browser()
    changed = client.post(reverse("member-role", args=[scene.membership("bob").pk]), {"role": role})
    assert changed.status_code == 400
    assert "There is no such role." in changed.content.decode()
    assert scene.membership("bob").role == "member"
    assert client.post(reverse("members"), {"role": role, "note": "x"}).status_code == 400
    assert Invitation.objects.everywhere().count() == 1


def test_a_name_is_text_and_never_markup(scene: Scene, alice: Person) -> None:
    user = User.objects.create_user(username="<b>mallory</b>")
    Membership.objects.create(workspace=alice.workspace, user=user, role="member")
    page = alice.browser().get(reverse("members")).content.decode()
    assert "<b>mallory" not in page
    assert "&lt;b&gt;mallory" in page
