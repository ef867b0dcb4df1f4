"""Who asks, how, and what they are told."""

import json
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote, unquote

from django.contrib.auth.models import User
from django.test import Client

from tests.isolation.world import Place, World

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Asker:
    """``foreign`` is the place they are no part of."""

    name: str
    client: Callable[[], Client]
    own: Place
    foreign: Place

    def __str__(self) -> str:
        return self.name


def askers(world: World) -> dict[str, Asker]:
    home, elsewhere = world.home, world.elsewhere
    staff, _ = User.objects.get_or_create(username="stephen", is_staff=True)

    def signed_in() -> Client:
        client = Client()
        client.force_login(staff)
        return client

    found = [
        Asker("a member", home.member.browser, home, elsewhere),
        Asker("a member's key", home.member.api, home, elsewhere),
        Asker("a viewer", home.viewer.browser, home, elsewhere),
        Asker("an owner elsewhere", elsewhere.owner.browser, elsewhere, home),
        Asker("an owner's key elsewhere", elsewhere.owner.api, elsewhere, home),
        Asker("staff without a workspace", signed_in, elsewhere, home),
        Asker("nobody", Client, elsewhere, home),
    ]
    for scope, key in home.by_scope.items():
        bearer = {"Authorization": f"Bearer {key}"}
        found.append(Asker(f"a key for {scope}", partial(Client, headers=bearer), home, elsewhere))
    return {each.name: each for each in found}


ASKERS = (
    "a member", "a member's key", "a viewer", "an owner elsewhere", "an owner's key elsewhere",
    "staff without a workspace", "nobody",
    "a key for runs:read", "a key for runs:write", "a key for usage:read",
)  # fmt: skip

Method = tuple[str, str, str]  # (verb, content type, body)


def ways(fields: dict[str, str]) -> list[Method]:
    """Every method, with every kind of body where a view might read one."""
    form = "&".join(f"{name}={quote(value)}" for name, value in fields.items())
    as_json = json.dumps(fields)
    plain = [(verb, "", "") for verb in ("GET", "HEAD", "OPTIONS", "TRACE", "DELETE")]
    posts = [("POST", JSON, ""), ("POST", JSON, as_json), ("POST", FORM, form)]
    rest = [(verb, JSON, as_json) for verb in ("PUT", "PATCH")]
    return [*plain, *posts, *rest]


@dataclass(frozen=True, slots=True)
class Told:
    """An answer without what is new in each: ids of the request, tokens. ``asked`` stands in the
    place of what was asked for. ``everything`` is all of it, as it came."""

    status: int
    headers: dict[str, str]
    cookies: list[str]
    text: str
    everything: str

    @property
    def compared(self) -> tuple[Any, ...]:
        return self.status, self.headers, self.cookies, self.text


_NEW = (
    re.compile(r'name="csrfmiddlewaretoken" value="(\w+)"'),
    re.compile(r'name="csrf-token" content="(\w+)"'),
    re.compile(r'name="idempotency_key" value="(\w+)"'),
)


def ask(
    client: Client, way: Method, address: str, asked: Iterable[str] = (), **headers: str
) -> Told:
    verb, content_type, body = way
    response = client.generic(
        verb, address, body.encode(), content_type=content_type or JSON, headers=headers
    )
    with warnings.catch_warnings():
        # A CSV is made in pieces by an async generator, which this client reads in its own way.
        warnings.simplefilter("ignore")
        text = b"".join(response).decode()
    headers_told = dict(response.items())
    cookies = [f"{name}={each.value}" for name, each in response.cookies.items()]
    everything = "\n".join([text, *map(str, headers_told.items()), *cookies])
    fresh = [
        headers_told.pop("X-Request-Id"),
        *(new for each in _NEW for new in each.findall(text)),
    ]
    for value in sorted(asked, key=len, reverse=True):
        for form in {value, quote(value), quote(value, safe="")}:
            text = text.replace(form, "<asked>")
            headers_told = {k: v.replace(form, "<asked>") for k, v in headers_told.items()}
            everything = everything.replace(form, "<asked>")
    for value in fresh:
        text = text.replace(value, "<new>")
    headers_told.pop("Content-Length", None)  # as long as what was asked for
    if "Expires" in headers_told:
        headers_told["Expires"] = "<now>"
    return Told(
        response.status_code, headers_told, sorted(response.cookies), text, unquote(everything)
    )


def found_in(told: Told, marks: Iterable[str]) -> list[str]:
    """Which of ``marks`` the answer tells, as written or escaped."""
    return [mark for mark in marks if mark in told.everything]
