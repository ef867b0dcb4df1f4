"""Make an API key."""

import hashlib
import secrets
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from workspaces.access import Actor
from workspaces.actions.record_change import record_change, state_of
from workspaces.managing import lock_to_manage, name_of, use_once
from workspaces.models import ApiKey, Workspace
from workspaces.refused import InvalidKey

ALL = tuple(ApiKey.Scope.values)
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


@transaction.atomic
def issue_key(
    *,
    workspace: Workspace,
    name: str,
    scopes: Iterable[str] = ALL,
    expires_at: datetime | None = None,
    by: Actor | None = None,
    request_id: str = "",
    mark: UUID | None = None,
) -> str:
    """Store a new key of ``workspace`` and return it whole: the only time anyone sees it.

    With a ``mark``, only the first time. Raises AlreadyMade, InvalidKey, NotAllowed.
    """
    lock_to_manage(workspace, by)
    use_once(mark, ApiKey.objects.in_workspace(workspace))
    _, key = make_key(
        workspace=workspace,
        name=name,
        scopes=scopes,
        expires_at=expires_at,
        by=by,
        request_id=request_id,
        mark=mark,
    )
    return key


def make_key(
    *,
    workspace: Workspace,
    name: str,
    scopes: Iterable[str],
    expires_at: datetime | None,
    by: Actor | None,
    request_id: str,
    lineage: str = "",
    mark: UUID | None = None,
) -> tuple[ApiKey, str]:
    """(row, key) of a new key; of ``lineage`` where it replaces one. The workspace is locked."""
    name, asked = name.strip(), set(scopes)
    if not 0 < len(name) <= 120:
        raise InvalidKey(_("A key needs a name of 1 to 120 characters."))
    if not asked or not asked <= set(ALL):
        raise InvalidKey(_("A key needs at least one scope, of those there are."))
    if expires_at is not None and expires_at <= timezone.now():
        raise InvalidKey(_("A key expires in the future, or never."))
    public = "".join(secrets.choice(_ALPHABET) for each in range(12))
    secret = secrets.token_urlsafe(32)
    row = ApiKey.objects.create(
        workspace=workspace,
        name=name,
        public=public,
        lineage=lineage,
        mark=mark,
        secret_sha256=hashlib.sha256(secret.encode()).hexdigest(),
        # In the order they are listed in, whatever order they were asked for in.
        scopes=[scope for scope in ALL if scope in asked],
        created_by=name_of(by),
        expires_at=expires_at,
    )
    record_change(
        actor=name_of(by),
        action="key.issued",
        row=row,
        after=state_of(row),
        workspace=workspace,
        user_id=by.user_id if by else None,
        request_id=request_id,
    )
    return row, f"sk-rex-{public}-{secret}"
