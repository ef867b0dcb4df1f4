"""Why an action was not done: each error is one sentence, for the person who asked."""

from django.utils.translation import gettext_lazy as _


class Refused(Exception):
    """``str()`` is a sentence that may be shown."""


class NotAllowed(Refused):
    """Whoever asked may not do this, or may not any more."""

    def __init__(self) -> None:
        super().__init__(_("Only an owner of the workspace may do this."))


class LastOwner(Refused):
    """The workspace would be left without anyone who can manage it."""

    def __init__(self) -> None:
        super().__init__(_("A workspace needs an owner. Make someone else an owner first."))


class InvitationGone(Refused):
    """Used, withdrawn, expired or never there: one answer."""

    def __init__(self) -> None:
        super().__init__(_("This invitation is no longer valid. Ask for a new one."))


class AlreadyMade(Refused):
    """The form was sent before, and made then what it makes."""

    def __init__(self) -> None:
        super().__init__(_("This was made already, and is shown only once."))


class KeyIsOver(Refused):
    """The key was revoked, has expired, or another has taken its place."""

    def __init__(self) -> None:
        super().__init__(_("This key is revoked, has expired, or was replaced by another."))


class InvalidKey(Refused):
    """A key that cannot be made as asked; the sentence says what it takes."""


class InvalidQuota(Refused):
    """A quota that cannot be set as asked; the sentence says what it takes."""


class InvalidRole(Refused):
    """There is no such role; the sentence says which there are."""
