"""Models that no new run may ask, and how the providers stand."""

from collections import defaultdict
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.safestring import SafeString

from orchestration.admin.queries import errors_since
from orchestration.fanout.client import FanoutUnavailable
from orchestration.fanout.operations import targets
from orchestration.fanout.providers import endpoints
from orchestration.fanout.target_state import Targets, TargetState
from orchestration.models import ModelPrice, PausedModel, Run
from workspaces.actions.record_change import state_of
from workspaces.admin.confirm import Given, NotNow, Plan, Step, confirm
from workspaces.admin.console import Console, Page, ReadOnly, console_url, note
from workspaces.admin.show import link

ERROR_SPAN = timedelta(hours=1)


def checked_model(text: str) -> str:
    """A model id of a provider that Rex knows. Raises ValidationError."""
    provider, _, name = text.strip().partition("/")
    if not name or any(char.isspace() for char in text.strip()):
        raise ValidationError("Write provider/model, like openai/gpt-4o-mini.")
    if provider not in endpoints():
        raise ValidationError(f"There is no provider “{provider}”.")
    return text.strip()


class PauseForm(forms.Form):
    model = forms.CharField(
        max_length=200, help_text="openai/gpt-4o-mini, or openai/* for all of the provider."
    )
    reason = forms.CharField(
        max_length=200, help_text="Whoever asks for the model is told the reason."
    )

    def clean_model(self) -> str:
        return checked_model(self.cleaned_data["model"])


def trouble_of(state: TargetState) -> str:
    """Why a target is not asked now, in words; empty where it is."""
    if state.refused:
        return "The provider refuses this key."
    match state.breaker:
        case "open":
            return f"Left alone after failures{_resumes(state)}."
        case "half_open":
            return "One call tries whether it works again."
    if state.resumes_ms is not None:
        return f"The provider asked to wait{_resumes(state)}."
    return ""


def _resumes(state: TargetState) -> str:
    return "" if state.resumes_ms is None else f", for {-(-state.resumes_ms // 1000)} s more"


def targets_or_why() -> tuple[Targets | None, str]:
    """How the providers stand, or why that is not known."""
    try:
        return targets(), ""
    except FanoutUnavailable as error:
        return None, str(error)


@admin.register(PausedModel)
class PausedModelAdmin(ReadOnly, Console):
    heading = "Paused models"
    list_display = ("model", "reason", "created_by", "created_at", "resume")
    search_fields = ("model", "reason", "created_by")
    ordering = ("model",)
    fields = ("model", "reason", "created_by", "created_at")

    def pages(self) -> tuple[tuple[str, str, Page, str], ...]:
        return (
            ("pause/", "pause", self.pause_page, "orchestration.add_pausedmodel"),
            ("<int:pk>/resume/", "resume", self.resume_page, "orchestration.delete_pausedmodel"),
            ("providers/", "providers", self.providers_page, "orchestration.view_pausedmodel"),
        )

    def list_tools(self, request: HttpRequest) -> list[tuple[str, str]]:
        found = [("Providers", console_url(PausedModel, "providers"))]
        if self.may(request, "add"):
            found.insert(0, ("Pause a model or provider", console_url(PausedModel, "pause")))
        return found

    def tools(self, request: HttpRequest, row: PausedModel) -> list[tuple[str, str]]:
        if not self.may(request, "delete"):
            return []
        return [("Resume", console_url(PausedModel, "resume", row.pk))]

    def get_list_display(self, request: HttpRequest) -> Any:
        shown = list(self.list_display)
        return shown if self.may(request, "delete") else shown[:-1]

    @admin.display(description="Resume")
    def resume(self, row: PausedModel) -> SafeString:
        return link(console_url(PausedModel, "resume", row.pk), f"Resume {row.model}")

    def pause_page(self, request: HttpRequest) -> HttpResponse:
        def plan(given: Given) -> Plan:
            model = given["model"]
            if PausedModel.objects.filter(model=model).exists():
                raise NotNow(f"{model} is paused already.")
            said = "New runs that name it are refused; calls under way go on."
            if model.endswith("/*"):
                said = "New runs that name any of its models are refused; calls under way go on."
            if fnmatchcase(settings.SYNTHESIZER, model):
                said += " It writes the synthesis, so every new run that has one is refused."
            return Plan((said,), ((model, "asked", f"paused: {given['reason']}"),))

        def do(given: Given) -> str:
            row, made = PausedModel.objects.get_or_create(
                model=given["model"],
                defaults={"reason": given["reason"], "created_by": request.user.get_username()},
            )
            if not made:
                raise NotNow(f"{row.model} is paused already.")
            note(request, "model.paused", row, after=state_of(row))
            return f"{row.model} is paused."

        initial = {"model": request.GET.get("model", "")}
        return confirm(
            request,
            self.admin_site,
            Step(
                title="Pause a model or provider",
                button="Pause it",
                back=console_url(PausedModel),
                plan=plan,
                do=do,
                form=lambda data=None: PauseForm(data, initial=initial),
            ),
        )

    def resume_page(self, request: HttpRequest, pk: int) -> HttpResponse:
        row: PausedModel = self.found(pk)

        def do(_: Given) -> str:
            fresh = PausedModel.objects.select_for_update().filter(pk=pk).first()
            if fresh is None:
                raise NotNow("It is not paused any more.")
            note(request, "model.resumed", fresh, before=state_of(fresh))
            fresh.delete()
            return f"{row.model} may be asked again."

        return confirm(
            request,
            self.admin_site,
            Step(
                title=f"Resume {row.model}",
                button="Resume it",
                back=console_url(PausedModel),
                plan=lambda _: Plan((), ((row.model, f"paused: {row.reason}", "asked"),)),
                do=do,
            ),
        )

    def providers_page(self, request: HttpRequest) -> HttpResponse:
        """How every provider stands: configured, paused, in trouble, and what failed of late."""
        known, why = targets_or_why()
        now = timezone.now()
        failed: dict[str, list[tuple[str, int, str]]] = defaultdict(list)
        for provider, kind, calls in errors_since(now, ERROR_SPAN):
            since = {"created_at__gte": (now - ERROR_SPAN).isoformat()}
            runs = console_url(Run, call_error=f"{provider}:{kind}", **since)
            failed[provider].append((kind, calls, runs))
        paused = {row.model: row for row in PausedModel.objects.all()}
        rows = [
            {
                "name": name,
                "title": endpoint.provider.title,
                "missing": endpoint.provider.missing_env,
                "keys": len(endpoint.api_keys),
                "paused": paused.get(f"{name}/*"),
                "paused_models": [
                    row for model, row in sorted(paused.items())
                    if model.startswith(f"{name}/") and model != f"{name}/*"
                ],
                "errors": failed.get(name, []),
            }
            for name, endpoint in endpoints().items()
        ]  # fmt: skip
        # Those that can be asked first, in the order of the table.
        rows.sort(key=lambda row: bool(row["missing"]))
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "title": "Providers",
            "rows": rows,
            "known": known,
            "why": why,
            "targets": [(each, trouble_of(each)) for each in known.targets] if known else [],
            "backend": settings.FANOUT_BACKEND,
            "may_pause": self.may(request, "add"),
            "may_price": request.user.has_perm("orchestration.view_modelprice"),
            "price_url": console_url(ModelPrice, "table"),
        }
        return TemplateResponse(request, "admin/providers.html", context)
