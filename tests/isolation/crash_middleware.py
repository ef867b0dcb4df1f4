"""Crashes on demand, in the frames that hold secrets."""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponseBase

from orchestration.actions import start_run
from workspaces import access
from workspaces.actions import accept_invitation, invite, issue_key, rotate_key

# Where a crash is asked for: the module and the name in it that raises in place of its work.
PLACES: dict[str, tuple[Any, str]] = {
    "authentication": (access, "note_use"),
    "start": (start_run, "reserve"),
    "issue": (issue_key, "record_change"),
    "rotate": (rotate_key, "record_change"),
    "invite": (invite, "record_change"),
    "register": (accept_invitation, "record_change"),
}


class CrashMiddleware:
    """One request at a time: which crash is asked for is a variable of the process."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response
        self.asked = ""
        for place, (module, name) in PLACES.items():
            setattr(module, name, self._crashing(place, getattr(module, name)))

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        self.asked = request.headers.get("X-Crash", "")
        if self.asked == "view":
            raise RuntimeError("forced")
        return self.get_response(request)

    def _crashing(self, place: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def crashing(*arguments: Any, **named: Any) -> Any:
            if self.asked == place:
                raise RuntimeError("forced")
            return real(*arguments, **named)

        return crashing
