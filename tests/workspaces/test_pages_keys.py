"""The keys' pages: owners manage, members see, viewers do not; a key is shown once."""

import json
import re
import shlex
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.conftest import Person
from workspaces.access import actor_from_key
from workspaces.domain.quotas import Dimension
from workspaces.models import ApiKey, AuditEntry, Counter, Profile, Quota, Workspace

pytestmark = pytest.mark.django_db

Act = Callable[[Client, ApiKey], Any]
WHOLE = re.compile(r"sk-rex-[a-z0-9]{12}-[A-Za-z0-9_-]{43}")
ISSUE = {"name": "weekly sums", "scopes": ["runs:read"], "expires": "30"}


@pytest.fixture
def key(alice: Person) -> ApiKey:
    return ApiKey.objects.in_workspace(alice.workspace).get(name="alice's key")


def issue(client: Client, key: ApiKey) -> Any:
    return client.post(reverse("key-new"), ISSUE)


def rotate(client: Client, key: ApiKey) -> Any:
    return client.post(reverse("key-rotate", args=[key.public]), {"grace": "3600"})


def revoke(client: Client, key: ApiKey) -> Any:
    return client.post(reverse("key-revoke", args=[key.public]))


def limit(client: Client, key: ApiKey) -> Any:
    return client.post(
        reverse("key-quotas", args=[key.public]),
        {"requests_per_minute": "5", "cost_micro_usd_per_day": "2.5"},
    )


ACTS = [issue, rotate, revoke, limit]


def state(workspace: Workspace) -> object:
    """All that an owner could change."""
    keys = ApiKey.objects.in_workspace(workspace).order_by("pk")
    quotas = Quota.objects.in_workspace(workspace).order_by("pk")
    return list(keys.values("pk", "revoked_at", "expires_at", "replaced_by")), list(
        quotas.values("api_key", "dimension", "limit")
    )


@pytest.mark.parametrize("act", ACTS)
def test_an_owner_may_and_it_is_in_the_audit_log(alice: Person, key: ApiKey, act: Act) -> None:
    before = state(alice.workspace)
    assert act(alice.browser(), key).status_code in (200, 302)
    assert state(alice.workspace) != before
    entry = AuditEntry.objects.in_workspace(alice.workspace).latest("pk")
    assert (entry.actor, entry.user_id) == ("alice", alice.user.pk)
    assert entry.request_id


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("name", ["bob", "vera"])
def test_a_member_or_viewer_is_refused_in_words_and_nothing_changes(
    request: pytest.FixtureRequest, alice: Person, key: ApiKey, name: str, act: Act
) -> None:
    person: Person = request.getfixturevalue(name)
    before = state(alice.workspace)
    answer = act(person.browser(), key)
    assert answer.status_code == 403
    assert "Only an owner of the workspace may do this." in answer.content.decode()
    assert state(alice.workspace) == before


@pytest.mark.parametrize("act", ACTS)
def test_signed_out_one_is_asked_to_sign_in_and_nothing_changes(
    alice: Person, key: ApiKey, act: Act
) -> None:
    before = state(alice.workspace)
    assert act(Client(), key)["Location"].startswith("/login/?next=/keys/")
    assert act(alice.api(), key)["Location"].startswith("/login/?next=/keys/")
    assert state(alice.workspace) == before


def test_members_see_the_keys_and_viewers_do_not(
    alice: Person, bob: Person, vera: Person, key: ApiKey
) -> None:
    for path in (reverse("keys"), reverse("key", args=[key.public])):
        owners, members = alice.browser().get(path), bob.browser().get(path)
        assert f"sk-rex-{key.public}-…" in owners.content.decode()
        assert f"sk-rex-{key.public}-…" in members.content.decode()
        refused = vera.browser().get(path)
        assert refused.status_code == 403
        assert "Viewers do not see the API keys" in refused.content.decode()
        assert key.public not in refused.content.decode().replace(path, "")
    page = bob.browser().get(reverse("key", args=[key.public])).content.decode()
    assert not any(f"/{act}/" in page for act in ("rotate", "revoke", "quotas"))


@pytest.mark.parametrize("act", [rotate, revoke, limit])
def test_a_foreign_key_is_as_unknown_as_no_key(
    alice: Person, charlie: Person, key: ApiKey, act: Act
) -> None:
    before = state(alice.workspace)
    assert act(alice.browser(), ApiKey(public="nosuchkey000")).status_code == 404
    assert act(charlie.browser(), key).status_code == 404
    assert charlie.browser().get(reverse("key", args=[key.public])).status_code == 404
    assert state(alice.workspace) == before


