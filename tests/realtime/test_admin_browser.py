"""The console in a real Chromium, on a real server, under the site's own policy."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.conf import settings
from django.contrib.staticfiles import finders
from playwright.sync_api import Browser, Page, Route

from tests.conftest import Person
from tests.frontend.browser import axe_violations, launched, overflow_px
from tests.realtime.server import Served
from tests.web.admin_cast import every_page, superuser

pytestmark = pytest.mark.browser

# Pages that ask, made by the template of "pause/"; one more of them would show nothing new.
ALIKE = ("/resume/", "/end/", "/give-back/", "/revoke/", "/remove/", "/stop/")


@pytest.fixture
def session(served: Served) -> str:
    """A superuser's; made before the browser, in whose loop there is no database."""
    return superuser().cookies[settings.SESSION_COOKIE_NAME].value


@contextmanager
def console(
    browser: Browser, served: Served, session: str, *, width: int, theme: str
) -> Iterator[tuple[Page, list[str]]]:
    """A page of the signed-in superuser, and what it complained of: violations of the policy are
    among that."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, base_url=served.url, java_script_enabled=True
    )
    context.add_cookies(
        [
            {"name": name, "value": value, "url": served.url}
            for name, value in ((settings.SESSION_COOKIE_NAME, session), ("theme", theme))
        ]
    )
    # The test server has collected no static files.
    context.route("**/static/**", _static)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda line: complaints.append(f"{page.url}: {line.text}"))
    page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
    try:
        yield page, complaints
    finally:
        context.close()


def _static(route: Route) -> None:
    path = route.request.url.partition("/static/")[2]
    found: Any = finders.find(path.partition("?")[0])
    if found:
        route.fulfill(path=found)
    else:
        route.fulfill(status=404)


@pytest.mark.django_db(transaction=True)
def test_every_page_is_accessible_fits_and_keeps_to_the_policy_in_both_themes(
    served: Served, session: str, alice: Person
) -> None:
    pages = [each for each in every_page(alice) if not each.endswith(ALIKE)]
    with launched() as browser:
        for width, theme in ((1280, "light"), (390, "dark")):
            with console(browser, served, session, width=width, theme=theme) as (page, complaints):
                for address in pages:
                    answer = page.goto(address)
                    assert answer is not None
                    assert answer.ok, address
                    assert page.locator("html").get_attribute("data-theme") == theme
                    assert axe_violations(page) == [], (address, theme)
                    assert overflow_px(page) == 0, (address, theme)
                assert complaints == []


@pytest.mark.django_db(transaction=True)
def test_an_operator_walks_from_the_first_page_to_a_pause_and_back(
    served: Served, session: str, alice: Person
) -> None:
    every_page(alice)
    with (
        launched() as browser,
        console(browser, served, session, width=1280, theme="light") as (page, complaints),
    ):
        page.goto("/admin/")
        page.get_by_role("navigation", name="Console").get_by_role(
            "link", name="Workspaces"
        ).click()
        page.get_by_role("link", name="Acme").first.click()
        page.get_by_role("link", name="Pause", exact=True).click()
        page.get_by_label("Reason").fill("Too many questions.")
        page.get_by_role("button", name="Show what changes").click()
        assert "paused: Too many questions." in page.get_by_role("table").inner_text()
        page.get_by_role("button", name="Pause it").click()
        assert "Acme is paused." in page.get_by_role("status").inner_text()
        assert "Too many questions." in page.locator(".problems").inner_text()
        page.get_by_role("link", name="Resume").click()
        page.get_by_role("button", name="Resume it").click()
        assert "Acme is resumed." in page.get_by_role("status").inner_text()
        page.get_by_role("link", name="Audit log").first.click()
        assert "workspace.resumed" in page.locator("#result_list").inner_text()
        assert complaints == []
