"""Signing in with a password, and for how long one must wait who has guessed too often.

django-axes counts what failed, per name and address; a name alone could be locked by anybody.
"""

from typing import Any

import structlog
from axes.backends import AxesBackend
from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import AbstractBaseUser
from django.db.models import Max
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

log = structlog.get_logger("rex.sign_in")


class PasswordBackend(AxesBackend):  # type: ignore[misc]
    """A password counts while its name is not locked for the address it comes from."""

    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> AbstractBaseUser | None:
        super().authenticate(request, username, password, **kwargs)
        user = ModelBackend.authenticate(self, request, username, password, **kwargs)
        if user is not None:
            # Many guesses sent at once all begin before the first has failed. The right one among
            # them must not win after the others have locked the name.
            super().authenticate(request, username, password, **kwargs)
        return user


def locked_out(request: HttpRequest, *_: Any) -> HttpResponse:
    """What somebody sees who is locked out; the same whether or not there is such a user."""
    wait_s = _wait_s(request)
    # Neither name nor address: a password typed into the wrong field would be in the log.
    log.warning("sign_in_locked", wait_s=wait_s)
    response = render(request, "registration/locked.html", {"wait_s": wait_s}, status=429)
    response["Retry-After"] = str(wait_s)
    response["Cache-Control"] = "no-store"
    return response


def _wait_s(request: HttpRequest) -> int:
    """Seconds from now until the last failure that counted is forgotten, rounded up."""
    credentials = getattr(request, "axes_credentials", None) or {}
    attempts = AccessAttempt.objects.filter(
        username=credentials.get("username"), ip_address=getattr(request, "axes_ip_address", None)
    )
    last = attempts.aggregate(last=Max("attempt_time"))["last"]
    if last is None:
        return int(settings.LOGIN_COOLOFF_S)
    left = (last - timezone.now()).total_seconds() + settings.LOGIN_COOLOFF_S
    return max(1, int(left) + 1)
