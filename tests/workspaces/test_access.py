"""Who is let in: keys and sessions become an actor in one workspace, or nothing, in one query."""

import json
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.management import CommandError, call_command
from django.utils import timezone

from tests.conftest import Person
from workspaces.access import actor_from_authorization, actor_from_key, actor_from_user
from workspaces.actions.bootstrap_workspace import bootstrap_workspace
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
    with django_assert_num_queries(1):
        assert actor_from_key(alice.key)
    for key in wrong_keys(alice.key):
        with django_assert_num_queries(1):
            assert actor_from_key(key) is None, key


def test_a_revoked_key_is_nobody(alice: Person) -> None:
    assert actor_from_key(alice.key)
    ApiKey.objects.filter(workspace=alice.workspace).update(revoked_at=timezone.now())
    assert actor_from_key(alice.key) is None


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
