"""The record: runs, their calls, their log, and the versions of their synthesis.

Runs are reached through ``Run.objects.in_workspace(…)``; the driver, which serves all workspaces,
says so with ``Run.objects.everywhere()``. Everything else hangs off a run, but for what holds for
all of Rex: the prices an operator set, and the models that are paused.
"""

import uuid
from typing import ClassVar, Self

from django.db import models

from orchestration.domain.run import CallState, RunStatus
from workspaces.models import Scoped, Workspace


def _choices(states: type[RunStatus] | type[CallState]) -> list[tuple[str, str]]:
    return [(state.value, state.value) for state in states]


class Run(models.Model):
    """One question to several models. ``last_seq`` is the head of its log.

    ``lease_*`` and ``fence`` say who drives it: every write of a driver names its fence, so one
    that lost its lease changes nothing. ``settings`` is what was fixed at creation:
    the pipeline's policy, titles of the models whose id says nothing to people, and what the run
    wants of the cache.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="runs")
    prompt = models.TextField()
    pipeline = models.CharField(max_length=60)
    pipeline_version = models.PositiveIntegerField()
    settings = models.JSONField()
    synthesizer = models.CharField(max_length=200)
    deadline_s = models.PositiveIntegerField()
    # Prompt fences and shuffled labels come from it; a model that knew it could forge them.
    seed = models.CharField(max_length=64)
    request_id = models.CharField(max_length=64, blank=True)
    started_by = models.CharField(max_length=160, blank=True)
    idempotency_key = models.CharField(max_length=200, null=True, blank=True)
    body_sha256 = models.CharField(max_length=64, blank=True)

    status = models.CharField(max_length=10, choices=_choices(RunStatus), default=RunStatus.QUEUED)
    reason = models.CharField(max_length=60, null=True, blank=True)
    answer = models.TextField(null=True, blank=True)
    final_version = models.PositiveIntegerField(null=True, blank=True)
    degraded = models.BooleanField(default=False)
    overlap = models.JSONField(null=True, blank=True)
    last_seq = models.PositiveIntegerField(default=0)

    stop_requested_at = models.DateTimeField(null=True, blank=True)
    lease_owner = models.CharField(max_length=80, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    fence = models.PositiveIntegerField(default=0)

    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    ttfs_ms = models.PositiveIntegerField(null=True, blank=True)
    ttms_ms = models.PositiveIntegerField(null=True, blank=True)
    ttf_ms = models.PositiveIntegerField(null=True, blank=True)
    duration_ms = models.PositiveIntegerField(null=True, blank=True)
    input_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    cost_micro_usd = models.PositiveBigIntegerField(null=True, blank=True)

    objects: ClassVar[Scoped[Self]] = Scoped()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "idempotency_key"], name="one_run_per_idempotency_key"
            ),
        ]
        indexes = [
            models.Index(fields=["workspace", "-created_at", "-id"], name="run_list"),
            models.Index(
                fields=["lease_until"],
                condition=models.Q(status__in=["queued", "running"]),
                name="run_sweep",
            ),
        ]

    def __str__(self) -> str:
        return f"run {self.id} ({self.status})"

    def title_of(self, model: str) -> str:
        """How people read a model id of this run; a recording goes by the model it is of."""
        title: str = self.settings.get("titles", {}).get(model, model)
        return title


class ModelCall(models.Model):
    """What is kept of one request to one model: its text, how it came, how it ended, its cost.

    ``pacing`` is that of ``driving.flow.Flow``. ``first_token_ms`` and ``duration_ms`` count from
    the start of the call; ``reason`` is an error kind, ``message`` its sentence. ``price`` is what
    it is paid by, fixed when the run was accepted: micro-dollars for a million tokens as
    ``{"version", "input", "output", "cached_input"}``, or null where nobody knew one.
    """

    model = models.CharField(max_length=200)
    reason = models.CharField(max_length=40, null=True, blank=True)
    message = models.CharField(max_length=300, blank=True)
    text = models.TextField(blank=True)
    pacing = models.JSONField(default=list)
    first_token_ms = models.PositiveIntegerField(null=True, blank=True)
    duration_ms = models.PositiveIntegerField(null=True, blank=True)
    finish_reason = models.CharField(max_length=20, null=True, blank=True)
    input_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    cached_tokens = models.PositiveBigIntegerField(default=0)
    usage_estimated = models.BooleanField(default=False)
    cost_micro_usd = models.PositiveBigIntegerField(null=True, blank=True)
    price = models.JSONField(null=True, blank=True)

    class Meta:
        abstract = True


USAGE_FIELDS = (
    "model",
    "reason",
    "input_tokens",
    "output_tokens",
    "cost_micro_usd",
    "first_token_ms",
    "duration_ms",
)
"""What the usage page sums. Indexed whole: a row has an answer in front of its numbers, which a
database would read with them."""


class Call(ModelCall):
    """One model's answer within a run. ``started_ms`` is on the run's clock; ``attempt`` is the
    one that is under way or comes next, 0 for an answer out of the cache, whose age was
    ``cached_age_s``. Tokens and cost are sums over all attempts."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="calls")
    label = models.CharField(max_length=1)
    provider = models.CharField(max_length=60)
    state = models.CharField(max_length=10, choices=_choices(CallState), default=CallState.QUEUED)
    attempt = models.PositiveSmallIntegerField(default=0)
    rev = models.PositiveSmallIntegerField(default=0)
    stop_requested_at = models.DateTimeField(null=True, blank=True)
    started_ms = models.PositiveIntegerField(null=True, blank=True)
    cached_age_s = models.PositiveIntegerField(null=True, blank=True)

    class Meta:
        ordering = ["label"]
        constraints = [models.UniqueConstraint(fields=["run", "label"], name="one_call_per_label")]
        indexes = [models.Index(fields=["run", "state", *USAGE_FIELDS], name="call_usage")]

    def __str__(self) -> str:
        return f"call {self.label} of {self.run_id} ({self.state})"


