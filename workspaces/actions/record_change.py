"""Write down a change that somebody made: the audit log's only writer."""

from collections.abc import Mapping
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Model
from django.forms.models import model_to_dict

from workspaces.models import AuditEntry, Workspace

# Digests and passwords are no secrets themselves, and have no business in a log either.
_NEVER = ("secret", "token", "password")


def state_of(row: Model) -> dict[str, Any]:
    """The fields of ``row`` as they may be logged: to be taken before and after a change."""
    fields = model_to_dict(row, fields=[field.name for field in row._meta.concrete_fields])
    return {
        name: _plain(value)
        for name, value in fields.items()
        if not any(word in name for word in _NEVER)
    }


def record_change(
    *,
    actor: str,
    action: str,
    row: Model,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    workspace: Workspace | None = None,
    user_id: int | None = None,
    request_id: str = "",
) -> None:
    """Log that ``actor`` did ``action`` ("key.revoked") to ``row``: the fields that differ.

    Belongs in the transaction of the change: neither happens without the other.
    """
    old, new = dict(before or {}), dict(after or {})
    differing = [
        name for name in old | new if (name in old, old.get(name)) != (name in new, new.get(name))
    ]
    AuditEntry.objects.create(
        actor=actor,
        user_id=user_id,
        workspace=workspace,
        workspace_name=workspace.name if workspace else "",
        action=action,
        object_type=row._meta.label,
        object_id=str(row.pk),
        object_name=str(row)[:200],
        before={name: old[name] for name in differing if name in old},
        after={name: new[name] for name in differing if name in new},
        request_id=request_id,
    )


def _plain(value: Any) -> Any:
    """As JSON has it; what JSON has no form for, as text."""
    if value is None or isinstance(value, bool | int | float | str | list | dict):
        return value
    try:
        return DjangoJSONEncoder().default(value)
    except TypeError:
        return str(value)
