"""The reader's choice of light, dark or the system's theme, kept in a cookie."""

from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

THEMES = ("auto", "light", "dark")
_YEAR_S = 365 * 24 * 3600


@require_POST
def set_theme(request: HttpRequest) -> HttpResponse:
    """POST theme=auto|light|dark; goes back to where the reader was."""
    theme = request.POST.get("theme", "")
    if theme not in THEMES:
        raise BadRequest("theme takes auto, light or dark.")
    back = request.POST.get("next") or request.headers.get("Referer") or ""
    # Only back into this site: an open redirect would lend our name to anyone's page.
    safe = url_has_allowed_host_and_scheme(
        back, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    response = HttpResponseRedirect(back if safe else reverse("start"))
    response.set_cookie("theme", theme, max_age=_YEAR_S, samesite="Lax", httponly=True)
    return response
