"""Every way into the API: one key, one place for it, one answer to all that is none, and scopes."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.urls import URLResolver, get_resolver
from django.utils import timezone

from tests.conftest import Person
from tests.runs import make_run
from workspaces.actions.choose_workspace import choose_workspace
from workspaces.actions.issue_key import issue_key
from workspaces.models import ApiKey, Membership

pytestmark = pytest.mark.django_db(transaction=True)

READ, WRITE, USAGE = ApiKey.Scope.values

# What each address of the API takes.
TAKES = {
    ("POST", "/api/run"): WRITE,
    ("POST", "/api/estimate"): READ,
    ("GET", "/api/runs"): READ,
    ("GET", "/api/runs/{run_id}"): READ,
    ("GET", "/api/runs/{run_id}/events"): READ,
    ("POST", "/api/runs/{run_id}/stop"): WRITE,
    ("POST", "/api/runs/{run_id}/calls/A/stop"): WRITE,
    ("GET", "/api/quotas"): USAGE,
    ("GET", "/api/usage"): USAGE,
    ("GET", "/api/models"): READ,
}


def routes(resolver: URLResolver, prefix: str = "/") -> Iterator[str]:
    for each in resolver.url_patterns:
        route = f"{prefix}{each.pattern}"
        if isinstance(each, URLResolver):
            yield from routes(each, route)
        elif route.startswith("/api/"):
            yield route.replace("<uuid:run_id>", "{run_id}").replace("<str:label>", "A")


def asked(client: Client, method: str, route: str, run_id: Any, **headers: str) -> Any:
    body: Any = b"{}"
    address = route.format(run_id=run_id)
    return client.generic(method, address, body, content_type="application/json", headers=headers)


def told(response: Any) -> tuple[Any, ...]:
    """Status, headers and body without the request's id, which is new in every answer."""
    headers = {name: value for name, value in response.items() if name != "X-Request-Id"}
    text = re.sub(r'"request_id": ?"\w+"', "", response.content.decode())
    return response.status_code, headers, sorted(response.cookies), text


def test_every_address_of_the_api_is_known_here() -> None:
    assert {route for _, route in TAKES} == set(routes(get_resolver()))


# --- scopes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "route"), TAKES)
def test_a_key_without_the_scope_is_told_which_is_missing_and_nothing_else(
    alice: Person, method: str, route: str
) -> None:
    run = make_run(alice)
    needed = TAKES[method, route]
    for scope in ApiKey.Scope.values:
        key = issue_key(workspace=alice.workspace, name=scope, scopes=[scope])
        answer = asked(Client(), method, route, run.pk, Authorization=f"Bearer {key}")
        if scope == needed:
            assert answer.status_code in (200, 202, 400)
            continue
        body = answer.json()
        assert (answer.status_code, body["code"]) == (403, "forbidden")
        assert body["detail"] == f"This takes a key with the scope {needed}."


def test_a_key_that_may_not_read_learns_of_no_run_whether_it_is_there(
    alice: Person, charlie: Person
) -> None:
    run_ids = [make_run(person).pk for person in (alice, charlie)]
    key = issue_key(workspace=alice.workspace, name="writes", scopes=[USAGE])
    for method, route in TAKES:
        if "{run_id}" in route:
            answers = [
                told(asked(Client(), method, route, run_id, Authorization=f"Bearer {key}"))
                for run_id in run_ids
            ]
            assert answers[0] == answers[1]


def test_a_viewer_reads_and_is_told_that_they_may_do_no_more(alice: Person, vera: Person) -> None:
    run = make_run(alice)
    for (method, route), scope in TAKES.items():
        answer = asked(vera.browser(), method, route, run.pk)
        if scope == WRITE:
            assert answer.status_code == 403
            assert answer.json()["detail"] == "You may look at this workspace but not change it."
        else:
            assert answer.status_code in (200, 400), route


# --- what is no key ------------------------------------------------------------------------------


def no_keys(alice: Person) -> dict[str, str]:
    """Headers of everyone who is nobody, by what is wrong with them."""
    _, _, public, secret = alice.key.split("-", 3)
    whole = {}
    for over in ("revoked_at", "expires_at"):
        whole[over] = issue_key(workspace=alice.workspace, name=over)
        past = timezone.now() - timedelta(seconds=1)
        ApiKey.objects.filter(name=over).update(**{over: past})
    return {
        "revoked": f"Bearer {whole['revoked_at']}",
        "expired": f"Bearer {whole['expires_at']}",
        "unknown": f"Bearer sk-rex-{'a' * 12}-{secret}",
        "wrong secret": f"Bearer sk-rex-{public}-{'a' * 43}",
        "one letter off": f"Bearer {alice.key[:-1]}{'A' if alice.key[-1] != 'A' else 'B'}",
        "without a scheme": alice.key,
        "another scheme": f"Basic {alice.key}",
        "two keys": f"Bearer {alice.key}, Bearer {alice.key}",
        "empty": "",
        "sql": "Bearer sk-rex-' OR '1'='1' --",
        "sql behind": f"Bearer {alice.key}' OR 1=1 --",
        "nul": f"Bearer {alice.key}\x00",
        "format": "Bearer sk-rex-%s%s%n-{0.__class__}",
        "long": "Bearer " + "x" * 60_000,
        "not ascii": "Bearer sk-rex-ключ",
    }


