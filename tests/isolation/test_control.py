"""The other half of the crawl: what nobody else finds, those whose it is do find. Else the crawl
would pass on pages that show nothing, and on a canary that is planted nowhere."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

from orchestration.models import ModelPrice, PausedModel
from tests.isolation.asking import Told, ask
from tests.isolation.routes import Route, routes
from tests.isolation.world import Place, World

# What its own people read of a workspace, and where.
SHOWN = {
    "/": ["prompt", "workspace-name"],
    "/runs/": ["prompt-queued", "prompt-of-what-runs", "prompt-done"],
    "/runs.csv": ["started-by"],
    "/usage/": ["started-by", "pipeline-of-quota"],
    "/usage.csv": ["started-by"],
    "/runs/{run_id}/": ["prompt", "said-by-a", "synthesis", "call-message", "title"],
    "/account/": ["workspace-name"],
    "/account/leave/{workspace_id}/": ["workspace-name"],
    "/members/": ["workspace-name", "invitation-note", "invited-by"],
    "/members/{membership_id}/remove/": ["workspace-name"],
    "/keys/": ["key-name", "key-revoked", "key-expired", "key-made-by", "key-of-member"],
    "/keys/{public}/": ["key-name", "key-made-by"],
    "/keys/{public}/revoke/": ["key-name"],
    "/api/runs": ["prompt-done", "started-by"],
    "/api/runs/{run_id}": ["prompt", "said-by-a", "synthesis", "call-message", "title"],
    "/api/runs/{run_id}/events": ["said-by-a", "synthesis"],
    "/api/quotas": ["pipeline-of-quota"],
    "/api/usage": ["started-by"],
}
# What operators read in the console, of all workspaces.
SHOWN_TO_OPERATORS = {
    "/admin/workspaces/workspace/": ["workspace-name"],
    "/admin/workspaces/workspace/{workspaces.workspace}/change/": ["workspace-name"],
    "/admin/workspaces/apikey/": ["key-name", "key-revoked"],
    "/admin/workspaces/apikey/{workspaces.apikey}/change/": ["key-name"],
    "/admin/workspaces/quotaoverride/": ["override-by"],
    "/admin/workspaces/quotaoverride/{workspaces.quotaoverride}/change/": ["override-reason"],
    "/admin/workspaces/auditentry/": ["audit-actor", "audit-object"],
    "/admin/workspaces/auditentry/{workspaces.auditentry}/change/": ["audit-before", "audit-after"],
    "/admin/orchestration/run/": ["workspace-name"],
    "/admin/orchestration/run/{orchestration.run}/change/": ["workspace-name"],
    "/admin/workspaces/reservation/{workspaces.reservation}/change/": ["workspace-name"],
}
# What was asked and answered is read by no operator.
CONTENT = (
    "prompt", "said-by-a", "synthesis", "answer", "text", "draft", "block", "failure", "seed",
)  # fmt: skip

ROUTES = {route.template: route for route in routes()}


def ids_of(place: Place) -> dict[str, object]:
    return place.ids | {"label": "A", "token": place.ids["open token"]}


def got(client: Client, route: Route, ids: dict[str, object]) -> Told:
    return ask(client, ("GET", "", ""), route.address(ids))


@pytest.mark.parametrize("template", SHOWN)
def test_its_own_people_read_what_belongs_to_a_workspace(world: World, template: str) -> None:
    for place in (world.home, world.elsewhere):
        client = place.owner.api() if template.startswith("/api/") else place.owner.browser()
        told = got(client, ROUTES[template], ids_of(place))
        assert told.status == 200
        for what in SHOWN[template]:
            assert place.text(what) in told.everything, what
        other = world.other(place)
        assert not [mark for mark in other.marks if mark in told.everything]


def test_whoever_holds_an_invitation_reads_to_where(world: World) -> None:
    for client in (world.elsewhere.owner.browser(), Client()):
        told = got(client, ROUTES["/join/{token}/"], ids_of(world.home))
        assert told.status == 200
        assert world.home.text("workspace-name") in told.everything
        assert world.home.text("invitation-note") not in told.everything
        allowed = [world.home.canary, world.home.ids["open token"]]
        marks = [mark for mark in world.home.marks if mark not in allowed]
        assert not [mark for mark in marks if mark in told.everything]


def test_operators_read_names_and_numbers_of_all_workspaces_and_no_content(world: World) -> None:
    sven = User.objects.create_superuser(username="sven", password="p")
    client = Client()
    client.force_login(sven)
    rows = {
        "orchestration.modelprice": ModelPrice.objects.create(model="a/b", input=1, output=1).pk,
        "orchestration.pausedmodel": PausedModel.objects.create(model="a/c").pk,
        "auth.group": 1,
    }
    for template, route in ROUTES.items():
        if not route.is_console:
            continue
        for place in (world.home, world.elsewhere):
            told = got(client, route, rows | ids_of(place))
            assert told.status in (200, 302, 403, 404, 405), template
            for what in SHOWN_TO_OPERATORS.get(template, ()):
                assert told.status == 200, template
                assert place.text(what) in told.everything, (template, what)
            # "prompt" begins "prompt-done" too: none of the words that begin so either.
            shown = [what for what in CONTENT if place.text(what) in told.everything]
            assert not shown, (template, shown)
            assert not [secret for secret in place.secrets if secret in told.everything], template
    assert SHOWN_TO_OPERATORS.keys() <= ROUTES.keys()
