"""How the reader of a page wants it: in which theme and language.

What a signed-in user chose counts on every device. Where nobody chose, the theme is that of this
browser's cookie and the language what the browser asks for.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.utils import translation
from django.utils.cache import patch_vary_headers

from workspaces.models import Profile

THEMES = ("auto", "light", "dark")
# Programs read these: their words are documented, and stay as they are.
_NO_PAGES = ("/api/", "/static/", "/healthz", "/readyz")
# Half of its words are ours and in English; Django's own half must not be in another language.
_ENGLISH = "/admin/"


@dataclass(frozen=True, slots=True)
class Reading:
    """``theme`` is one of THEMES, ``language`` one of settings.LANGUAGES. ``chosen_language`` is
    "" where the browser's counts."""

    theme: str
    language: str
    chosen_language: str = ""


def reading_of(request: HttpRequest) -> Reading:
    """One query for someone who is signed in, none for anybody else."""
    user = getattr(request, "user", None)
    profile = None
    if user is not None and user.is_authenticated:
        profile = Profile.objects.filter(user_id=user.pk).first()
    theme = profile.theme if profile else ""
    chosen = profile.language if profile else ""
    if chosen not in dict(settings.LANGUAGES):
        chosen = ""
    if request.path.startswith(_ENGLISH):
        language = "en"
    else:
        language = chosen or translation.get_language_from_request(request)
    return Reading(
        theme=theme if theme in THEMES else theme_of_cookie(request),
        language=language,
        chosen_language=chosen,
    )


def theme_of_cookie(request: HttpRequest) -> str:
    theme = request.COOKIES.get("theme", "")
    return theme if theme in THEMES else "auto"


class ReadingMiddleware:
    """Sets ``request.reading``, and the language while a page is made. Needs the session's user."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if request.path.startswith(_NO_PAGES):
            return self.get_response(request)
        if self.is_async:
            return self._serve_async(request)
        reading = reading_of(request)
        request.reading = reading  # type: ignore[attr-defined]
        with translation.override(reading.language):
            response = self.get_response(request)
        return _told(response, reading)

    async def _serve_async(self, request: HttpRequest) -> HttpResponseBase:
        reading = await sync_to_async(reading_of)(request)
        request.reading = reading  # type: ignore[attr-defined]
        with translation.override(reading.language):
            response = await self.get_response(request)  # type: ignore[misc]
        return _told(response, reading)


def _told(response: HttpResponseBase, reading: Reading) -> HttpResponseBase:
    if not reading.chosen_language:
        patch_vary_headers(response, ("Accept-Language",))
    return response


def reading(request: HttpRequest) -> dict[str, Any]:
    """Template context: ``reading``, and ``languages`` as (code, its own name)."""
    known = getattr(request, "reading", None)
    return {
        "reading": known or Reading(theme_of_cookie(request), translation.get_language() or "en"),
        "languages": settings.LANGUAGES,
    }