class Synthesis(ModelCall):
    """One version of the synthesis: a call to the synthesizer and the blocks that came of it."""

    class State(models.TextChoices):
        RUNNING = "running"
        APPLIED = "applied"
        FAILED = "failed"

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="syntheses")
    version = models.PositiveSmallIntegerField()
    base_version = models.PositiveSmallIntegerField()
    kind = models.CharField(max_length=10)
    trigger = models.CharField(max_length=40)
    late = models.BooleanField(default=False)
    sources = models.JSONField(default=list)
    state = models.CharField(max_length=10, choices=State.choices, default=State.RUNNING)
    blocks = models.JSONField(default=list)
    started_ms = models.PositiveIntegerField()

    class Meta:
        ordering = ["version"]
        constraints = [
            models.UniqueConstraint(fields=["run", "version"], name="one_row_per_version")
        ]
        indexes = [models.Index(fields=["run", *USAGE_FIELDS], name="draft_usage")]

    def __str__(self) -> str:
        return f"version {self.version} of {self.run_id} ({self.state})"


class RunEvent(models.Model):
    """A fact of the log, addressed by ``(run, seq)``; seq has no gaps and starts at 1."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="events")
    seq = models.PositiveIntegerField()
    at = models.DateTimeField()
    at_ms = models.PositiveIntegerField()
    type = models.CharField(max_length=40)
    body = models.JSONField()

    class Meta:
        ordering = ["seq"]
        constraints = [
            models.UniqueConstraint(fields=["run", "seq"], name="one_event_per_seq"),
            models.UniqueConstraint(
                fields=["run"],
                condition=models.Q(type="run.finished"),
                name="one_terminal_event_per_run",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.run_id}#{self.seq} {self.type}"


class ModelPrice(models.Model):
    """What an operator says a model costs, in micro-dollars for a million tokens; the newest row of
    a model counts, before LiteLLM's table. Rows are only added, so that a call's ``price`` can be
    traced. A row whose prices are empty gives the model back to the table.
    """

    model = models.CharField(max_length=200)
    input = models.PositiveBigIntegerField(null=True, blank=True)
    output = models.PositiveBigIntegerField(null=True, blank=True)
    cached_input = models.PositiveBigIntegerField(null=True, blank=True)
    note = models.CharField(max_length=200, blank=True)
    created_by = models.CharField(max_length=160, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["model", "-id"], name="price_newest")]

    def __str__(self) -> str:
        return f"price {self.pk} of {self.model}"


class PausedModel(models.Model):
    """A model that no new run may ask: its id, or ``provider/*`` for all of a provider."""

    model = models.CharField(max_length=200, unique=True)
    reason = models.CharField(max_length=200, blank=True)
    created_by = models.CharField(max_length=160, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.model
