"""Limit what one API key may use."""

from typing import Final

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from workspaces.access import Actor
from workspaces.actions.record_change import record_change, state_of
from workspaces.domain.quotas import Dimension
from workspaces.managing import lock_to_manage, name_of
from workspaces.models import ApiKey, Quota
from workspaces.refused import InvalidQuota, KeyIsOver

MOST: Final = 2**63 - 1


@transaction.atomic
def set_key_quota(
    *,
    key: ApiKey,
    dimension: str,
    limit: int | None,
    by: Actor | None,
    request_id: str = "",
) -> None:
    """Set the limit of ``key`` in ``dimension``, in its unit; None takes it away.

    The workspace's own quotas count besides, so a higher limit than theirs lets nothing more in.
    Raises InvalidQuota, KeyIsOver (of a key that was replaced its successor has the quotas),
    NotAllowed.
    """
    workspace = lock_to_manage(key.workspace, by)
    if dimension not in set(Dimension):
        raise InvalidQuota(_("There is no such quota."))
    if limit is not None and not 0 <= limit <= MOST:
        raise InvalidQuota(_("A quota takes a whole number from 0."))
    row = ApiKey.objects.in_workspace(workspace).get(pk=key.pk)
    if not row.is_live(timezone.now()) or row.replaced_by_id is not None:
        raise KeyIsOver
    quota = Quota.objects.in_workspace(workspace).filter(api_key=row, dimension=dimension).first()
    if limit is None and quota is None:
        return
    before = state_of(quota) if quota else {}
    if quota is None:
        quota = Quota(workspace=workspace, api_key=row, dimension=dimension)
    if limit is not None:
        quota.limit = limit
        quota.save()
    record_change(
        actor=name_of(by),
        action="quota.set" if limit is not None else "quota.removed",
        row=quota,
        before=before,
        after=state_of(quota) if limit is not None else {},
        workspace=workspace,
        user_id=by.user_id if by else None,
        request_id=request_id,
    )
    if limit is None:
        quota.delete()
