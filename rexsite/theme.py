"""The reader's choice of theme and language: kept with the user, or in a cookie."""

from django.conf import settings
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

from rexsite.reading import THEMES
from workspaces.actions.set_profile import set_profile

_YEAR_S = 365 * 24 * 3600


@require_POST
def set_theme(request: HttpRequest) -> HttpResponse:
    """POST theme=auto|light|dark; goes back to where the reader was."""
    theme = request.POST.get("theme", "")
    if theme not in THEMES:
        raise BadRequest("theme takes auto, light or dark.")
    if request.user.is_authenticated:
        set_profile(user_id=request.user.pk, theme=theme)
    response = _back(request)
    # Also for who is signed in: the sign-in page should not change its theme after them.
    response.set_cookie("theme", theme, max_age=_YEAR_S, samesite="Lax", httponly=True)
    return response


@require_POST
def set_language(request: HttpRequest) -> HttpResponse:
    """POST language=en|de, or empty for that of the browser; goes back to where the reader was."""
    language = request.POST.get("language", "")
    if language and language not in dict(settings.LANGUAGES):
        raise BadRequest("language takes one of those that are offered.")
    response = _back(request)
    if request.user.is_authenticated:
        set_profile(user_id=request.user.pk, language=language)
    elif language:
        response.set_cookie(
            settings.LANGUAGE_COOKIE_NAME, language, max_age=_YEAR_S, samesite="Lax", httponly=True
        )
    else:
        response.delete_cookie(settings.LANGUAGE_COOKIE_NAME, samesite="Lax")
    return response


def _back(request: HttpRequest) -> HttpResponse:
    back = request.POST.get("next") or request.headers.get("Referer") or ""
    # Only back into this site: an open redirect would lend our name to anyone's page.
    safe = url_has_allowed_host_and_scheme(
        back, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return HttpResponseRedirect(back if safe else reverse("start"))
