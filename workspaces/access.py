"""The only door: turns a session or an API key into an actor, or into nothing.

Unknown, revoked and malformed keys are told apart nowhere: all of them are ``None``.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

from workspaces.models import ApiKey, Membership, Workspace

_KEY = re.compile(r"sk-rex-(?P<public>[a-z0-9]{12})-(?P<secret>[A-Za-z0-9_-]{43})\Z")
_NO_SECRET = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Actor:
    """Someone acting in one workspace. ``name`` is for the log of who stopped what."""

    workspace: Workspace
    name: str
    may_write: bool


def actor_from_key(key: str) -> Actor | None:
    """The actor behind an API key; one query whether or not the key exists."""
    match = _KEY.match(key)
    public = match["public"] if match else ""
    found = ApiKey.objects.select_related("workspace").filter(public=public).first()
    # Compare even when there is nothing to compare with, so that timing tells nothing.
    digest = hashlib.sha256((match["secret"] if match else "").encode()).hexdigest()
    sound = hmac.compare_digest(digest, found.secret_sha256 if found else _NO_SECRET)
    if found is None or not sound or found.revoked_at is not None:
        return None
    return Actor(workspace=found.workspace, name=f"key {found.public}", may_write=True)


def actor_from_authorization(header: str) -> Actor | None:
    """The actor behind an ``Authorization: Bearer …`` header."""
    scheme, _, key = header.partition(" ")
    return actor_from_key(key.strip()) if scheme.lower() == "bearer" else None


def actor_from_user(user: AbstractBaseUser | AnonymousUser) -> Actor | None:
    """A signed-in user, acting in the first workspace they joined."""
    if not user.is_authenticated or not user.is_active:
        return None
    membership = (
        Membership.objects.select_related("workspace")
        .filter(user_id=user.pk)
        .order_by("created_at", "pk")
        .first()
    )
    if membership is None:
        return None
    return Actor(
        workspace=membership.workspace,
        name=user.get_username(),
        may_write=membership.role != Membership.Role.VIEWER,
    )
