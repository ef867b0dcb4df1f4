"""What the header of every page shows of the reader's workspaces."""

from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest

from workspaces.access import Actor, workspaces_of
from workspaces.authentication import reader_of


@dataclass(frozen=True, slots=True)
class Place:
    """A workspace the reader is in; ``chosen`` is the one the pages are about."""

    id: UUID
    name: str
    chosen: bool


def workspace(request: HttpRequest) -> dict[str, Any]:
    """Template context, each looked up only where it is shown: ``workspace``, the name or None;
    ``workspace_zone``, in which its times are told; ``places``, all the reader is in;
    ``may_see_keys``."""

    @cache
    def actor() -> Actor | None:
        return reader_of(request) if hasattr(request, "user") else None

    @cache
    def places() -> list[Place]:
        reader = actor()
        if reader is None:
            return []
        return [
            Place(each.pk, each.name, each == reader.workspace)
            for each, _ in workspaces_of(request.user)
        ]

    def name() -> str | None:
        reader = actor()
        return reader.workspace.name if reader else None

    def may_see_keys() -> bool:
        reader = actor()
        return reader is not None and reader.may_write

    def zone() -> str:
        reader = actor()
        return reader.workspace.time_zone if reader else settings.TIME_ZONE

    return {
        "workspace": name,
        "workspace_zone": zone,
        "places": places,
        "may_see_keys": may_see_keys,
    }
