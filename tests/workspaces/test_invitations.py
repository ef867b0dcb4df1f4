"""Joining a workspace by a link: once, by whoever holds it, as a user there is or as a new one."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import connection
from django.utils import timezone

from tests.conftest import Person
from workspaces.access import workspaces_of
from workspaces.actions.accept_invitation import accept_invitation, register_and_accept
from workspaces.actions.change_role import change_role
from workspaces.actions.invite import invite
from workspaces.actions.remove_member import remove_member
from workspaces.actions.withdraw_invitation import withdraw_invitation
from workspaces.invitations import find_invitation
from workspaces.models import AuditEntry, Invitation, Membership
from workspaces.refused import InvalidRole, InvitationGone, NotAllowed

pytestmark = pytest.mark.django_db

GOOD = "a long enough secret"


def invited(alice: Person, role: str = "member") -> str:
    return invite(workspace=alice.workspace, role=role, note="for the new one", by=alice.actor)


def the_invitation() -> Invitation:
    return Invitation.objects.everywhere().get()


def actions() -> list[tuple[str, str]]:
    entries = AuditEntry.objects.everywhere().exclude(action="key.issued").order_by("pk")
    return [(entry.actor, entry.action) for entry in entries]


def test_a_user_joins_with_the_role_of_the_invitation(alice: Person, charlie: Person) -> None:
    token = invited(alice, role="viewer")
    found = find_invitation(token)
    assert found is not None
    assert (found.workspace, found.role) == (alice.workspace, "viewer")
    assert abs(found.expires_at - timezone.now() - timedelta(days=7)) < timedelta(minutes=1)

    assert accept_invitation(token=token, user=charlie.user) == alice.workspace
    assert workspaces_of(charlie.user) == [
        (charlie.workspace, "owner"),
        (alice.workspace, "viewer"),
    ]
    assert the_invitation().accepted_by == charlie.user
    assert actions() == [
        ("alice", "invitation.made"),
        ("charlie", "invitation.accepted"),
        ("charlie", "member.joined"),
    ]


def test_only_a_digest_of_the_token_is_kept(alice: Person) -> None:
    token = invited(alice)
    assert token not in str(list(Invitation.objects.everywhere().values()))
    assert token not in str(list(AuditEntry.objects.everywhere().values()))
    assert the_invitation().token_sha256 not in str(list(AuditEntry.objects.everywhere().values()))


@pytest.mark.parametrize("over", ["used", "withdrawn", "expired", "unknown", "garbled", "deleted"])
def test_an_invitation_that_is_over_is_one_answer_whatever_ended_it(
    alice: Person, bob: Person, charlie: Person, over: str
) -> None:
    token = invited(alice)
    match over:
        case "used":
            accept_invitation(token=token, user=User.objects.create_user("first"))
        case "withdrawn":
            withdraw_invitation(invitation=the_invitation(), by=alice.actor)
        case "expired":
            Invitation.objects.everywhere().update(expires_at=timezone.now())
        case "unknown":
            token = "a" * 43
        case "garbled":
            token = token[:-1] + "\x00"
        case "deleted":
            alice.workspace.delete()
    users = User.objects.count()
    assert find_invitation(token) is None
    with pytest.raises(InvitationGone, match="no longer valid"):
        accept_invitation(token=token, user=charlie.user)
    with pytest.raises(InvitationGone, match="no longer valid"):
        register_and_accept(token=token, username="late", password=GOOD)
    assert User.objects.count() == users
    assert len(workspaces_of(charlie.user)) == 1


def test_a_member_who_opens_an_invitation_keeps_their_role_and_leaves_it_to_others(
    alice: Person, vera: Person, charlie: Person
) -> None:
    token = invited(alice, role="owner")
    assert accept_invitation(token=token, user=vera.user) == alice.workspace
    assert workspaces_of(vera.user) == [(alice.workspace, "viewer")]
    accept_invitation(token=token, user=charlie.user)
    assert workspaces_of(charlie.user)[1] == (alice.workspace, "owner")


def test_a_new_user_registers_and_joins_in_one_step(alice: Person) -> None:
    user = register_and_accept(token=invited(alice), username="zoë", password=GOOD)
    assert user.check_password(GOOD)
    assert (user.is_staff, user.is_superuser, user.is_active) == (False, False, True)
    assert workspaces_of(user) == [(alice.workspace, "member")]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"password": "short"}, {"password"}),
        ({"password": "password123"}, {"password"}),
        ({"password": ""}, {"password"}),
        ({"username": ""}, {"username"}),
        ({"username": "with space"}, {"username"}),
        ({"username": "nul\x00"}, {"username"}),
        ({"username": "n" * 151}, {"username"}),
        ({"username": "alice"}, {"username"}),
        ({"username": "ALICE"}, {"username"}),
        ({"username": "a b", "password": "x"}, {"username", "password"}),
    ],
)
def test_a_name_or_password_that_will_not_do_is_told_and_uses_nothing_up(
    alice: Person, fields: dict[str, str], wrong: set[str]
) -> None:
    token = invited(alice)
    users = User.objects.count()
    with pytest.raises(ValidationError) as refused:
        register_and_accept(**{"token": token, "username": "new", "password": GOOD} | fields)
    assert set(refused.value.message_dict) == wrong
    assert User.objects.count() == users
    register_and_accept(token=token, username="new", password=GOOD)


def test_only_an_owner_invites_and_withdraws(alice: Person, bob: Person, charlie: Person) -> None:
    token = invited(alice)
    for by in (bob.actor, charlie.actor):
        with pytest.raises(NotAllowed):
            invite(workspace=alice.workspace, role="owner", note="", by=by)
        with pytest.raises(NotAllowed):
            withdraw_invitation(invitation=the_invitation(), by=by)
    assert find_invitation(token)
    with pytest.raises(InvalidRole):
        invite(workspace=alice.workspace, role="operator", note="", by=alice.actor)


def test_an_invitation_is_withdrawn_once_and_not_after_it_was_accepted(
    alice: Person, charlie: Person
) -> None:
    token = invited(alice)
    accept_invitation(token=token, user=charlie.user)
    withdraw_invitation(invitation=the_invitation(), by=alice.actor)
    assert the_invitation().withdrawn_at is None
    Invitation.objects.everywhere().update(accepted_at=None)
    for _ in range(2):
        withdraw_invitation(invitation=the_invitation(), by=alice.actor)
    assert [action for _, action in actions()].count("invitation.withdrawn") == 1


@pytest.mark.parametrize("ending", ["removed", "demoted", "left"])
def test_an_owner_who_goes_cannot_come_back_by_a_link_of_their_own(
    alice: Person, bob: Person, ending: str
) -> None:
    Membership.objects.filter(user=bob.user).update(role="owner")
    kept, own = invited(alice), invited(bob)
    place = Membership.objects.in_workspace(alice.workspace).get(user=bob.user)
    match ending:
        case "removed":
            remove_member(membership=place, by=alice.actor)
        case "demoted":
            change_role(membership=place, role="member", by=alice.actor)
        case "left":
            remove_member(membership=place, by=bob.actor)
    assert find_invitation(own) is None
    assert find_invitation(kept) is not None
    assert [action for _, action in actions()].count("invitation.withdrawn") == 1


@pytest.mark.django_db(transaction=True)
def test_of_many_who_hold_the_same_link_one_joins(alice: Person) -> None:
    token = invited(alice)
    users = [User.objects.create_user(f"guest{number}") for number in range(8)]
    ready = threading.Barrier(len(users))
    outcomes: list[Any] = []

    def join(user: User) -> None:
        ready.wait(timeout=10)
        try:
            outcomes.append(accept_invitation(token=token, user=user))
        except InvitationGone:
            outcomes.append(None)
        finally:
            connection.close()

    threads = [threading.Thread(target=join, args=(user,)) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(outcomes, key=bool) == [None] * 7 + [alice.workspace]
    assert Membership.objects.in_workspace(alice.workspace).count() == 2
