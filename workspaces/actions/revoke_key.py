"""End an API key for good."""

from django.db import transaction
from django.utils import timezone

from workspaces.access import Actor
from workspaces.actions.record_change import record_change, state_of
from workspaces.managing import lock_to_manage, name_of
from workspaces.models import ApiKey


@transaction.atomic
def revoke_key(*, key: ApiKey, by: Actor | None, request_id: str = "") -> None:
    """From now on ``key`` opens nothing, and what it holds open closes within seconds; runs that it
    started go on. Once is enough: a second call changes nothing. Raises NotAllowed."""
    workspace = lock_to_manage(key.workspace, by)
    row = ApiKey.objects.in_workspace(workspace).get(pk=key.pk)
    if row.revoked_at is not None:
        return
    before = state_of(row)
    row.revoked_at = timezone.now()
    row.save(update_fields=["revoked_at"])
    record_change(
        actor=name_of(by),
        action="key.revoked",
        row=row,
        before=before,
        after=state_of(row),
        workspace=workspace,
        user_id=by.user_id if by else None,
        request_id=request_id,
    )
