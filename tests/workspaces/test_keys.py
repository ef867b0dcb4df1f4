"""API keys: made once, limited, replaced, ended, and every change of them written down."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from tests.conftest import Person
from workspaces import last_used
from workspaces.access import Actor, actor_from_key, operator
from workspaces.actions.issue_key import ALL, issue_key
from workspaces.actions.reserve import QuotaExceeded, reserve
from workspaces.actions.revoke_key import revoke_key
from workspaces.actions.rotate_key import GRACES, rotate_key
from workspaces.actions.set_key_quota import set_key_quota
from workspaces.domain.quotas import Dimension, Hold, Offer
from workspaces.models import ApiKey, AuditEntry, Quota
from workspaces.refused import InvalidKey, InvalidQuota, KeyIsOver, NotAllowed

pytestmark = pytest.mark.django_db

NONE, HOUR, DAY, WEEK = GRACES


@pytest.fixture(autouse=True)
def _notes_are_taken() -> Iterator[None]:
    last_used.turn = last_used._Turn()
    yield
    last_used.turn = last_used._Turn()


def row_of(whole: str) -> ApiKey:
    return ApiKey.objects.everywhere().get(public=whole.split("-")[2])


def acting(whole: str) -> Actor:
    actor = actor_from_key(whole)
    assert actor is not None
    return actor


def made(person: Person, name: str = "ci", **fields: Any) -> str:
    return issue_key(workspace=person.workspace, name=name, by=person.actor, **fields)


def log_of(person: Person, action: str) -> list[AuditEntry]:
    return list(AuditEntry.objects.in_workspace(person.workspace).filter(action=action))


# --- making and ending ---------------------------------------------------------------------------


def test_a_key_may_do_what_it_was_made_for_and_no_more(alice: Person) -> None:
    key = acting(made(alice, scopes=["usage:read"]))
    assert (key.may_read, key.may_write, key.may_see_usage, key.may_manage) == (
        *(False, False, True),
        False,
    )
    assert key.why_not(ApiKey.Scope.USAGE_READ) == ""
    assert key.why_not(ApiKey.Scope.RUNS_WRITE) == "This takes a key with the scope runs:write."
    everything = acting(made(alice))
    assert everything.scopes == set(ALL)
    assert not everything.may_manage


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "  "},
        {"name": "n" * 121},
        {"scopes": []},
        {"scopes": ["runs:read", "admin"]},
        {"expires_at": timezone.now() - timedelta(seconds=1)},
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(alice: Person, wrong: dict[str, Any]) -> None:
    before = ApiKey.objects.everywhere().count()
    with pytest.raises(InvalidKey, match="A key"):
        made(alice, **wrong)
    assert ApiKey.objects.everywhere().count() == before


def test_only_an_owner_or_an_operator_manages_keys(
    alice: Person, bob: Person, vera: Person, charlie: Person
) -> None:
    row = row_of(made(alice))
    for by in (bob.actor, vera.actor, charlie.actor, acting(alice.key)):
        for change in (
            lambda by=by: issue_key(workspace=alice.workspace, name="mine", by=by),
            lambda by=by: revoke_key(key=row, by=by),
            lambda by=by: rotate_key(key=row, grace=DAY, by=by),
            lambda by=by: set_key_quota(key=row, dimension="tokens_per_day", limit=1, by=by),
        ):
            with pytest.raises(NotAllowed):
                change()
    row.refresh_from_db()
    assert (row.revoked_at, row.replaced_by, row.quotas.count()) == (None, None, 0)
    revoke_key(key=row, by=operator(charlie.user, alice.workspace))
    assert log_of(alice, "key.revoked")[0].actor == "charlie"


def test_a_key_is_revoked_once_and_its_end_is_written_down(alice: Person) -> None:
    whole = made(alice)
    revoke_key(key=row_of(whole), by=alice.actor, request_id="request-1")
    ended = row_of(whole).revoked_at
    revoke_key(key=row_of(whole), by=alice.actor)
    assert row_of(whole).revoked_at == ended
    assert actor_from_key(whole) is None

    (entry,) = log_of(alice, "key.revoked")
    assert (entry.actor, entry.user_id, entry.request_id) == ("alice", alice.user.pk, "request-1")
    assert entry.object_id == str(row_of(whole).pk)
    assert entry.before == {"revoked_at": None}
    assert set(entry.after) == {"revoked_at"}


def test_neither_a_secret_nor_its_digest_is_in_the_log_of_changes(alice: Person) -> None:
    whole = made(alice)
    newer = rotate_key(key=row_of(whole), grace=HOUR, by=alice.actor)
    revoke_key(key=row_of(whole), by=alice.actor)
    entries = str(list(AuditEntry.objects.everywhere().values()))
    assert "key.issued" in entries
    for key in (whole, newer):
        assert key.split("-", 3)[3] not in entries
        assert row_of(key).secret_sha256 not in entries


# --- replacing -----------------------------------------------------------------------------------


def test_a_rotated_key_and_its_successor_both_work_until_the_grace_is_over(alice: Person) -> None:
    old = made(alice, scopes=["runs:read"])
    new = rotate_key(key=row_of(old), grace=DAY, by=alice.actor)
    assert acting(old).scopes == acting(new).scopes == {"runs:read"}
    replaced, successor = row_of(old), row_of(new)
    assert (replaced.replaced_by, successor.name) == (successor, "ci")
    assert replaced.expires_at is not None
    assert abs(replaced.expires_at - timezone.now() - DAY) < timedelta(minutes=1)
    assert replaced.is_live(replaced.expires_at - timedelta(seconds=1))
    assert not replaced.is_live(replaced.expires_at)


def test_without_a_grace_the_old_key_ends_with_the_rotation(alice: Person) -> None:
    old = made(alice)
    new = rotate_key(key=row_of(old), grace=NONE, by=alice.actor)
    assert actor_from_key(old) is None
    assert actor_from_key(new) is not None


def test_a_rotation_lets_no_key_live_longer_than_it_would_have(alice: Person) -> None:
    soon = timezone.now() + timedelta(minutes=10)
    old = made(alice, expires_at=soon)
    new = rotate_key(key=row_of(old), grace=WEEK, by=alice.actor)
    assert row_of(old).expires_at == soon
    expires_at = row_of(new).expires_at
    assert expires_at is not None
    assert abs(expires_at - soon) < timedelta(minutes=1)


@pytest.mark.parametrize("over", ["revoked", "expired", "replaced"])
def test_a_key_that_is_over_is_neither_rotated_nor_limited(alice: Person, over: str) -> None:
    whole = made(alice)
    match over:
        case "revoked":
            revoke_key(key=row_of(whole), by=alice.actor)
        case "expired":
            ApiKey.objects.filter(workspace=alice.workspace).update(expires_at=timezone.now())
        case "replaced":
            rotate_key(key=row_of(whole), grace=WEEK, by=alice.actor)
    before = ApiKey.objects.everywhere().count()
    with pytest.raises(KeyIsOver):
        rotate_key(key=row_of(whole), grace=HOUR, by=alice.actor)
    with pytest.raises(KeyIsOver):
        set_key_quota(key=row_of(whole), dimension="tokens_per_day", limit=1, by=alice.actor)
    assert ApiKey.objects.everywhere().count() == before


def test_only_the_graces_there_are_can_be_chosen(alice: Person) -> None:
    for grace in (timedelta(days=365), timedelta(seconds=-1)):
        with pytest.raises(InvalidKey):
            rotate_key(key=row_of(alice.key), grace=grace, by=alice.actor)


# --- quotas --------------------------------------------------------------------------------------


def spend(whole: str, tokens: int) -> None:
    actor = acting(whole)
    with transaction.atomic():
        reserve(
            workspace=actor.workspace,
            subject=uuid4(),
            api_key=actor.api_key,
            pipeline="synthesis",
            offers=[Offer(1, (Hold("A", tokens, 0),))],
        )


def test_a_rotation_brings_no_fresh_budget(alice: Person) -> None:
    old = made(alice)
    set_key_quota(key=row_of(old), dimension=Dimension.TOKENS_PER_DAY, limit=100, by=alice.actor)
    spend(old, 60)
    new = rotate_key(key=row_of(old), grace=DAY, by=alice.actor)
    for key in (old, new):
        with pytest.raises(QuotaExceeded):
            spend(key, 41)
    spend(new, 30)
    newest = rotate_key(key=row_of(new), grace=DAY, by=alice.actor)
    for key in (old, new, newest):
        with pytest.raises(QuotaExceeded):
            spend(key, 11)
    spend(old, 10)
    spend(alice.key, 10_000)


def test_a_quota_set_after_a_rotation_counts_what_both_keys_used(alice: Person) -> None:
    old = made(alice)
    spend(old, 60)
    new = rotate_key(key=row_of(old), grace=DAY, by=alice.actor)
    set_key_quota(key=row_of(new), dimension="tokens_per_day", limit=100, by=alice.actor)
    for key in (old, new):
        with pytest.raises(QuotaExceeded):
            spend(key, 41)
    spend(new, 40)


def test_a_quota_of_a_key_is_set_changed_and_taken_away(alice: Person) -> None:
    row = row_of(alice.key)

    def set_to(limit: int | None) -> None:
        set_key_quota(key=row, dimension="concurrent_runs", limit=limit, by=alice.actor)

    def limits() -> list[int]:
        return [quota.limit for quota in Quota.objects.in_workspace(alice.workspace)]

    set_to(2)
    set_to(0)
    assert limits() == [0]
    set_to(None)
    set_to(None)
    assert limits() == []
    changes = [
        (entry.before.get("limit"), entry.after.get("limit"))
        for entry in AuditEntry.objects.in_workspace(alice.workspace)
        .filter(action__startswith="quota.")
        .order_by("pk")
    ]
    assert changes == [(None, 2), (2, 0), (0, None)]


@pytest.mark.parametrize(
    ("dimension", "limit"), [("tokens", 1), ("tokens_per_day", -1), ("tokens_per_day", 2**63)]
)
def test_a_quota_that_cannot_be_kept_is_refused(alice: Person, dimension: str, limit: int) -> None:
    with pytest.raises(InvalidQuota):
        set_key_quota(key=row_of(alice.key), dimension=dimension, limit=limit, by=alice.actor)
    assert not Quota.objects.everywhere().exists()


# --- when it was last used -----------------------------------------------------------------------


def test_the_use_of_a_key_is_noted_once_a_minute(alice: Person) -> None:
    assert row_of(alice.key).last_used_at is None
    acting(alice.key)
    first = row_of(alice.key).last_used_at
    assert first is not None
    acting(alice.key)
    assert row_of(alice.key).last_used_at == first

    earlier = first - timedelta(seconds=61)
    ApiKey.objects.filter(workspace=alice.workspace).update(last_used_at=earlier)
    acting(alice.key)
    later = row_of(alice.key).last_used_at
    assert later is not None
    assert later >= first


def test_a_key_that_is_turned_away_is_not_noted(alice: Person) -> None:
    revoke_key(key=row_of(alice.key), by=alice.actor)
    actor_from_key(alice.key)
    actor_from_key(f"sk-rex-{row_of(alice.key).public}-{'a' * 43}")
    assert row_of(alice.key).last_used_at is None


@pytest.mark.django_db(transaction=True)
def test_a_database_that_takes_no_writes_keeps_nobody_out_and_is_tried_once(
    alice: Person, caplog: pytest.LogCaptureFixture
) -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            ApiKey.objects.everywhere().update(name=F("name"))
            held.set()
            done.wait(timeout=30)
        connection.close()

    writer = threading.Thread(target=hold)
    writer.start()
    assert held.wait(timeout=10)
    if connection.vendor == "sqlite":
        connection.cursor().execute("PRAGMA busy_timeout = 50")
    try:
        for _ in range(5):
            assert acting(alice.key).workspace == alice.workspace
    finally:
        done.set()
        writer.join(timeout=30)
        connection.close()
    assert len([line for line in caplog.messages if "use_not_noted" in line]) == 1
    assert row_of(alice.key).last_used_at is None


# --- commands ------------------------------------------------------------------------------------


def told_by(*command: str) -> str:
    told = StringIO()
    call_command(*command, stdout=told)
    return told.getvalue().strip()


def test_a_command_makes_a_key_with_scopes_and_an_end(alice: Person) -> None:
    slug = alice.workspace.slug
    whole = told_by("issue_key", slug, "--scope", "runs:read", "--scope", "usage:read")
    assert acting(whole).scopes == {"runs:read", "usage:read"}
    assert row_of(whole).expires_at is None
    assert row_of(whole).created_by == "command line"
    for when, after in (("12h", timedelta(hours=12)), ("90d", timedelta(days=90))):
        expires_at = row_of(told_by("issue_key", slug, "--expires", when)).expires_at
        assert expires_at is not None
        assert abs(expires_at - timezone.now() - after) < timedelta(minutes=1)
    dated = row_of(told_by("issue_key", slug, "--expires", "2199-01-31T00:00:00Z"))
    assert dated.expires_at is not None
    assert dated.expires_at.year == 2199


@pytest.mark.parametrize(
    "when", ["", "soon", "0h", "-1d", "99999d", "2020-01-01T00:00:00Z", "2199-01-31", "2199-13-01T"]
)
def test_a_command_says_what_is_wrong_with_an_end(alice: Person, when: str) -> None:
    with pytest.raises(CommandError, match="expires"):
        told_by("issue_key", alice.workspace.slug, f"--expires={when}")


def test_a_command_revokes_a_key_by_its_public_part_and_repeats_nothing_else(
    alice: Person,
) -> None:
    told = told_by("revoke_key", row_of(alice.key).public)
    assert told == "Revoked: alice's key, of Acme."
    assert actor_from_key(alice.key) is None
    with pytest.raises(CommandError) as refused:
        told_by("revoke_key", alice.key)
    assert alice.key.split("-", 3)[3] not in str(refused.value)
