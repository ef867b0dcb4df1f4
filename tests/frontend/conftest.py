"""Pages rendered by the product's own templates, shown by a stage in a real Chromium."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.test import RequestFactory
from playwright.sync_api import Browser, BrowserContext, Page

from tests.frontend.browser import launched
from tests.frontend.stage import FAKE_SOCKET, Stage, serve

Render = Callable[..., str]


@pytest.fixture
def plain_static_files(settings: Any) -> None:
    """Static files under their own names: the stage serves the source tree."""
    settings.STORAGES = settings.STORAGES | {
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    }


@pytest.fixture
def rendered(plain_static_files: None) -> Render:
    """render(template, context, theme=…) as Alice would get it, without a database."""

    def render(template: str, context: dict[str, Any], *, theme: str = "light") -> str:
        request: HttpRequest = RequestFactory().get("/runs/")
        request.COOKIES["theme"] = theme
        request.user = User(username="alice") if context.pop("signed_in", True) else AnonymousUser()
        request.csp_nonce = "stage"  # type: ignore[attr-defined]
        # Given here, because the context processor would ask the database.
        return render_to_string(
            template,
            {"workspace": "Alice's", "places": [], "may_see_keys": True, "may_write": True}
            | {"workspace_zone": "UTC"}
            | context,
            request=request,
        )

    return render


# Playwright's loop runs in this thread while the browser lives, and no other could: neither that of
# an async test, nor a second Playwright. So it lives no longer than a module.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def stage() -> Iterator[Stage]:
    with serve(Stage()) as served:
        yield served


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    made = chromium.new_context(viewport={"width": 1440, "height": 900})
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page whose sockets are played, and which must not complain to the console."""
    context.add_init_script(FAKE_SOCKET)
    shown = context.new_page()
    complaints: list[str] = []
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    shown.on(
        "console",
        lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None,
    )
    yield shown
    assert not complaints, complaints
