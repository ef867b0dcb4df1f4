"""Replace an API key by a new one that may do the same."""

from datetime import timedelta
from typing import Final
from uuid import UUID

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from workspaces.access import Actor
from workspaces.actions.issue_key import make_key
from workspaces.actions.record_change import record_change, state_of
from workspaces.managing import lock_to_manage, name_of, use_once
from workspaces.models import ApiKey, Quota
from workspaces.refused import InvalidKey, KeyIsOver

GRACES: Final = (timedelta(0), timedelta(hours=1), timedelta(hours=24), timedelta(days=7))
"""How long the old key may be left alive, for programs to change over."""


@transaction.atomic
def rotate_key(
    *,
    key: ApiKey,
    grace: timedelta,
    by: Actor | None,
    request_id: str = "",
    mark: UUID | None = None,
) -> str:
    """Make a key that takes the place of ``key``, which expires after ``grace``; returns the new
    one whole, the only time anyone sees it.

    It has the same name, scopes and quotas, and counts where the old one counts (``lineage``), so
    the two share one budget while both live. A key that expires is followed by one that lives as
    long. With a ``mark``, only the first time. Raises AlreadyMade, KeyIsOver, InvalidKey,
    NotAllowed.
    """
    workspace = lock_to_manage(key.workspace, by)
    use_once(mark, ApiKey.objects.in_workspace(workspace))
    if grace not in GRACES:
        raise InvalidKey(_("The old key lives on for nothing, an hour, a day or a week."))
    old = ApiKey.objects.in_workspace(workspace).get(pk=key.pk)
    now = timezone.now()
    if not old.is_live(now) or old.replaced_by_id is not None:
        raise KeyIsOver
    before = state_of(old)
    new, whole = make_key(
        workspace=workspace,
        name=old.name,
        scopes=old.scopes,
        expires_at=now + (old.expires_at - old.created_at) if old.expires_at else None,
        by=by,
        request_id=request_id,
        lineage=old.lineage,
        mark=mark,
    )
    Quota.objects.in_workspace(workspace).filter(api_key=old).update(api_key=new)
    ends = now + grace
    old.expires_at = min(old.expires_at, ends) if old.expires_at else ends
    old.replaced_by = new
    old.save(update_fields=["expires_at", "replaced_by"])
    record_change(
        actor=name_of(by),
        action="key.rotated",
        row=old,
        before=before,
        after=state_of(old),
        workspace=workspace,
        user_id=by.user_id if by else None,
        request_id=request_id,
    )
    return whole
