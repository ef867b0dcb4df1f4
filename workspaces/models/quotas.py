"""What a workspace may spend, what it has spent, and what is held for work under way.

``Lease`` is the ledger; a ``Counter`` is a sum over it that admission can read in one row, and can
be made again from it at any time. docs/adr/0006-reserve-then-settle.md
"""

import uuid
from typing import ClassVar, Self

from django.db import models

from workspaces.domain.quotas import WORKSPACE, Dimension, key_scope, pipeline_scope, scopes_of
from workspaces.models.identity import ApiKey, Workspace
from workspaces.models.scoped import Scoped


class Quota(models.Model):
    """A limit in one dimension: for the workspace, or for one of its keys or pipelines.

    ``limit`` is in the dimension's unit; ``burst`` is for requests per minute alone: how many may
    come at once, as many as a minute has where it is empty.
    """

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="quotas")
    api_key = models.ForeignKey(
        ApiKey, on_delete=models.CASCADE, null=True, blank=True, related_name="quotas"
    )
    pipeline = models.CharField(max_length=60, blank=True)
    dimension = models.CharField(
        max_length=30, choices=[(each.value, each.caption) for each in Dimension]
    )
    limit = models.PositiveBigIntegerField()
    burst = models.PositiveIntegerField(null=True, blank=True)

    objects: ClassVar[Scoped[Self]] = Scoped()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "pipeline", "dimension"],
                condition=models.Q(api_key__isnull=True),
                name="one_quota_per_pipeline",
            ),
            models.UniqueConstraint(fields=["api_key", "dimension"], name="one_quota_per_key"),
            models.CheckConstraint(
                condition=models.Q(api_key__isnull=True) | models.Q(pipeline=""),
                name="quota_of_a_key_or_of_a_pipeline",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_dimension_display()}: {self.limit:,} ({self.scope or 'workspace'})"

    @property
    def scope(self) -> str:
        """``""`` for the workspace, ``key:<lineage>``, ``pipeline:<name>``: as counters have it."""
        if self.api_key is not None:
            return key_scope(self.api_key.lineage)
        return pipeline_scope(self.pipeline) if self.pipeline else WORKSPACE


class QuotaOverride(models.Model):
    """Another limit for a while ("raise for 24 h"); of several the newest that is in force."""

    quota = models.ForeignKey(Quota, on_delete=models.CASCADE, related_name="overrides")
    limit = models.PositiveBigIntegerField()
    reason = models.CharField(max_length=200)
    created_by = models.CharField(max_length=160)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        ends = f"{self.expires_at:%Y-%m-%d %H:%M %Z}"
        return f"{self.quota.get_dimension_display()}: {self.limit:,} until {ends}"


class Reservation(models.Model):
    """What is held for one piece of work (a run, whose id is ``subject``) until it has ended.

    It counts in the workspace, its key (the lineage, empty where a person asked) and its pipeline,
    in the windows ``day`` and ``month``, all fixed when it was made: a run that ends after midnight
    is paid by the day that let it in.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="reservations")
    subject = models.UUIDField(unique=True)
    key_public = models.CharField(max_length=16, blank=True)
    pipeline = models.CharField(max_length=60)
    day = models.CharField(max_length=10)
    month = models.CharField(max_length=7)
    created_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar[Scoped[Self]] = Scoped()

    class Meta:
        indexes = [
            models.Index(fields=["workspace", "day"], name="reservation_day"),
            models.Index(fields=["workspace", "month"], name="reservation_month"),
            models.Index(
                fields=["created_at"],
                condition=models.Q(closed_at__isnull=True),
                name="reservation_open",
            ),
        ]

    def __str__(self) -> str:
        return f"reservation for {self.subject}"

    @property
    def scopes(self) -> list[str]:
        return scopes_of(self.key_public, self.pipeline)


class Lease(models.Model):
    """The part of a reservation that one call may use, or all drafts of a synthesis together.

    ``bound_*`` is the most it may use, ``reserved_*`` what of that is still held, the rest what was
    used: a lease that is closed holds nothing. Used above bound, a provider counted more than it
    was asked for; the next admission sees it.
    """

    reservation = models.ForeignKey(Reservation, on_delete=models.CASCADE, related_name="leases")
    name = models.CharField(max_length=20)
    bound_tokens = models.PositiveBigIntegerField()
    bound_micro_usd = models.PositiveBigIntegerField()
    reserved_tokens = models.PositiveBigIntegerField()
    reserved_micro_usd = models.PositiveBigIntegerField()
    tokens = models.PositiveBigIntegerField(default=0)
    cost_micro_usd = models.PositiveBigIntegerField(default=0)
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["reservation", "name"], name="one_lease_per_name"),
        ]

    def __str__(self) -> str:
        return f"lease {self.name} of {self.reservation_id}"


class Counter(models.Model):
    """What one scope has in one window. Of a day or a month: sums over its leases. Of the window
    ``""``, which is now: ``runs``, the reservations that are open, and ``tat``, when the next
    request is due (``domain.gcra``).
    """

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="counters")
    scope = models.CharField(max_length=80, blank=True)
    window = models.CharField(max_length=10, blank=True)
    runs = models.PositiveIntegerField(default=0)
    tat = models.DateTimeField(null=True, blank=True)
    tokens = models.PositiveBigIntegerField(default=0)
    tokens_reserved = models.PositiveBigIntegerField(default=0)
    cost_micro_usd = models.PositiveBigIntegerField(default=0)
    cost_reserved_micro_usd = models.PositiveBigIntegerField(default=0)

    objects: ClassVar[Scoped[Self]] = Scoped()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "scope", "window"], name="one_counter_per_window"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.scope or 'workspace'} {self.window or 'now'}"
