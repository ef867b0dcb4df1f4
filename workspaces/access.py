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
    """Someone acting in one workspace: a member, or a program with one of its keys.

    ``name`` is for the log of who did what. ``role`` is None for a key; ``api_key`` and ``user_id``
    say which of the two it is.
    """

    workspace: Workspace
    name: str
    scopes: frozenset[str]
    role: str | None = None
    api_key: ApiKey | None = None
    user_id: int | None = None

    @property
    def may_read(self) -> bool:
        return ApiKey.Scope.RUNS_READ in self.scopes

    @property
    def may_write(self) -> bool:
        return ApiKey.Scope.RUNS_WRITE in self.scopes

    @property
    def may_see_usage(self) -> bool:
        return ApiKey.Scope.USAGE_READ in self.scopes

    @property
    def may_manage(self) -> bool:
        """Keys, members and invitations: an owner's, and no key's."""
        return self.role == Membership.Role.OWNER


_READS = frozenset({ApiKey.Scope.RUNS_READ, ApiKey.Scope.USAGE_READ})
_SCOPES_OF_ROLE = {
    Membership.Role.OWNER: _READS | {ApiKey.Scope.RUNS_WRITE},
    Membership.Role.MEMBER: _READS | {ApiKey.Scope.RUNS_WRITE},
    Membership.Role.VIEWER: _READS,
}


def actor_from_key(key: str) -> Actor | None:
    """The actor behind an API key; one query whether or not the key exists."""
    match = _KEY.match(key)
    public = match["public"] if match else ""
    found = ApiKey.objects.everywhere().select_related("workspace").filter(public=public).first()
    # Compare even when there is nothing to compare with, so that timing tells nothing.
    digest = hashlib.sha256((match["secret"] if match else "").encode()).hexdigest()
    sound = hmac.compare_digest(digest, found.secret_sha256 if found else _NO_SECRET)
    if found is None or not sound or found.revoked_at is not None:
        return None
    return Actor(
        workspace=found.workspace,
        name=f"key {found.public}",
        scopes=frozenset(found.scopes),
        api_key=found,
    )


def actor_from_authorization(header: str) -> Actor | None:
    """The actor behind an ``Authorization: Bearer …`` header."""
    scheme, _, key = header.partition(" ")
    return actor_from_key(key.strip()) if scheme.lower() == "bearer" else None


def actor_from_user(user: AbstractBaseUser | AnonymousUser) -> Actor | None:
    """A signed-in user, acting in the first workspace they joined."""
    if not user.is_authenticated or not user.is_active:
        return None
    membership = (
        Membership.objects.everywhere()
        .select_related("workspace")
        .filter(user_id=user.pk)
        .order_by("created_at", "pk")
        .first()
    )
    if membership is None:
        return None
    return Actor(
        workspace=membership.workspace,
        name=user.get_username(),
        scopes=_SCOPES_OF_ROLE[Membership.Role(membership.role)],
        role=membership.role,
        user_id=membership.user_id,
    )
