"""Who changed what."""

from typing import ClassVar, Self

from django.conf import settings
from django.db import models

from workspaces.models.identity import Workspace
from workspaces.models.scoped import Scoped


class AuditEntry(models.Model):
    """One change that somebody made: who, what, before, after. Written once, never changed.

    ``before`` and ``after`` hold the fields that differ, and never a secret. ``workspace_name`` is
    what is left of a workspace that was deleted.
    """

    at = models.DateTimeField(auto_now_add=True)
    workspace = models.ForeignKey(
        Workspace, on_delete=models.SET_NULL, null=True, blank=True, related_name="audit"
    )
    workspace_name = models.CharField(max_length=120, blank=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True,
        related_name="+",
    )  # fmt: skip
    actor = models.CharField(max_length=160)
    action = models.CharField(max_length=40)
    object_type = models.CharField(max_length=60)
    object_id = models.CharField(max_length=60)
    object_name = models.CharField(max_length=200)
    before = models.JSONField(default=dict)
    after = models.JSONField(default=dict)
    request_id = models.CharField(max_length=64, blank=True)

    objects: ClassVar[Scoped[Self]] = Scoped()

    class Meta:
        verbose_name_plural = "audit entries"
        indexes = [models.Index(fields=["workspace", "-at"], name="audit_list")]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M} {self.actor} {self.action} {self.object_name}"
