"""Who may do what: every route that changes or spends, for every role and every scope."""

import json
import re
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from orchestration.actions.claim_runs import claim_runs
from orchestration.models import Run
from tests.conftest import Person
from tests.docs.markdown import ROOT
from tests.isolation.asking import FORM, JSON
from tests.isolation.routes import Route, routes
from tests.runs import THREE, make_run, priced
from workspaces.actions.issue_key import issue_key
from workspaces.domain.quotas import Dimension
from workspaces.models import ApiKey, Invitation, Membership, Quota

pytestmark = pytest.mark.django_db(transaction=True)

# What changes or spends, and who may: owners, members, viewers, the scope a key needs ("" where no
# key is looked at). Whoever may not is told so, or sent to sign in.
EVERYBODY = ("owner", "member", "viewer")
WRITERS = ("owner", "member")
OWNERS = ("owner",)
CHANGES: dict[str, tuple[tuple[str, ...], str]] = {
    "/": (WRITERS, ""),
    "/runs/{run_id}/stop/": (WRITERS, ""),
    "/runs/{run_id}/replay/": (WRITERS, ""),
    "/api/run": (WRITERS, "runs:write"),
    "/api/runs/{run_id}/stop": (WRITERS, "runs:write"),
    "/api/runs/{run_id}/calls/{label}/stop": (WRITERS, "runs:write"),
    "/api/estimate": (EVERYBODY, "runs:read"),
    "/keys/new/": (OWNERS, ""),
    "/keys/{public}/quotas/": (OWNERS, ""),
    "/keys/{public}/rotate/": (OWNERS, ""),
    "/keys/{public}/revoke/": (OWNERS, ""),
    "/members/": (OWNERS, ""),
    "/members/{membership_id}/role/": (OWNERS, ""),
    "/members/{membership_id}/remove/": (OWNERS, ""),
    "/members/invitations/{invitation_id}/withdraw/": (OWNERS, ""),
}
# Of one's own alone: no role changes what they do.
OWN = {"/account/leave/{workspace_id}/", "/account/password/", "/account/workspace/", "/language/",
       "/theme/", "/login/", "/logout/", "/join/{token}/"}  # fmt: skip
# Where a provider is asked. A replay asks none.
BILLABLE = ("/", "/api/run")

ROUTES = {route.template: route for route in routes() if not route.is_console}
REFUSED = (302, 401, 403)


def takes_a_post(route: Route, ids: dict[str, Any], browser: Client) -> bool:
    kind, body = (JSON, "{}") if route.is_api else (FORM, "")
    answer = browser.generic("POST", route.address(ids), body, content_type=kind)
    return answer.status_code != 405


def ids_in(alice: Person) -> dict[str, Any]:
    run = make_run(alice)
    key = ApiKey.objects.in_workspace(alice.workspace).order_by("pk").last()
    invitation = Invitation.objects.create(
        workspace=alice.workspace, token_sha256="0" * 64, expires_at="2100-01-01T00:00:00Z"
    )
    guest = Membership.objects.in_workspace(alice.workspace).order_by("pk").last()
    assert key is not None
    assert guest is not None
    return {
        "run_id": run.pk, "label": "A", "public": key.public, "invitation_id": invitation.pk,
        "membership_id": guest.pk, "workspace_id": alice.workspace.pk, "token": "t" * 43,
    }  # fmt: skip


def test_every_route_that_takes_a_post_is_in_one_of_the_tables(alice: Person, vera: Person) -> None:
    ids = ids_in(alice)
    posts = {
        template for template, route in ROUTES.items() if takes_a_post(route, ids, alice.browser())
    }
    assert posts == CHANGES.keys() | OWN


def body_for(template: str) -> tuple[str, str]:
    """A question where one is asked; an empty form is refused for itself, after who may."""
    if template in ("/api/run", "/api/estimate"):
        return JSON, json.dumps({"prompt": "Why?", "models": [THREE[0]]})
    if ROUTES[template].is_api:
        return JSON, "{}"
    return FORM, "prompt=Why&models=local/brisk&pipeline=single" if template == "/" else ""


@pytest.mark.parametrize("template", CHANGES)
def test_each_role_may_what_the_table_says(
    alice: Person, bob: Person, vera: Person, template: str
) -> None:
    allowed, _ = CHANGES[template]
    people = {"viewer": vera, "member": bob, "owner": alice}
    ids = ids_in(alice)
    kind, body = body_for(template)
    for role, person in people.items():
        runs = Run.objects.everywhere().count()
        address = ROUTES[template].address(ids)
        status = person.browser().generic("POST", address, body, content_type=kind).status_code
        if role in allowed:
            assert status not in (401, 403, 404, 405), role
        else:
            assert status == 403, role
            assert Run.objects.everywhere().count() == runs


@pytest.mark.parametrize("template", CHANGES)
def test_each_scope_may_what_the_table_says_and_no_key_opens_a_page(
    alice: Person, template: str
) -> None:
    _, needed = CHANGES[template]
    ids = ids_in(alice)
    kind, body = body_for(template)
    for scope in ApiKey.Scope.values:
        key = issue_key(workspace=alice.workspace, name=scope, scopes=[scope])
        client = Client(headers={"Authorization": f"Bearer {key}"})
        runs = Run.objects.everywhere().count()
        answer = client.generic("POST", ROUTES[template].address(ids), body, content_type=kind)
        if needed and scope == needed:
            assert answer.status_code in (200, 202, 400), scope
        else:
            assert answer.status_code in REFUSED, scope
            assert answer.status_code != 302 or "/login/" in answer["Location"]
            assert Run.objects.everywhere().count() == runs


# --- nothing is spent past a budget --------------------------------------------------------------


@pytest.mark.parametrize("dimension", Dimension)
@pytest.mark.parametrize("template", BILLABLE)
def test_nothing_that_can_spend_does_so_without_a_budget(
    alice: Person, template: str, dimension: Dimension
) -> None:
    priced()
    recorded = make_run(alice)
    Run.objects.in_workspace(alice.workspace).update(status="done")
    Quota.objects.create(workspace=alice.workspace, dimension=dimension, limit=0)
    kind, body = body_for(template)
    client = alice.api() if template == "/api/run" else alice.browser()
    address = ROUTES[template].address({"run_id": recorded.pk})
    answer = client.generic("POST", address, body, content_type=kind)
    runs = Run.objects.in_workspace(alice.workspace)
    assert answer.status_code == 429, answer.content
    assert list(runs) == [recorded]
    # There is nothing that a driver could take to a provider.
    assert claim_runs(owner="test", limit=9, now=timezone.now()) == []


def test_every_way_into_a_run_is_billable_here() -> None:
    """``start_run`` is the only way to a provider; the routes that lead to it are the table's."""
    callers = {
        path.relative_to(ROOT).as_posix()
        for package in ("rexsite", "workspaces", "orchestration", "evals")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"(?<!def )\bstart_run\(", path.read_text(encoding="utf-8"))
    }
    assert callers == {"orchestration/api.py", "orchestration/views.py"}
    asking = {
        path.relative_to(ROOT).as_posix()
        for package in ("rexsite", "workspaces", "orchestration", "evals")
        for path in (ROOT / package).rglob("*.py")
        if "fanout" not in path.parts and re.search(r"\bget_client\(", path.read_text("utf-8"))
    }
    assert asking == {"orchestration/runner.py"}
