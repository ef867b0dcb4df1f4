"""The quotas of a workspace, on its page: limits in the units people write."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.forms.models import BaseInlineFormSet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.safestring import SafeString

from workspaces.admin.console import console_url
from workspaces.admin.meanwhile import GoneMeanwhile, SinceOpened
from workspaces.admin.show import link, when
from workspaces.admin.units import CHOICES, caption, limit_of_text, shown, written
from workspaces.domain.quotas import Dimension, Use
from workspaces.models import ApiKey, Quota, QuotaOverride

LONGEST_BURST = 2**31 - 1


class QuotaForm(SinceOpened):
    """A limit in the unit of its dimension: money is written in dollars and kept exactly."""

    pipelines: ClassVar[Sequence[str]] = ()
    together = True

    dimension = forms.ChoiceField(label="What", choices=CHOICES)
    amount = forms.CharField(
        label="Limit", max_length=30, help_text="Money in dollars, like 12.50. 0 lets nothing in."
    )

    class Meta:
        model = Quota
        fields = ("api_key", "pipeline", "dimension", "burst")
        labels = {"api_key": "Of this key only", "pipeline": "Of this pipeline only"}
        help_texts = {"burst": "Requests a minute alone: how many may come at once."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["pipeline"] = forms.ChoiceField(
            label="Of this pipeline only",
            required=False,
            choices=[("", "All of them"), *((name, name) for name in self._pipelines())],
        )
        self.fields["burst"] = forms.IntegerField(
            label="Burst", required=False, min_value=1, max_value=LONGEST_BURST,
            help_text="Requests a minute alone: how many may come at once.",
        )  # fmt: skip
        if self.instance.pk:
            self.fields["amount"].initial = written(self.instance.dimension, self.instance.limit)

    def _pipelines(self) -> list[str]:
        # One that is no longer there can still be seen, and taken away.
        kept = self.instance.pipeline
        return [*self.pipelines, *([kept] if kept and kept not in self.pipelines else [])]

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or {}
        dimension = given.get("dimension")
        if given.get("api_key") and given.get("pipeline"):
            self.add_error("pipeline", "A quota is of a key or of a pipeline, not of both.")
        if given.get("burst") and dimension and dimension != Dimension.REQUESTS_PER_MINUTE:
            self.add_error("burst", "Only requests a minute have a burst.")
        if dimension and given.get("amount"):
            try:
                self.instance.limit = limit_of_text(dimension, given["amount"])
            except ValidationError as wrong:
                self.add_error("amount", wrong)
        return given


class QuotaFormSet(BaseInlineFormSet):  # type: ignore[type-arg]
    """The quotas of one workspace: at most one of each kind for each key and pipeline."""

    @cached_property
    def keys(self) -> QuerySet[ApiKey]:
        """Those a quota may be of. Also the revoked ones that have one: left out, their quotas
        would be shown, and saved, as quotas of all of the workspace."""
        if self.instance._state.adding:
            return ApiKey.objects.everywhere().none()
        wanted = Q(revoked_at__isnull=True) | Q(quotas__isnull=False)
        rows = ApiKey.objects.in_workspace(self.instance).filter(wanted).distinct()
        return rows.order_by("name", "public")

    @cached_property
    def key_choices(self) -> list[tuple[Any, str]]:
        """Read once, and not for each row of the form."""
        return [("", "All of them"), *((key.pk, _named(key)) for key in self.keys)]

    def get_queryset(self) -> Any:
        """A form that is sent back is about the rows it was made of, in its order, whatever was
        added or put elsewhere meanwhile. Raises GoneMeanwhile."""
        rows = super().get_queryset()
        if not self.is_bound:
            return rows
        if not hasattr(self, "_sent_rows"):
            prefixes = (self.add_prefix(at) for at in range(self.initial_form_count()))
            sent = [str(self.data.get(f"{prefix}-id") or "") for prefix in prefixes]
            known = {str(row.pk): row for row in rows}
            if any(pk and pk not in known for pk in sent):
                raise GoneMeanwhile
            # Where they are only shown, they are not sent.
            self._sent_rows = [known[pk] for pk in sent] if all(sent) else rows
        return self._sent_rows

    def add_fields(self, form: Any, index: int | None) -> None:
        super().add_fields(form, index)
        field = forms.ModelChoiceField(
            queryset=self.keys.all(), required=False, label="Of this key only"
        )
        field.choices = self.key_choices
        form.fields["api_key"] = field
        form.remember("dimension", "amount", "burst", "api_key", "pipeline")
        for field in form.fields.values():
            # In a table the head of the column is the label, but no program reads it as one.
            field.widget.attrs["aria-label"] = field.label or "Take away"

    def clean(self) -> None:
        super().clean()
        rows: list[Any] = self.forms
        # Rows that this form does not know of, as one that is sent twice does not.
        known = [form.instance.pk for form in rows]
        seen: set[tuple[Any, ...]] = set()
        if not self.instance._state.adding:
            others = Quota.objects.in_workspace(self.instance).exclude(pk__in=filter(None, known))
            seen.update(others.values_list("api_key", "pipeline", "dimension"))
        for form in rows:
            given = getattr(form, "cleaned_data", {})
            if given.get("DELETE") and form.meanwhile:
                raise ValidationError(
                    f"“{caption(form.instance.dimension)}” was changed meanwhile. Look again: what"
                    " is marked is taken away when you save."
                )
            if not given.get("dimension") or given.get("DELETE"):
                continue
            key = given.get("api_key")
            kind = (key.pk if key else None, given.get("pipeline") or "", given["dimension"])
            if kind in seen:
                raise ValidationError(
                    f"There is more than one limit for “{caption(given['dimension'])}”. Keep one."
                )
            seen.add(kind)


class QuotaInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Quota
    form = QuotaForm
    formset = QuotaFormSet
    fields = ("dimension", "amount", "for_a_while", "burst", "api_key", "pipeline")
    readonly_fields = ("for_a_while",)
    extra = 2
    max_num = 60
    ordering = ("api_key", "pipeline", "dimension")
    verbose_name_plural = "quotas"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # Django makes an inline for each request, and asks it for its rows before it shows them.
        self.may_override = request.user.has_perm("workspaces.add_quotaoverride")
        return super().get_queryset(request).select_related("api_key").prefetch_related("overrides")

    @admin.display(description="For a while")
    def for_a_while(self, quota: Quota) -> SafeString | str:
        """The override that is in force, or where to make one."""
        if quota._state.adding:
            return ""
        live = [each for each in quota.overrides.all() if is_live(each, timezone.now())]
        if live:
            newest = max(live, key=lambda each: each.pk)
            return link(
                console_url(QuotaOverride, "change", newest.pk),
                f"{shown(quota.dimension, newest.limit)} until {when(newest.expires_at)}",
            )
        if not self.may_override:
            return ""
        return link(console_url(QuotaOverride, "raise", quota.pk), "Raise for a while")


def _named(key: ApiKey) -> str:
    return f"{key} (revoked)" if key.revoked_at else str(key)


def consequence_of(quota: Quota, uses: Iterable[Use]) -> str:
    """What is to be said once ``quota`` was set, where nothing new starts because of it."""
    same = (use for use in uses if use.limit.scope == quota.scope)
    use = next((use for use in same if use.limit.dimension == quota.dimension), None)
    if use is None or use.remaining or use.limit.until:
        return ""  # What holds for a while was said when it was set.
    whose = ""
    if quota.scope:
        whose = f" of {quota.api_key}" if quota.api_key else f" of the pipeline {quota.pipeline}"
    words = f"{caption(quota.dimension)}{whose} is now {shown(quota.dimension, quota.limit)}"
    if not quota.limit:
        return f"{words}: nothing new starts."
    if quota.dimension == Dimension.REQUESTS_PER_MINUTE:
        return ""  # There is room again within the minute.
    taken = shown(quota.dimension, use.used + use.reserved)
    return f"{words}, and {taken} is used or held: nothing new starts until there is room again."


def is_live(override: QuotaOverride, now: datetime) -> bool:
    return override.ended_at is None and override.expires_at > now
