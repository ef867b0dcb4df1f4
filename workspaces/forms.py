"""What the pages about people take. Forms check; the actions change."""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

from django import forms
from django.contrib.auth.forms import BaseUserCreationForm
from django.core.exceptions import ValidationError
from django.utils.formats import get_format
from django.utils.translation import gettext_lazy as _

from workspaces.domain.quotas import MONEY, Dimension
from workspaces.models import Membership
from workspaces.words import DIMENSIONS, MICRO, ROLES, SCOPES

# As operators may set: what they did can be saved again.
_MOST = 10**15
_SIGNS = ("THOUSAND", "DECIMAL")
_LIVES = (
    ("", _("Never")),
    ("7", _("In 7 days")),
    ("30", _("In 30 days")),
    ("90", _("In 90 days")),
    ("365", _("In a year")),
)
_GRACES = (
    ("0", _("At once")),
    ("3600", _("In an hour")),
    ("86400", _("In a day")),
    ("604800", _("In 7 days")),
)


class OnceForm(forms.Form):
    """Makes something that is shown once. ``mark`` tells this form, as it was shown, from all
    others: sent again, it makes nothing more. Without one there is nothing to tell it by."""

    mark = forms.UUIDField(
        # Firefox would keep the used one when the page is loaded again.
        widget=forms.HiddenInput(attrs={"autocomplete": "off"}),
        required=False,
        initial=uuid4,
    )


class RoleForm(forms.Form):
    role = forms.ChoiceField(
        label=_("Role"),
        choices=[(role.value, word) for role, word in ROLES.items()],
        initial=Membership.Role.MEMBER,
    )


class InviteForm(OnceForm, RoleForm):
    note = forms.CharField(
        label=_("For whom"),
        max_length=120,
        required=False,
        help_text=_("Only for your own memory: it stands in the list of invitations."),
    )
    field_order = ["note", "role"]


class RegisterForm(BaseUserCreationForm):  # type: ignore[type-arg]
    """A new user's name and password. Checks them; an action makes the user."""

    class Meta(BaseUserCreationForm.Meta):
        labels = {"username": _("Name")}


class IssueForm(OnceForm):
    """``expires_in`` is a timedelta or None."""

    name = forms.CharField(
        label=_("Name"),
        max_length=120,
        help_text=_("What will use it, such as: nightly report."),
    )
    scopes = forms.MultipleChoiceField(
        label=_("It may"),
        choices=[(scope.value, word) for scope, word in SCOPES.items()],
        widget=forms.CheckboxSelectMultiple,
        initial=[scope.value for scope in SCOPES],
        error_messages={"required": _("A key that may do nothing is of no use.")},
    )
    expires = forms.ChoiceField(label=_("Expires"), choices=_LIVES, required=False, initial="90")

    def clean_expires(self) -> timedelta | None:
        days = self.cleaned_data["expires"]
        return timedelta(days=int(days)) if days else None


class RotateForm(OnceForm):
    grace = forms.ChoiceField(label=_("The old key ends"), choices=_GRACES, initial="86400")

    def clean_grace(self) -> timedelta:
        return timedelta(seconds=int(self.cleaned_data["grace"]))


class _CountField(forms.IntegerField):
    """A whole number from 0 as its reader writes it: ten thousand is "10.000" to a German, and
    "10,000" to an Englishman. What the other one writes is refused: it could be meant as ten."""

    widget = forms.TextInput

    def to_python(self, value: Any) -> int | None:
        if value in self.empty_values:
            return None
        whole, fraction = _digits(value)
        if not whole or fraction:
            raise ValidationError(self.error_messages["invalid"], code="invalid")
        return super().to_python(whole)


class _DollarsField(forms.DecimalField):
    """An amount, likewise, and with decimals."""

    widget = forms.TextInput

    def to_python(self, value: Any) -> Any:
        if value in self.empty_values:
            return None
        whole, fraction = _digits(value)
        if not whole:
            raise ValidationError(self.error_messages["invalid"], code="invalid")
        return super().to_python(f"{whole}.{fraction or 0}")


def _digits(text: str) -> tuple[str, str]:
    """The digits before and after the reader's decimal sign; none where it is no number to them."""
    group, point = (re.escape(str(get_format(f"{name}_SEPARATOR"))) for name in _SIGNS)
    number = rf"(\d+|\d{{1,3}}(?:{group}\d{{3}})+)(?:{point}(\d+))?"
    found = re.fullmatch(number, text.strip(), re.ASCII)
    return (re.sub(r"\D", "", found[1]), found[2] or "") if found else ("", "")


class QuotasForm(forms.Form):
    """One field a dimension, empty for no limit of the key's own; ``limits`` is in the dimensions'
    units, ``current`` too."""

    def __init__(self, current: dict[Dimension, int], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for dimension, word in DIMENSIONS.items():
            limit = current.get(dimension)
            field: forms.Field
            if dimension in MONEY:
                field = _DollarsField(
                    label=word,
                    required=False,
                    max_value=_MOST // MICRO,
                    decimal_places=6,
                    initial=None if limit is None else _plain(Decimal(limit) / MICRO),
                )
            else:
                field = _CountField(label=word, required=False, max_value=_MOST, initial=limit)
            field.widget.attrs |= {"placeholder": _("no limit"), "inputmode": "decimal"}
            self.fields[dimension.value] = field

    @property
    def limits(self) -> dict[Dimension, int | None]:
        """Of every dimension, once the form is valid."""
        return {
            dimension: _in_units(dimension, self.cleaned_data[dimension.value])
            for dimension in DIMENSIONS
        }


def _in_units(dimension: Dimension, given: Decimal | int | None) -> int | None:
    if given is None:
        return None
    return int(given * MICRO) if dimension in MONEY else int(given)


def _plain(dollars: Decimal) -> str:
    """ "2.5", never "2.500000" or "1E+2"; "2,5" for a German."""
    text = f"{dollars:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace(".", str(get_format("DECIMAL_SEPARATOR")))