def test_a_key_is_shown_once_and_may_what_was_chosen(alice: Person) -> None:
    client = alice.browser()
    answer = client.post(reverse("key-new"), ISSUE)
    shown = set(WHOLE.findall(answer.content.decode()))
    assert len(shown) == 1
    assert "no-store" in answer["Cache-Control"]
    actor = actor_from_key(shown.pop())
    assert actor is not None
    assert actor.scopes == {"runs:read"}
    row = ApiKey.objects.in_workspace(alice.workspace).get(name="weekly sums")
    assert row.created_by == "alice"
    assert row.expires_at is not None
    assert timedelta(days=29) < row.expires_at - timezone.now() < timedelta(days=31)
    for path in (reverse("keys"), reverse("key", args=[row.public]), reverse("account")):
        assert not WHOLE.search(client.get(path).content.decode())
    assert not WHOLE.search(json.dumps(list(AuditEntry.objects.everywhere().values()), default=str))


@pytest.mark.parametrize(
    ("scopes", "status"),
    [(["runs:read", "runs:write"], 202), (["runs:read"], 200), (["usage:read"], 200)],
)
def test_the_line_for_the_terminal_works(alice: Person, scopes: list[str], status: int) -> None:
    answer = alice.browser().post(reverse("key-new"), ISSUE | {"scopes": scopes})
    found = re.search(r'<code id="example"[^>]*>(.*?)</code>', answer.content.decode(), re.S)
    assert found
    command, address, *options = shlex.split(unescape(found[1]))
    assert command == "curl"
    assert address.startswith("http://testserver/api/")
    given = list(zip(options[::2], options[1::2], strict=True))
    headers = dict(value.split(": ", 1) for flag, value in given if flag == "-H")
    body = [value for flag, value in given if flag == "-d"]
    client, path = Client(headers=headers), address.removeprefix("http://testserver")
    told = (
        client.post(path, body[0], content_type=headers["Content-Type"])
        if body
        else client.get(path)
    )
    assert told.status_code == status, told.content


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"name": ""}, "This field is required."),
        ({"name": "x" * 121}, "at most 120 characters"),
        ({"name": "a\x00b"}, "Null characters are not allowed."),
        ({"scopes": []}, "A key that may do nothing is of no use."),
        ({"scopes": ["everything"]}, "everything is not one of the available choices"),
        ({"expires": "-1"}, "-1 is not one of the available choices"),
    ],
)
def test_a_key_that_cannot_be_made_is_refused_with_the_reason_and_what_was_written(
    alice: Person, wrong: dict[str, object], reason: str
) -> None:
    before = state(alice.workspace)
    answer = alice.browser().post(reverse("key-new"), ISSUE | wrong)
    page = answer.content.decode()
    assert answer.status_code == 400
    assert reason in page
    assert ("weekly sums" in page) == ("name" not in wrong)
    assert state(alice.workspace) == before


# --- a form makes one key ------------------------------------------------------------------------


def mark_on(page: str) -> str:
    found = re.search(r'<input[^>]* name="mark" value="([0-9a-f-]{36})"', page)
    assert found
    return found[1]


def shown_keys(*answers: Any) -> list[str]:
    return sorted({whole for each in answers for whole in WHOLE.findall(each.content.decode())})


def test_loading_the_page_of_a_new_key_again_makes_no_second_one(alice: Person) -> None:
    client = alice.browser()
    form = ISSUE | {"mark": mark_on(client.get(reverse("key-new")).content.decode())}
    first, again = (client.post(reverse("key-new"), form) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 409)
    assert len(shown_keys(first)) == 1
    assert not shown_keys(again)
    page = again.content.decode()
    assert "This key was made already, and is shown only once." in page
    assert f'href="{reverse("keys")}"' in page
    named = ApiKey.objects.in_workspace(alice.workspace).filter(name="weekly sums")
    assert named.count() == 1
    another = mark_on(client.get(reverse("key-new")).content.decode())
    assert client.post(reverse("key-new"), form | {"mark": another}).status_code == 200
    assert named.count() == 2, "the same name is no reason to refuse"


def test_loading_the_page_of_a_rotated_key_again_makes_no_second_one(
    alice: Person, key: ApiKey
) -> None:
    client = alice.browser()
    mark = mark_on(client.get(reverse("key", args=[key.public])).content.decode())
    url, form = reverse("key-rotate", args=[key.public]), {"grace": "3600", "mark": mark}
    first, again = (client.post(url, form) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 409)
    assert len(shown_keys(first)) == 1
    assert not shown_keys(again)
    assert "This key was made already, and is shown only once." in again.content.decode()
    assert ApiKey.objects.in_workspace(alice.workspace).count() == 2