@pytest.mark.parametrize(("method", "route"), TAKES)
def test_whatever_is_no_key_gets_one_and_the_same_answer(
    alice: Person, method: str, route: str
) -> None:
    run = make_run(alice)
    answers = {
        wrong: told(asked(Client(), method, route, run.pk, Authorization=header))
        for wrong, header in no_keys(alice).items()
    }
    assert len(set(map(str, answers.values()))) == 1, answers
    status, headers, cookies, text = answers["unknown"]
    assert (status, headers["WWW-Authenticate"], cookies) == (401, "Bearer", [])
    assert '"not_authenticated"' in text


def test_a_bad_key_is_not_made_good_by_a_session(alice: Person) -> None:
    run = make_run(alice)
    browser = alice.browser()
    for method, route in TAKES:
        refused = asked(browser, method, route, run.pk, Authorization="Bearer sk-rex-nothing")
        assert refused.status_code == 401, route


@pytest.mark.parametrize(("method", "route"), TAKES)
def test_a_key_is_read_from_one_place_alone(alice: Person, method: str, route: str) -> None:
    """A key in an address would be in logs; each further header would be a policy of its own."""
    run = make_run(alice)
    nobody = told(asked(Client(), method, route, run.pk))
    assert nobody[0] == 401
    elsewhere = ("X-Api-Key", "Api-Key", "X-Goog-Api-Key", "Proxy-Authorization", "X-Authorization")
    for name in elsewhere:
        for value in (alice.key, f"Bearer {alice.key}"):
            answer = asked(Client(), method, route, run.pk, **{name: value})
            assert told(answer) == nobody, name
    for name in ("key", "api_key", "access_token", "token", "Authorization"):
        assert told(asked(Client(), method, f"{route}?{name}={alice.key}", run.pk)) == nobody
        client = Client()
        client.cookies[name] = alice.key
        client.cookies[settings.SESSION_COOKIE_NAME] = alice.key
        # A cookie of a session there is none of may be taken back; nothing else may differ.
        answer = told(asked(client, method, route, run.pk))
        assert (answer[0], answer[3]) == (nobody[0], nobody[3])


def test_a_key_opens_no_page(alice: Person) -> None:
    for address in ("/", "/runs/", "/usage/", "/admin/"):
        answer = alice.api().get(address)
        assert (answer.status_code, "/login/" in answer["Location"]) == (302, True), address


# --- who is signed in ----------------------------------------------------------------------------


def test_the_chosen_workspace_is_what_pages_and_api_are_about(
    alice: Person, charlie: Person
) -> None:
    own, other = make_run(alice), make_run(charlie)
    Membership.objects.create(workspace=charlie.workspace, user=alice.user)
    browser = alice.browser()

    def seen() -> tuple[list[int], list[int]]:
        return tuple(  # type: ignore[return-value]
            [browser.get(f"{prefix}{run.pk}{suffix}").status_code for run in (own, other)]
            for prefix, suffix in (("/runs/", "/"), ("/api/runs/", ""))
        )

    assert seen() == ([200, 404], [200, 404])
    session = browser.session
    choose_workspace(session, alice.user, charlie.workspace.pk)
    session.save()
    assert seen() == ([404, 200], [404, 200])
    Membership.objects.filter(user=alice.user, workspace=charlie.workspace).delete()
    assert seen() == ([200, 404], [200, 404])


@pytest.mark.parametrize("ending", ["inactive", "removed", "deleted"])
def test_who_loses_their_place_is_out_at_once(alice: Person, bob: Person, ending: str) -> None:
    run = make_run(alice)
    browser, api = bob.browser(), bob.api()
    assert browser.get(f"/api/runs/{run.pk}").status_code == 200
    match ending:
        case "inactive":
            bob.user.is_active = False
            bob.user.save()
        case "removed":
            Membership.objects.filter(user=bob.user).delete()
        case "deleted":
            alice.workspace.delete()
    assert browser.get(f"/api/runs/{run.pk}").status_code == 401
    assert browser.get(f"/runs/{run.pk}/").status_code in (302, 403)
    if ending == "deleted":
        assert api.get(f"/api/runs/{run.pk}").status_code == 401
