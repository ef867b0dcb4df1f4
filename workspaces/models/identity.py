"""Who there is: workspaces, their members, the keys that act for them."""

import uuid
from datetime import datetime
from typing import Any, ClassVar, Self
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models

from workspaces.models.scoped import Scoped


def check_time_zone(name: str) -> None:
    """Raises ValidationError where the machine knows no zone of that name."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        # An unknown name is a KeyError, "../x" a ValueError, a directory an OSError.
        raise ValidationError("There is no such time zone. Try Europe/Berlin, or UTC.") from None


class Workspace(models.Model):
    """A client identity: everything a run is, costs and answers belongs to exactly one.

    ``time_zone`` says when its days and months begin. ``on_excess`` is what becomes of a question
    to more models than its quotas have room for. A paused workspace starts nothing new.
    """

    class OnExcess(models.TextChoices):
        REFUSE = "refuse", "Refuse it"
        SHRINK = "shrink", "Ask fewer models"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    slug = models.SlugField(unique=True, max_length=60)
    name = models.CharField(max_length=120)
    time_zone = models.CharField(max_length=60, default="UTC", validators=[check_time_zone])
    on_excess = models.CharField(max_length=10, choices=OnExcess.choices, default=OnExcess.REFUSE)
    allow_unpriced = models.BooleanField(
        default=False, help_text="Whether models may be asked whose price nobody knows."
    )
    paused_at = models.DateTimeField(null=True, blank=True)
    paused_reason = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """A user's place in a workspace. Viewers read; members also start and stop runs; owners also
    manage its members, keys and invitations."""

    class Role(models.TextChoices):
        OWNER = "owner", "Owner"
        MEMBER = "member", "Member"
        VIEWER = "viewer", "Viewer"

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships"
    )
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.MEMBER)
    created_at = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[Scoped[Self]] = Scoped()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["workspace", "user"], name="one_membership_each"),
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.workspace} ({self.role})"


class Invitation(models.Model):
    """A link that lets whoever holds it join once; only a digest of its token is kept. ``mark``
    names the form it was made with, which makes no second one."""

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="invitations")
    role = models.CharField(
        max_length=10, choices=Membership.Role.choices, default=Membership.Role.MEMBER
    )
    note = models.CharField(max_length=120, blank=True)
    token_sha256 = models.CharField(max_length=64, unique=True)
    mark = models.UUIDField(null=True, editable=False)
    created_by = models.CharField(max_length=160, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True, blank=True)
    accepted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True,
        related_name="+",
    )  # fmt: skip
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar[Scoped[Self]] = Scoped()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["workspace", "mark"], name="one_invitation_a_form"),
        ]

    def __str__(self) -> str:
        return f"invitation to {self.workspace} ({self.role})"


class ApiKey(models.Model):
    """A key of the form ``sk-rex-<public>-<secret>``; only a digest of the secret is kept.

    The secret holds 256 random bits, so a plain SHA-256 cannot be searched, and checking one costs
    microseconds where a password hash would cost a request its latency. ``last_used_at`` is right
    to about a minute. ``replaced_by`` is the key a rotation made; the old one expires.
    ``lineage`` is the public part of the first of keys that replaced one another: it is what quotas
    and usage count by, so that a rotation brings no fresh budget. ``mark`` names the form the key
    was made with, which makes no second one.
    """

    class Scope(models.TextChoices):
        RUNS_READ = "runs:read", "See runs and models"
        RUNS_WRITE = "runs:write", "Start and stop runs"
        USAGE_READ = "usage:read", "See usage and quotas"

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=120)
    public = models.CharField(max_length=16, unique=True)
    lineage = models.CharField(max_length=16, editable=False)
    secret_sha256 = models.CharField(max_length=64)
    mark = models.UUIDField(null=True, editable=False)
    scopes = models.JSONField(default=list)
    created_by = models.CharField(max_length=160, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    replaced_by = models.ForeignKey(
        "self", on_delete=models.SET_NULL, null=True, blank=True, related_name="replaces"
    )

    objects: ClassVar[Scoped[Self]] = Scoped()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["workspace", "mark"], name="one_key_a_form"),
        ]

    def __str__(self) -> str:
        return f"sk-rex-{self.public}-… ({self.name})"

    def save(self, *args: Any, **options: Any) -> None:
        # A key that replaces none begins a lineage.
        self.lineage = self.lineage or self.public
        super().save(*args, **options)

    def is_live(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class Profile(models.Model):
    """How one user wants the pages. Empty means: as the browser says."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="profile"
    )
    theme = models.CharField(max_length=5, blank=True)
    language = models.CharField(max_length=10, blank=True)

    def __str__(self) -> str:
        return f"how {self.user} reads"
