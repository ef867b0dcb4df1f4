"""Forms that were opened a while ago: what others changed meanwhile is not undone by saving them.

Each field is sent with the value it was shown with (Django's ``show_hidden_initial``), so it is
known what the operator changed. Everything else is saved as it is now. What was changed on both
sides is refused once, with what it is now; to save again is then to mean it.
"""

from typing import Any, cast

from django import forms
from django.forms.boundfield import BoundField
from django.http import QueryDict


class GoneMeanwhile(Exception):
    """A row of the form is no longer there."""


class SinceOpened(forms.ModelForm):  # type: ignore[type-arg]
    """``together``: the fields mean something only with each other, so that a change of one is
    refused where another one was changed meanwhile. ``meanwhile`` is what others have changed."""

    together = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.meanwhile: set[str] = set()
        self.remember(*self.fields)

    def remember(self, *names: str) -> None:
        """Send along what these fields are shown with."""
        for name in names:
            # Of something new there is no meanwhile. What nobody can write is not sent: among it
            # is the digest of a password.
            field = self.fields[name]
            field.show_hidden_initial = not (self.instance._state.adding or field.disabled)

    def full_clean(self) -> None:
        clashing = self._brought_up_to_date() if self.is_bound else set()
        super().full_clean()
        for name in sorted(clashing):
            now = _in_words(self[name])
            self.add_error(name, f"Changed meanwhile: now {now}. Look again, then save.")

    def _brought_up_to_date(self) -> set[str]:
        """Let what was sent begin from what is now. Gives the fields to be looked at again."""
        sent = [self[name] for name, field in self.fields.items() if field.show_hidden_initial]
        if not any(bound.html_initial_name in self.data for bound in sent):
            # Of something new; or from a program, which means all it says.
            return set()
        theirs = set(self.changed_data)
        stale = [bound for bound in sent if _shown_with(bound) != _as_sent(bound)]
        self.meanwhile = {bound.name for bound in stale}
        if not stale:
            return set()
        data = cast(QueryDict, self.data).copy()
        self.data = data
        for bound in stale:
            data.setlist(bound.html_initial_name, _as_sent(bound))
            if bound.name not in theirs:
                data.setlist(bound.html_name, _as_sent(bound))
        differ = {
            bound.name for bound in sent if bound.field.has_changed(bound.initial, bound.data)
        }
        if self.together:
            return self.meanwhile if differ else set()
        return self.meanwhile & differ


def _as_sent(bound: BoundField) -> list[str]:
    """The value as it is now, as a browser sends it back."""
    value = bound.field.prepare_value(bound.initial)
    values = value if isinstance(value, list | tuple) else [value]
    return sorted("" if each is None else _plain(str(each)) for each in values)


def _shown_with(bound: BoundField) -> list[str]:
    sent = cast(QueryDict, bound.form.data).getlist(bound.html_initial_name)
    return sorted(_plain(str(each)) for each in sent)


def _plain(text: str) -> str:
    # Browsers end lines as they like.
    return text.replace("\r\n", "\n")


def _in_words(bound: BoundField) -> str:
    """The value as it is now, as the page calls it."""
    if isinstance(bound.initial, bool):
        return "yes" if bound.initial else "no"
    names = {str(value): str(name) for value, name in getattr(bound.field, "choices", ())}
    words = [names.get(each, each) for each in _as_sent(bound)]
    return f"“{', '.join(words)}”" if any(words) else "empty"
