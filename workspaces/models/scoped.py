"""The one way to rows that belong to a workspace, and the one named way past it."""

from typing import TYPE_CHECKING, TypeVar

from django.db import models

if TYPE_CHECKING:
    from workspaces.models.identity import Workspace

Row = TypeVar("Row", bound=models.Model)


class Scoped(models.Manager[Row]):
    """The manager of every model with a ``workspace``: its rows are asked for by workspace.

    A request reads ``in_workspace``. What serves all workspaces (the driver, sweeps, the admin
    console, the look-up of a key) says so with ``everywhere``; a test lists the files that may.
    """

    def in_workspace(self, workspace: "Workspace") -> models.QuerySet[Row]:
        return self.get_queryset().filter(workspace=workspace)

    def everywhere(self) -> models.QuerySet[Row]:
        """Rows of all workspaces: never for a request of one of them."""
        return self.get_queryset()
