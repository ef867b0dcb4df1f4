"""One authentication for every HTTP interface: a bearer key, or the session with its CSRF token.

A key is read from ``Authorization`` alone. One in the address would be in logs and histories, one
in a cookie would be sent by pages of other sites, and a second header would be a second policy.
"""

from typing import Any

from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication, CSRFCheck
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.request import Request

from workspaces.access import (
    CHOSEN,
    Actor,
    actor_from_authorization,
    actor_from_session,
    actor_from_user,
)


def actor_of(request: HttpRequest) -> Actor | None:
    """The actor behind a plain request; a bad key is no actor, and never falls to the session."""
    header = request.headers.get("Authorization")
    if header is not None:
        return actor_from_authorization(header)
    return reader_of(request)


def actor_still_behind(request: HttpRequest) -> Actor | None:
    """As ``actor_of``, of a request that goes on: nothing that was read at its start counts."""
    header = request.headers.get("Authorization")
    if header is not None:
        return actor_from_authorization(header)
    return actor_from_session(request.session)


def reader_of(request: HttpRequest) -> Actor | None:
    """The signed-in actor of a page, in the workspace their session has chosen; no key is read."""
    return actor_from_user(request.user, request.session.get(CHOSEN))


class SignedIn:
    """What REST framework calls the user: the actor is what our code reads (``request.auth``)."""

    is_authenticated = True
    is_active = True


class WorkspaceAuthentication(BaseAuthentication):
    """Sets ``request.auth`` to the Actor."""

    def authenticate(self, request: Request) -> tuple[Any, Actor] | None:
        plain = request._request
        actor = actor_of(plain)
        if "Authorization" in request.headers:
            if actor is None:
                raise AuthenticationFailed()
            return SignedIn(), actor
        if actor is None:
            return None
        # A session is sent by the browser whoever asks; only the CSRF token shows our page did.
        check = CSRFCheck(lambda _request: None)  # type: ignore[arg-type]
        check.process_request(plain)
        if check.process_view(plain, None, (), {}):  # type: ignore[arg-type]
            raise PermissionDenied(code="csrf_failed")
        return SignedIn(), actor

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"
