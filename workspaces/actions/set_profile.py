"""Keep how a user wants the pages."""

from workspaces.models import Profile


def set_profile(*, user_id: int, **choices: str) -> None:
    """Set ``theme`` and ``language``, each where it is named; "" leaves it to the browser.

    The values must have been checked: a page takes them as they are.
    """
    Profile.objects.update_or_create(user_id=user_id, defaults=choices)
