"""What models cost: the price in force, the operators' own prices, and setting a new one.

A price is added, never changed: calls keep what they were accepted at, and its version leads to
the row that said so.
"""

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from orchestration.admin.pauses import checked_model
from orchestration.catalogue import answering_models
from orchestration.domain.estimate import PricedAt
from orchestration.models import ModelPrice
from orchestration.price_book import prices_of
from workspaces.admin.confirm import Given, NotNow, Plan, Step, confirm
from workspaces.admin.console import Console, Page, ReadOnly, console_url, note
from workspaces.admin.show import money
from workspaces.admin.units import micro_usd_of

MOST_MODELS = 1_000
UNKNOWN = "unknown"


class PriceField(forms.CharField):
    """Dollars for a million tokens; cleaned, micro-dollars."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=30, **kwargs)

    def clean(self, value: Any) -> int | None:
        text = super().clean(value)
        return micro_usd_of(text) if text else None


class PriceForm(forms.Form):
    model = forms.CharField(max_length=200, help_text="provider/model, like openai/gpt-4o-mini.")
    input = PriceField(label="Input", help_text="Dollars for a million tokens, like 2.50.")
    output = PriceField(label="Output", help_text="Dollars for a million tokens.")
    cached_input = PriceField(
        label="Cached input",
        required=False,
        help_text="What input costs that the provider had already. Empty: as other input.",
    )
    note = forms.CharField(
        max_length=200, required=False, help_text="Where the price is from: for the next operator."
    )

    def clean_model(self) -> str:
        model = checked_model(self.cleaned_data["model"])
        if model.endswith("/*"):
            raise ValidationError("A price is of one model.")
        return model


def _shown(priced: PricedAt | None) -> tuple[str, str, str]:
    """(input, output, cached input) in dollars for a million tokens."""
    if priced is None:
        return (UNKNOWN, UNKNOWN, UNKNOWN)
    price = priced.price
    return _columns(price.input, price.output, price.cached_input)


def _columns(paid_in: int, paid_out: int, cached: int | None) -> tuple[str, str, str]:
    """Cached input without a price of its own costs what other input does."""
    return (money(paid_in), money(paid_out), money(paid_in if cached is None else cached))


@admin.register(ModelPrice)
class ModelPriceAdmin(ReadOnly, Console):
    heading = "History of our prices"
    list_display = ("model", "id", "paid_in", "paid_out", "paid_cached", "created_by", "created_at",
                    "note")  # fmt: skip
    list_display_links = ("model",)
    search_fields = ("model", "created_by", "note")
    search_help_text = "By model, who set it, or note."
    ordering = ("-pk",)
    sortable_by = ("model", "created_at")
    fields = ("model", "paid_in", "paid_out", "paid_cached", "note", "created_by", "created_at")

    def pages(self) -> tuple[tuple[str, str, Page, str], ...]:
        return (
            ("table/", "table", self.table_page, "orchestration.view_modelprice"),
            ("set/", "set", self.set_page, "orchestration.add_modelprice"),
            ("give-back/", "give_back", self.give_back_page, "orchestration.add_modelprice"),
        )

    def list_tools(self, request: HttpRequest) -> list[tuple[str, str]]:
        found = [("Prices in force", console_url(ModelPrice, "table"))]
        if self.may(request, "add"):
            found.insert(0, ("Set a price", console_url(ModelPrice, "set")))
        return found

    def called(self, row: ModelPrice) -> str:
        return f"A price of {row.model}"

    def table_page(self, request: HttpRequest) -> HttpResponse:
        """Every model that is offered or was given a price, and what it costs now."""
        said = ModelPrice.objects.values_list("model", flat=True).distinct().order_by("model")
        names = dict.fromkeys([*_offered(), *said[:MOST_MODELS]])
        prices = prices_of(names)
        rows = [
            {
                "model": model,
                "price": _shown(prices[model]),
                "version": version,
                "ours": version.startswith("override-"),
                "row": version.removeprefix("override-"),
            }
            for model in names
            for version in [_version(prices[model])]
        ]
        context = {
            **self.admin_site.each_context(request),
            "title": "Prices in force",
            "rows": rows,
            "may_set": self.may(request, "add"),
            "history": console_url(ModelPrice),
            "set": console_url(ModelPrice, "set"),
            "give_back": console_url(ModelPrice, "give_back"),
        }
        return TemplateResponse(request, "admin/prices.html", context)

    def set_page(self, request: HttpRequest) -> HttpResponse:
        def plan(given: Given) -> Plan:
            model = given["model"]
            now = prices_of([model])[model]
            then = _columns(given["input"], given["output"], given["cached_input"])
            what = ("Input", "Output", "Cached input")
            said = [
                f"For {model}, in dollars for a million tokens. It holds for runs accepted "
                "from now on; those under way keep theirs."
            ]
            if model not in _offered():
                said.append("This model is not offered now: look whether its name is right.")
            return Plan(
                tuple(said),
                tuple(zip(what, _shown(now), then, strict=True)),
            )

        def do(given: Given) -> str:
            self._add(request, "price.set", **given)
            return f"The price of {given['model']} is set."

        initial = {"model": request.GET.get("model", "")}
        return confirm(
            request,
            self.admin_site,
            Step(
                title="Set a price",
                button="Set it",
                back=console_url(ModelPrice, "table"),
                plan=plan,
                do=do,
                form=lambda data=None: PriceForm(data, initial=initial),
            ),
        )

    def give_back_page(self, request: HttpRequest) -> HttpResponse:
        """Let LiteLLM's table say again what a model costs."""
        model = request.GET.get("model", "")

        def plan(_: Given) -> Plan:
            newest = ModelPrice.objects.filter(model=model).order_by("-pk").first()
            if newest is None or newest.input is None:
                raise NotNow("No operator's price is in force for it.")
            return Plan((f"For {model} LiteLLM's table counts again, for runs from now on.",))

        def do(given: Given) -> str:
            plan(given)
            self._add(request, "price.given_back", model=model, input=None, output=None,
                      cached_input=None, note="")  # fmt: skip
            return f"The price of {model} is that of LiteLLM's table."

        return confirm(
            request,
            self.admin_site,
            Step(
                title=f"Give {model or 'a model'} back to the table",
                button="Give it back",
                back=console_url(ModelPrice, "table"),
                plan=plan,
                do=do,
            ),
        )

    def _add(self, request: HttpRequest, action: str, *, model: str, **fields: Any) -> None:
        before = prices_of([model])[model]
        row = ModelPrice.objects.create(
            model=model, created_by=request.user.get_username(), **fields
        )
        after = prices_of([model])[model]
        note(
            request, action, row,
            before=before.to_json() if before else {},
            after=(after.to_json() if after else {}) | {"model": model, "note": row.note},
        )  # fmt: skip

    @admin.display(description="Input, $ a million")
    def paid_in(self, row: ModelPrice) -> str:
        return "as in the table" if row.input is None else money(row.input)

    @admin.display(description="Output, $ a million")
    def paid_out(self, row: ModelPrice) -> str:
        return "as in the table" if row.output is None else money(row.output)

    @admin.display(description="Cached input")
    def paid_cached(self, row: ModelPrice) -> str:
        return money(row.cached_input)


def _offered() -> list[str]:
    """The models that can be asked, those that are asked unless others are named first."""
    return [*settings.MODELS, settings.SYNTHESIZER, *(model.id for model in answering_models())]


def _version(priced: PricedAt | None) -> str:
    return priced.version if priced else UNKNOWN