def test_a_form_that_was_refused_can_be_sent_again(alice: Person) -> None:
    client = alice.browser()
    form = ISSUE | {"mark": mark_on(client.get(reverse("key-new")).content.decode())}
    refused = client.post(reverse("key-new"), form | {"name": ""})
    assert refused.status_code == 400
    assert mark_on(refused.content.decode()) == form["mark"]
    assert len(shown_keys(client.post(reverse("key-new"), form))) == 1


def test_a_mark_that_is_none_is_refused_with_the_reason(alice: Person) -> None:
    before = state(alice.workspace)
    answer = alice.browser().post(reverse("key-new"), ISSUE | {"mark": "\x00' OR 1"})
    assert answer.status_code == 400
    assert "errorlist" in answer.content.decode()
    assert state(alice.workspace) == before


def test_a_mark_says_nothing_of_another_workspace(alice: Person, charlie: Person) -> None:
    mark = mark_on(alice.browser().get(reverse("key-new")).content.decode())
    for person in (alice, charlie):
        answer = person.browser().post(reverse("key-new"), ISSUE | {"mark": mark})
        assert len(shown_keys(answer)) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("rotates", [False, True], ids=["new", "rotated"])
def test_a_form_sent_twice_at_once_makes_one_key(alice: Person, key: ApiKey, rotates: bool) -> None:
    where = reverse("key", args=[key.public]) if rotates else reverse("key-new")
    url = reverse("key-rotate", args=[key.public]) if rotates else where
    browsers = [alice.browser() for _ in range(4)]
    form: dict[str, Any] = {"mark": mark_on(browsers[0].get(where).content.decode())}
    form |= {"grace": "3600"} if rotates else ISSUE
    ready = threading.Barrier(len(browsers))
    answers: list[Any] = []

    def send(client: Client) -> None:
        try:
            ready.wait(timeout=10)
            answers.append(client.post(url, form))
        finally:
            connection.close()

    threads = [threading.Thread(target=send, args=(client,)) for client in browsers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    assert len(shown_keys(*answers)) == 1
    assert ApiKey.objects.in_workspace(alice.workspace).count() == 2


# --- rotating and revoking ------------------------------------------------------------------------


def test_a_rotated_key_has_a_successor_and_goes_on_for_the_time_that_was_chosen(
    alice: Person, key: ApiKey
) -> None:
    client = alice.browser()
    limit(client, key)
    answer = rotate(client, key)
    whole = set(WHOLE.findall(answer.content.decode()))
    assert len(whole) == 1
    assert "no-store" in answer["Cache-Control"]
    assert actor_from_key(whole.pop())
    assert actor_from_key(alice.key)
    page = client.get(reverse("key", args=[key.public])).content.decode()
    key.refresh_from_db()
    assert key.replaced_by is not None
    assert reverse("key", args=[key.replaced_by.public]) in page
    assert "replaced, still valid" in page
    assert "/rotate/" not in page
    assert "/revoke/" in page, "it can still be ended early"
    again = rotate(client, key)
    assert again.status_code == 409
    assert "replaced by another" in again.content.decode()
    assert not WHOLE.search(again.content.decode())


def test_a_grace_that_is_not_offered_is_refused(alice: Person, key: ApiKey) -> None:
    answer = alice.browser().post(reverse("key-rotate", args=[key.public]), {"grace": "99999999"})
    assert answer.status_code == 400
    key.refresh_from_db()
    assert key.replaced_by is None


def test_revoking_asks_first_and_then_ends_the_key(alice: Person, key: ApiKey) -> None:
    client = alice.browser()
    asked = client.get(reverse("key-revoke", args=[key.public]))
    assert "Revoke “alice&#x27;s key”?" in asked.content.decode()
    assert actor_from_key(alice.key)
    told = client.post(reverse("key-revoke", args=[key.public]), follow=True)
    assert "is revoked." in told.content.decode()
    assert actor_from_key(alice.key) is None
    page = client.get(reverse("key", args=[key.public])).content.decode()
    assert not any(f"/{act}/" in page for act in ("rotate", "revoke", "quotas"))
    assert revoke(client, key).status_code == 302, "twice is as good as once"
    asked = client.get(reverse("key-revoke", args=[key.public]))
    assert asked.status_code == 302, "there is nothing left to ask"


# --- the limits of a key -------------------------------------------------------------------------


def limits_of(key: ApiKey) -> dict[str, int]:
    return dict(
        Quota.objects.in_workspace(key.workspace)
        .filter(api_key=key)
        .values_list("dimension", "limit")
    )


def test_limits_are_set_in_the_units_of_the_page_and_taken_away_when_left_empty(
    alice: Person, key: ApiKey
) -> None:
    client = alice.browser()
    url = reverse("key-quotas", args=[key.public])
    client.post(url, {"requests_per_minute": "5", "cost_micro_usd_per_day": "0.000001"})
    assert limits_of(key) == {"requests_per_minute": 5, "cost_micro_usd_per_day": 1}
    page = client.get(reverse("key", args=[key.public])).content.decode()
    assert 'name="requests_per_minute" value="5"' in page
    assert 'name="cost_micro_usd_per_day" value="0.000001"' in page
    client.post(url, {"cost_micro_usd_per_day": "12", "tokens_per_day": "0"})
    assert limits_of(key) == {"cost_micro_usd_per_day": 12_000_000, "tokens_per_day": 0}
    client.post(url, {})
    assert limits_of(key) == {}


def test_limits_are_shown_and_checked_as_their_reader_writes_numbers(
    alice: Person, key: ApiKey
) -> None:
    Profile.objects.create(user=alice.user, language="de")
    url = reverse("key", args=[key.public])
    limits = {"tokens_per_day": "5.000", "cost_micro_usd_per_day": "1.234,5"}
    set_limits = reverse("key-quotas", args=[key.public])
    alice.browser().post(set_limits, limits)
    kept = {"tokens_per_day": 5_000, "cost_micro_usd_per_day": 1_234_500_000}
    assert limits_of(key) == kept
    german = alice.browser().get(url).content.decode()
    # "5,000" would be five.
    assert "von 5.000<" in german
    assert "von $1.234,50<" in german
    Profile.objects.update(language="en")
    english = alice.browser().get(url).content.decode()
    assert "of 5,000<" in english
    assert "of $1,234.50<" in english
    assert 'value="1234.5"' in english
    assert 'value="1234,5"' in german
    # To a reader of English those are other numbers, or none.
    for wrong in ("5.000", "1.234,5", "5,00"):
        assert alice.browser().post(set_limits, {"tokens_per_day": wrong}).status_code == 400
    assert limits_of(key) == kept
    alice.browser().post(set_limits, {"tokens_per_day": "6,000"})
    assert limits_of(key) == {"tokens_per_day": 6_000}


def test_times_on_a_workspaces_pages_are_those_of_the_workspace(alice: Person, key: ApiKey) -> None:
    Workspace.objects.update(time_zone="Asia/Tokyo")
    made = datetime(2026, 11, 23, 18, 4, tzinfo=UTC)
    ApiKey.objects.in_workspace(alice.workspace).filter(pk=key.pk).update(created_at=made)
    page = alice.browser().get(reverse("key", args=[key.public])).content.decode()
    assert "24 Nov 2026, 03:04" in page
    assert "Times in Asia/Tokyo" in page


@pytest.mark.parametrize("wrong", ["-1", "1.5", "many", "1e400", "NaN", "9" * 40])
def test_one_wrong_limit_leaves_all_of_them_as_they_were(
    alice: Person, key: ApiKey, wrong: str
) -> None:
    answer = alice.browser().post(
        reverse("key-quotas", args=[key.public]),
        {"requests_per_minute": "5", "tokens_per_day": wrong},
    )
    assert answer.status_code == 400
    assert "errorlist" in answer.content.decode()
    assert limits_of(key) == {}


def test_the_limits_of_a_key_that_has_ended_cannot_be_set(alice: Person, key: ApiKey) -> None:
    client = alice.browser()
    revoke(client, key)
    answer = limit(client, key)
    assert answer.status_code == 409
    assert "This key is revoked" in answer.content.decode()
    assert limits_of(key) == {}


def test_a_keys_page_shows_what_it_used_and_no_other_keys_use(alice: Person, key: ApiKey) -> None:
    Quota.objects.create(
        workspace=alice.workspace, api_key=key, dimension=Dimension.CONCURRENT_RUNS, limit=4
    )
    Quota.objects.create(
        workspace=alice.workspace, dimension=Dimension.TOKENS_PER_DAY, limit=777_777
    )
    Counter.objects.create(workspace=alice.workspace, scope=f"key:{key.lineage}", runs=3)
    page = alice.browser().get(reverse("key", args=[key.public])).content.decode()
    assert "3 of 4" in page
    assert 'value="75" max="100"' in page
    assert "777" not in page
