"""Every route, every method, everyone who has no business there: nothing of another workspace."""

import pytest

from tests.isolation.asking import ASKERS, FORM, Asker, Method, ask, askers, found_in, ways
from tests.isolation.routes import Route, routes
from tests.isolation.world import Place, World, unknown_ids

ROUTES = routes()
# Says 503 while parts are away that these tests do not start.
NOT_STARTED = ("readyz",)


def ids_of(place: Place) -> dict[str, object]:
    """What an attacker would know of ``place``; of what belongs to nobody, what there is not."""
    return unknown_ids() | place.ids | {"label": "A"}


def fields(ids: dict[str, object]) -> dict[str, str]:
    """A body with something for every form there is, about ``ids``."""
    return {
        "workspace": str(ids["workspace_id"]),
        "run": str(ids["run_id"]),
        "user": str(ids["auth.user"]),
        "role": "owner",
        "name": "a name",
        "note": "a note",
        "scopes": "runs:read",
        "grace": "0",
        "limit": "7",
        "reason": "a reason",
        "tokens_per_day": "1",
        "confirmed": "yes",
    }


def _asked(route: Route, ids: dict[str, object]) -> list[str]:
    """What the request names, and so may hear again."""
    names = [*route.parameters, "workspace_id", "run_id", "auth.user"]
    return [str(ids[name]) for name in names if name != "label"]


def chosen(asker: Asker) -> list[Route]:
    """A key with a scope is a key like any other where no key is looked at."""
    return [each for each in ROUTES if each.is_api or not asker.name.startswith("a key for")]


def ways_into(route: Route, asker: Asker, ids: dict[str, object]) -> list[Method]:
    """All of them; but to the console the members of a workspace are one and the same nobody."""
    found = ways(fields(ids))
    if route.is_console and asker.name in ("a member", "a member's key", "a viewer"):
        return [each for each in found if each[0] == "GET" or each[1] == FORM]
    return found


def test_every_parameter_of_every_route_is_known_to_the_crawl(world: World) -> None:
    assert len(ROUTES) > 100
    for place in (world.home, world.elsewhere):
        addresses = {route.address(ids_of(place)) for route in ROUTES}
        assert len(addresses) > 100
        unknown = {route.address(unknown_ids() | {"label": "A"}) for route in ROUTES}
        assert {route.template for route in ROUTES if not route.parameters} <= addresses & unknown


@pytest.mark.parametrize("name", ASKERS)
def test_whoever_has_no_place_there_reads_nothing_of_it_and_changes_nothing(
    world: World, name: str
) -> None:
    asker = askers(world)[name]
    theirs = ids_of(asker.foreign)
    nobodys = unknown_ids() | {"label": "A"}
    marks = asker.foreign.marks
    client = asker.client()
    for route in chosen(asker):
        before = asker.foreign.rows()
        pairs = zip(*(ways_into(route, asker, ids) for ids in (theirs, nobodys)), strict=True)
        for way, other in pairs:
            foreign = ask(client, way, route.address(theirs), _asked(route, theirs))
            where = f"{asker}: {way[0]} {route} ({way[1]})"
            assert not found_in(foreign, marks), where
            assert foreign.status < 500 or route.name in NOT_STARTED, where
            if not route.parameters:
                continue
            unknown = ask(client, other, route.address(nobodys), _asked(route, nobodys))
            assert foreign.compared == unknown.compared, where
        assert asker.foreign.rows() == before, f"{asker}: {route}"
        if route.name == "logout":
            client = asker.client()
