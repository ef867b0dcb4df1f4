"""Who belongs to a workspace, who may change that, and that somebody always can."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

from tests.conftest import Person
from workspaces.access import Actor, actor_from_key, operator
from workspaces.actions.change_role import change_role
from workspaces.actions.remove_member import remove_member
from workspaces.models import AuditEntry, Membership, Workspace
from workspaces.refused import InvalidRole, LastOwner, NotAllowed

pytestmark = pytest.mark.django_db

OWNER, MEMBER, VIEWER = Membership.Role.values


def place_of(person: Person) -> Membership:
    return Membership.objects.in_workspace(person.workspace).get(user=person.user)


def make_owner(person: Person) -> None:
    Membership.objects.filter(user=person.user).update(role=OWNER)


def changes(workspace: Workspace) -> list[tuple[str, str, Any, Any]]:
    """(who, what, role before, role after) of every change of a membership."""
    entries = AuditEntry.objects.in_workspace(workspace).filter(action__startswith="member.")
    return [
        (entry.actor, entry.action, entry.before.get("role"), entry.after.get("role"))
        for entry in entries.order_by("pk")
    ]


def test_an_owner_changes_roles_and_removes_members(alice: Person, bob: Person) -> None:
    change_role(membership=place_of(bob), role=VIEWER, by=alice.actor)
    assert not bob.actor.may_write
    change_role(membership=place_of(bob), role=VIEWER, by=alice.actor)
    remove_member(membership=place_of(bob), by=alice.actor)
    assert not Membership.objects.in_workspace(alice.workspace).filter(user=bob.user).exists()
    assert changes(alice.workspace) == [
        ("alice", "member.role_changed", "member", "viewer"),
        ("alice", "member.removed", "viewer", None),
    ]


def test_whoever_has_left_already_is_left_alone(alice: Person, bob: Person) -> None:
    place = place_of(bob)
    remove_member(membership=place, by=alice.actor)
    place = Membership(pk=place.pk or 0, workspace=alice.workspace, user=bob.user)
    remove_member(membership=place, by=alice.actor)
    assert len(changes(alice.workspace)) == 1


def test_keys_stay_with_the_workspace_when_a_member_goes(alice: Person, bob: Person) -> None:
    remove_member(membership=place_of(bob), by=alice.actor)
    assert actor_from_key(bob.key)


def test_nobody_but_an_owner_or_an_operator_changes_who_belongs(
    alice: Person, bob: Person, vera: Person, charlie: Person
) -> None:
    keyed = actor_from_key(alice.key)
    assert keyed is not None
    for by in (bob.actor, charlie.actor, keyed, operator(alice.user, charlie.workspace)):
        with pytest.raises(NotAllowed):
            change_role(membership=place_of(vera), role=OWNER, by=by)
        with pytest.raises(NotAllowed):
            remove_member(membership=place_of(vera), by=by)
    assert place_of(vera).role == VIEWER
    change_role(membership=place_of(vera), role=MEMBER, by=operator(charlie.user, alice.workspace))
    assert changes(alice.workspace) == [("charlie", "member.role_changed", "viewer", "member")]


def test_an_owner_who_was_demoted_a_moment_ago_changes_nothing_more(
    alice: Person, bob: Person, vera: Person
) -> None:
    make_owner(bob)
    still_thinks_so = bob.actor
    change_role(membership=place_of(bob), role=MEMBER, by=alice.actor)
    with pytest.raises(NotAllowed):
        remove_member(membership=place_of(vera), by=still_thinks_so)
    assert place_of(vera).role == VIEWER


def test_anyone_may_leave(alice: Person, bob: Person, vera: Person) -> None:
    for person in (bob, vera):
        remove_member(membership=place_of(person), by=person.actor)
    assert Membership.objects.in_workspace(alice.workspace).count() == 1


def test_a_role_there_is_not_is_refused(alice: Person, bob: Person) -> None:
    for role in ("", "admin", "operator", "OWNER"):
        with pytest.raises(InvalidRole):
            change_role(membership=place_of(bob), role=role, by=alice.actor)
    assert place_of(bob).role == MEMBER


def test_the_last_owner_neither_leaves_nor_steps_down(alice: Person, bob: Person) -> None:
    by_operator = operator(bob.user, alice.workspace)
    for by in (alice.actor, by_operator):
        with pytest.raises(LastOwner, match="needs an owner"):
            remove_member(membership=place_of(alice), by=by)
        with pytest.raises(LastOwner):
            change_role(membership=place_of(alice), role=MEMBER, by=by)
    assert changes(alice.workspace) == []
    make_owner(bob)
    change_role(membership=place_of(alice), role=MEMBER, by=alice.actor)
    assert place_of(bob).role == OWNER


def test_an_owner_who_cannot_sign_in_is_no_owner_to_leave_it_to(alice: Person, bob: Person) -> None:
    make_owner(bob)
    User.objects.filter(pk=bob.user.pk).update(is_active=False)
    with pytest.raises(LastOwner):
        remove_member(membership=place_of(alice), by=alice.actor)


Change = Callable[[Membership, Actor], None]


def remove(place: Membership, by: Actor) -> None:
    remove_member(membership=place, by=by)


def demote(place: Membership, by: Actor) -> None:
    change_role(membership=place, role=MEMBER, by=by)


def refusals_of(*changes: Callable[[], None]) -> list[Exception]:
    """What is refused of ``changes`` that begin at one moment, each in a thread of its own."""
    ready = threading.Barrier(len(changes))
    refusals: list[Exception] = []

    def make(change: Callable[[], None]) -> None:
        ready.wait(timeout=10)
        try:
            change()
        except (LastOwner, NotAllowed) as refused:
            refusals.append(refused)
        finally:
            connection.close()

    threads = [threading.Thread(target=make, args=(change,)) for change in changes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return refusals


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", [remove, demote])
@pytest.mark.parametrize("at_themselves", [True, False])
def test_of_owners_who_act_at_the_same_moment_one_is_left(
    alice: Person, bob: Person, change: Change, at_themselves: bool
) -> None:
    for _ in range(5):
        for person in (alice, bob):
            Membership.objects.update_or_create(
                workspace=alice.workspace, user=person.user, defaults={"role": OWNER}
            )
        targets = (alice, bob) if at_themselves else (bob, alice)
        refusals = refusals_of(
            *(
                partial(change, place_of(target), by.actor)
                for target, by in zip(targets, (alice, bob), strict=True)
            )
        )
        owners = Membership.objects.in_workspace(alice.workspace).filter(role=OWNER)
        assert owners.count() == 1
        assert len(refusals) == 1
