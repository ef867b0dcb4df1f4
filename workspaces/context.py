"""The workspace every page shows in its header."""

from typing import Any

from django.http import HttpRequest

from workspaces.access import actor_from_user


def workspace(request: HttpRequest) -> dict[str, Any]:
    """Template context: ``workspace``, the reader's or None, looked up only where it is shown."""
    user = getattr(request, "user", None)

    def name() -> str | None:
        actor = actor_from_user(user) if user is not None else None
        return actor.workspace.name if actor else None

    return {"workspace": name}
