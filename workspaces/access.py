"""The only door: turns a session or an API key into an actor, or into nothing.

Keys that are unknown, malformed, revoked or expired are told apart nowhere: all of them are
``None``, after the same one query. docs/adr/0027-keys-sessions-and-one-door.md
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from uuid import UUID

from django.contrib.auth import get_user
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.contrib.sessions.backends.base import SessionBase
from django.db.models import Case, IntegerField, QuerySet, Value, When
from django.http import HttpRequest
from django.utils import timezone

from workspaces.domain.quotas import scopes_of
from workspaces.last_used import note_use
from workspaces.models import ApiKey, Membership, Workspace

CHOSEN = "workspace"
"""Where a session says which of a person's workspaces it is about."""
OPERATOR = "operator"
"""The role of Django staff, who manage every workspace in the admin console."""

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

    def counted_in(self, pipeline: str) -> list[str]:
        """The scopes of quotas that what this actor does through ``pipeline`` counts in."""
        return scopes_of(self.api_key.lineage if self.api_key else "", pipeline)

    @property
    def may_manage(self) -> bool:
        """Keys, members and invitations: an owner's or an operator's, and no key's."""
        return self.role in (Membership.Role.OWNER, OPERATOR)

    def why_not(self, scope: ApiKey.Scope) -> str:
        """The sentence for one who lacks ``scope``; empty for one who has it."""
        if scope in self.scopes:
            return ""
        if self.api_key is not None:
            return f"This takes a key with the scope {scope.value}."
        return "You may look at this workspace but not change it."


_READS = frozenset({ApiKey.Scope.RUNS_READ, ApiKey.Scope.USAGE_READ})
_SCOPES_OF_ROLE = {
    Membership.Role.OWNER: _READS | {ApiKey.Scope.RUNS_WRITE},
    Membership.Role.MEMBER: _READS | {ApiKey.Scope.RUNS_WRITE},
    Membership.Role.VIEWER: _READS,
}


def actor_from_key(key: str) -> Actor | None:
    """The actor behind an API key; one query whether or not the key exists.

    Once a minute a key that is let in costs another, which notes that it was used.
    """
    match = _KEY.match(key)
    public = match["public"] if match else ""
    found = ApiKey.objects.everywhere().select_related("workspace").filter(public=public).first()
    # Compare even when there is nothing to compare with, so that timing tells nothing.
    digest = hashlib.sha256((match["secret"] if match else "").encode()).hexdigest()
    sound = hmac.compare_digest(digest, found.secret_sha256 if found else _NO_SECRET)
    now = timezone.now()
    if found is None or not sound or not found.is_live(now):
        return None
    note_use(found, now)
    return Actor(
        workspace=found.workspace,
        name=f"key {found.public}",
        scopes=frozenset(found.scopes),
        api_key=found,
    )


def actor_from_authorization(header: str) -> Actor | None:
    """The actor behind an ``Authorization: Bearer …`` header."""
    scheme, _, key = header.partition(" ")
    return actor_from_key(key.strip() if scheme.lower() == "bearer" else "")


def actor_from_user(user: AbstractBaseUser | AnonymousUser, chosen: object = None) -> Actor | None:
    """A signed-in user, acting in the workspace they have ``chosen``, or the first they joined.

    ``chosen`` is what a session remembers: of somebody who is no member there any more, or no id of
    a workspace at all, it counts for nothing.
    """
    if not user.is_authenticated or not user.is_active:
        return None
    membership = _memberships(user, _workspace_id(chosen)).first()
    if membership is None:
        return None
    return Actor(
        workspace=membership.workspace,
        name=user.get_username(),
        scopes=_SCOPES_OF_ROLE[Membership.Role(membership.role)],
        role=membership.role,
        user_id=membership.user_id,
    )


def actor_from_session(session: SessionBase) -> Actor | None:
    """The actor behind a session as its store has it now: not one that has expired, was signed out,
    or began before the user's password was changed."""
    request = HttpRequest()
    # Not ``type``: that of a socket's session is a wrapper.
    request.session = session.__class__(session.session_key)
    return actor_from_user(get_user(request), request.session.get(CHOSEN))


def operator(user: AbstractBaseUser, workspace: Workspace) -> Actor:
    """Django staff, acting on ``workspace`` from the admin console, which has let them in.

    They manage it; they neither see its runs nor start any.
    """
    return Actor(workspace, user.get_username(), frozenset(), role=OPERATOR, user_id=user.pk)


def workspaces_of(user: AbstractBaseUser | AnonymousUser) -> list[tuple[Workspace, str]]:
    """The workspaces of a user with their role in each, in the order they joined."""
    return [(each.workspace, each.role) for each in _memberships(user, None)]


def _memberships(
    user: AbstractBaseUser | AnonymousUser, first: UUID | None
) -> QuerySet[Membership]:
    """Those of ``user`` in the order they joined, but that in ``first`` before all others."""
    rest = Case(
        When(workspace_id=first, then=Value(0)), default=Value(1), output_field=IntegerField()
    )
    rows = Membership.objects.everywhere().select_related("workspace").filter(user_id=user.pk or 0)
    return rows.order_by(*([rest] if first else []), "created_at", "pk")


def _workspace_id(value: object) -> UUID | None:
    try:
        return UUID(str(value)) if value else None
    except ValueError:
        return None
