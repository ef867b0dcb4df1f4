"""The form that starts a run."""

import hashlib
import json
from typing import Any

from django import forms
from django.conf import settings

from orchestration.actions.start_run import InvalidRun, RunRequest
from orchestration.catalogue import answering_models
from orchestration.domain.pipelines import DEFAULT_PIPELINE, PIPELINES
from orchestration.domain.run import CacheWish
from orchestration.pauses import pauses, unpaused


class StartForm(forms.Form):
    """What the page asks for. Meaning is judged by ``start_run``, as for the API."""

    # Not stripped, not limited here: start_run's own sentences say what is wrong, and the text a
    # reader typed comes back to them exactly as it was.
    prompt = forms.CharField(widget=forms.Textarea, strip=False, required=False)
    pipeline = forms.ChoiceField(required=False)
    models = forms.MultipleChoiceField(required=False, widget=forms.CheckboxSelectMultiple)
    fresh = forms.BooleanField(required=False)
    idempotency_key = forms.CharField(widget=forms.HiddenInput, required=False, max_length=200)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        pipeline, models = self.fields["pipeline"], self.fields["models"]
        assert isinstance(pipeline, forms.ChoiceField)
        assert isinstance(models, forms.MultipleChoiceField)
        pipeline.choices = [(each.name, each.title) for each in PIPELINES.values()]
        pipeline.initial = DEFAULT_PIPELINE
        models.choices = [(model.id, model.title) for model in answering_models()]
        models.initial = list(unpaused(settings.MODELS, pauses()))

    def run_request(self) -> RunRequest:
        """The request of a valid form."""
        return RunRequest(
            prompt=self.cleaned_data["prompt"],
            pipeline=self.cleaned_data["pipeline"] or None,
            models=tuple(self.cleaned_data["models"]),
            cache=CacheWish.REFRESH if self.cleaned_data["fresh"] else None,
            idempotency_key=self._idempotency_key(),
        )

    def _idempotency_key(self) -> str | None:
        """The form's key with what was asked: sent twice it is one run, but a browser that brings
        an old form back, its hidden key included, may ask another question with it."""
        asked = dict(self.cleaned_data)
        if not asked["idempotency_key"]:
            return None
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def refuse(self, error: InvalidRun) -> None:
        """Show why ``start_run`` refused, at the field it is about."""
        self.add_error(error.field if error.field in self.fields else None, error.message)
