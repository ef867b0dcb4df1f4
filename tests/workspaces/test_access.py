"""Who is let in: keys and sessions become an actor in one workspace, or nothing, in one query."""

import json
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.utils import timezone

from tests.conftest import Person
from workspaces.access import (
    actor_from_authorization,
    actor_from_key,
    actor_from_session,
    actor_from_user,
    workspaces_of,
)
from workspaces.actions.bootstrap_workspace import bootstrap_workspace
from workspaces.actions.choose_workspace import choose_workspace
from workspaces.actions.issue_key import issue_key
from workspaces.models import ApiKey, Membership, Workspace

pytestmark = pytest.mark.django_db


def test_a_key_lets_one_act_in_its_workspace(alice: Person) -> None:
    actor = actor_from_key(alice.key)
    assert actor is not None
    assert (actor.workspace, actor.may_write) == (alice.workspace, True)
    assert actor.name.startswith("key ")
    assert alice.key.split("-")[-1] not in actor.name


def wrong_keys(key: str) -> list[str]:
    _, _, public, secret = key.split("-", 3)
    return [
        "",
        "sk-rex-",
        key[:-1],
        key + "x",
        key + "\n",
        key.upper(),
        f"sk-rex-{public}-{'a' * 43}",
        f"sk-rex-{'a' * 12}-{secret}",
        f"sk-rex-{public}-",
        "sk-rex-\x00",
        "ключ" * 1000,
    ]


def test_any_other_key_is_nobody_and_costs_the_same_one_query(
    alice: Person, django_assert_num_queries: Any
) -> None:
    # The first use within a minute is noted, which costs more.
    assert actor_from_key(alice.key)
    with django_assert_num_queries(1):
        assert actor_from_key(alice.key)
    for key in wrong_keys(alice.key):
        with django_assert_num_queries(1):
            assert actor_from_key(key) is None, key
        with django_assert_num_queries(1):
            assert actor_from_authorization(f"Basic {key}") is None


@pytest.mark.parametrize("ending", ["revoked_at", "expires_at"])
def test_a_key_that_is_over_is_nobody_after_the_same_one_query(
    alice: Person, django_assert_num_queries: Any, ending: str
) -> None:
    assert actor_from_key(alice.key)
    ApiKey.objects.filter(workspace=alice.workspace).update(**{ending: timezone.now()})
    with django_assert_num_queries(1):
        assert actor_from_key(alice.key) is None


def test_a_key_that_will_expire_is_good_until_then(alice: Person) -> None:
    later = timezone.now() + timedelta(minutes=1)
    ApiKey.objects.filter(workspace=alice.workspace).update(expires_at=later)
    assert actor_from_key(alice.key)


def test_only_a_digest_of_a_key_is_kept(alice: Person) -> None:
    secret = alice.key.split("-", 3)[3]
    row = ApiKey.objects.values().get()
    assert all(secret not in str(value) for value in row.values())
    assert secret not in str(ApiKey.objects.get())


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER   {} "])
def test_a_bearer_header_is_read_as_the_standard_says(alice: Person, form: str) -> None:
    assert actor_from_authorization(form.format(alice.key))


@pytest.mark.parametrize("form", ["{}", "Basic {}", "Bearer", "Bearer: {}", "Bearer {} {}", ""])
def test_any_other_header_is_nobody(alice: Person, form: str) -> None:
    assert actor_from_authorization(form.format(alice.key, alice.key)) is None


def test_a_member_acts_in_the_workspace_they_joined_first(alice: Person, charlie: Person) -> None:
    Membership.objects.create(workspace=charlie.workspace, user=alice.user)
    actor = actor_from_user(alice.user)
    assert actor is not None
    assert actor.workspace == alice.workspace


def test_a_member_acts_in_the_workspace_they_chose_while_they_belong_to_it(
    alice: Person, charlie: Person
) -> None:
    session = alice.browser().session
    joined = Membership.objects.create(
        workspace=charlie.workspace, user=alice.user, role=Membership.Role.VIEWER
    )
    choose_workspace(session, alice.user, charlie.workspace.pk)
    session.save()
    there = actor_from_session(session)
    assert there is not None
    assert (there.workspace, there.may_write) == (charlie.workspace, False)

    joined.delete()
    home = actor_from_session(session)
    assert home is not None
    assert home.workspace == alice.workspace


