"""Nothing with consequences happens at one click: a page says what will be, and asks.

Where something is to be filled in there are two pages: the form, then what will change, before and
after. The second posts the same fields again with ``confirmed``, and they are checked again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin import AdminSite
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse

from workspaces.refused import Refused

Given = Mapping[str, Any]
"""What the form was filled in with, cleaned; empty where there is no form."""


class NotNow(Refused):
    """It cannot be done now; nothing was changed. The sentence says what to do first."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is about to happen: sentences, and what changes as (what, before, after)."""

    sentences: tuple[str, ...] = ()
    changes: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to be done.

    ``do`` runs in a transaction unless ``in_transaction`` is false; it gives the sentence the
    operator reads on the page ``back``, or an answer of its own. ``plan`` and ``do`` may raise
    Refused.
    """

    title: str
    button: str
    back: str
    plan: Callable[[Given], Plan]
    do: Callable[[Given], str | HttpResponse]
    form: Callable[..., forms.Form] | None = None
    intro: str = ""
    danger: bool = False
    in_transaction: bool = True


class NoForm(forms.Form):
    """Where there is nothing to fill in."""


def confirm(request: HttpRequest, site: AdminSite, step: Step) -> HttpResponse:
    """Ask, show, ask again, do."""
    make_form = step.form or NoForm
    posted = request.method == "POST"
    form = make_form(request.POST) if posted else make_form()
    if step.form is None and not posted:
        form = NoForm({})
    plan, refusal = None, ""
    if form.is_bound and form.is_valid():
        try:
            if posted and "confirmed" in request.POST:
                return _done(request, step, form.cleaned_data)
            plan = step.plan(form.cleaned_data)
        except Refused as refused:
            refusal = str(refused)
    context = {
        **site.each_context(request),
        "title": step.title,
        "step": step,
        "form": form,
        "plan": plan,
        "refusal": refusal,
    }
    wrong = posted and (bool(refusal) or not form.is_valid())
    return TemplateResponse(request, "admin/confirm.html", context, status=400 if wrong else 200)


def _done(request: HttpRequest, step: Step, given: Given) -> HttpResponse:
    if step.in_transaction:
        with transaction.atomic():
            said = step.do(given)
    else:
        said = step.do(given)
    if isinstance(said, HttpResponse):
        return said
    messages.success(request, said)
    return HttpResponseRedirect(step.back)