def test_a_foreign_workspace_is_chosen_no_more_than_one_that_is_not_there(
    alice: Person, charlie: Person
) -> None:
    session = alice.browser().session
    told = []
    for foreign in (charlie.workspace.pk, uuid4(), "", "x", "' OR 1=1 --", "\x00"):
        with pytest.raises(LookupError) as refused:
            choose_workspace(session, alice.user, foreign)
        told.append(str(refused.value))
        session["workspace"] = str(foreign)
        session.save()
        found = actor_from_session(session)
        assert found is not None
        assert found.workspace == alice.workspace
    assert len(set(told)) == 1


def test_the_workspaces_of_a_user_are_listed_with_their_role(
    alice: Person, charlie: Person
) -> None:
    Membership.objects.create(workspace=charlie.workspace, user=alice.user)
    assert workspaces_of(alice.user) == [(alice.workspace, "owner"), (charlie.workspace, "member")]
    assert workspaces_of(charlie.user) == [(charlie.workspace, "owner")]
    assert workspaces_of(AnonymousUser()) == []


@pytest.mark.parametrize("ending", ["signed out", "expired", "new password", "inactive", "deleted"])
def test_a_session_that_is_over_is_nobody(alice: Person, ending: str) -> None:
    session = alice.browser().session
    assert actor_from_session(session)
    match ending:
        case "signed out":
            Session.objects.all().delete()
        case "expired":
            Session.objects.update(expire_date=timezone.now())
        case "new password":
            alice.user.set_password("another one")
            alice.user.save()
        case "inactive":
            User.objects.update(is_active=False)
        case "deleted":
            alice.workspace.delete()
    assert actor_from_session(session) is None


def test_a_viewer_may_not_write(vera: Person, bob: Person) -> None:
    assert not vera.actor.may_write
    assert bob.actor.may_write


def test_strangers_and_the_inactive_are_nobody(alice: Person) -> None:
    assert actor_from_user(AnonymousUser()) is None
    assert actor_from_user(User.objects.create_user(username="nobody")) is None
    alice.user.is_active = False
    assert actor_from_user(alice.user) is None


# --- making keys and the first workspace ---------------------------------------------------------


def test_two_keys_are_never_alike_and_both_work(home: Workspace) -> None:
    keys = {issue_key(workspace=home, name="same name") for _ in range(5)}
    assert len(keys) == 5
    assert all(actor_from_key(key) for key in keys)


def test_the_first_start_makes_everything_once_and_shows_its_secrets_once() -> None:
    first, second = bootstrap_workspace(), bootstrap_workspace()
    assert first.password
    assert first.api_key
    assert (second.password, second.api_key) == (None, None)
    assert (first.workspace, first.username) == (second.workspace, second.username)
    user = User.objects.get()
    assert user.check_password(first.password)
    actor, keyed = actor_from_user(user), actor_from_key(first.api_key)
    assert actor is not None
    assert keyed is not None
    assert actor.workspace == keyed.workspace == Workspace.objects.get()
    assert Membership.objects.get().role == Membership.Role.OWNER


def test_what_a_start_that_broke_off_left_out_is_made_by_the_next() -> None:
    bootstrap_workspace()
    ApiKey.objects.all().delete()
    Membership.objects.all().delete()
    again = bootstrap_workspace()
    assert again.password is None
    assert actor_from_key(again.api_key or "")
    assert Membership.objects.count() == 1


def test_the_command_tells_programs_in_json_and_people_in_words() -> None:
    told = StringIO()
    call_command("bootstrap_workspace", "--json", stdout=told)
    made = json.loads(told.getvalue())
    assert set(made) == {"workspace", "username", "password", "api_key"}
    assert actor_from_key(made["api_key"])
    told = StringIO()
    call_command("bootstrap_workspace", stdout=told)
    assert told.getvalue() == "Workspace Home, user owner.\n"


def test_a_further_key_is_made_by_command_for_a_workspace_that_exists(home: Workspace) -> None:
    told = StringIO()
    call_command("issue_key", home.slug, "--name", "ci", stdout=told)
    actor = actor_from_key(told.getvalue().strip())
    assert actor is not None
    assert actor.workspace == home
    with pytest.raises(CommandError, match="There is no workspace 'nowhere'"):
        call_command("issue_key", "nowhere", stdout=told)
