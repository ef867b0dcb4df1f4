"""The pages about people in Chromium: every width, both themes and languages, the few scripts."""

from typing import Any

import pytest
from django.utils import translation
from playwright.sync_api import Page

from tests.frontend.account_pages import WHOLE, account_pages
from tests.frontend.browser import axe_violations, overflow_px
from tests.frontend.conftest import Render
from tests.frontend.stage import Stage

pytestmark = pytest.mark.browser


@pytest.fixture
def pages(stage: Stage, rendered: Render) -> Stage:
    stage.pages |= account_pages(rendered)
    return stage


def test_every_page_is_accessible_and_fits(page: Page, pages: Stage) -> None:
    for path in pages.pages:
        page.goto(f"{pages.url}{path}")
        for width in (320, 390, 768, 1440):
            page.set_viewport_size({"width": width, "height": 800})
            assert overflow_px(page) == 0, (path, width)
        assert axe_violations(page) == [], path
        page.set_viewport_size({"width": 320, "height": 800})
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
        assert axe_violations(page) == [], path


def test_longer_words_of_another_language_fit_too(
    page: Page, stage: Stage, rendered: Render
) -> None:
    with translation.override("de"):
        stage.pages |= account_pages(rendered)
    page.set_viewport_size({"width": 320, "height": 800})
    for path in stage.pages:
        page.goto(f"{stage.url}{path}")
        assert page.locator("html").get_attribute("lang") == "de"
        assert overflow_px(page) == 0, path


@pytest.mark.parametrize("width", [320, 1440])
def test_the_menu_opens_by_key_and_lies_on_the_page(page: Page, pages: Stage, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{pages.url}/members/")
    page.locator(".account summary").press("Enter")
    menu = page.locator(".sheet")
    for name in ("Members", "API keys", "Your account"):
        assert menu.get_by_role("link", name=name).is_visible()
    assert menu.get_by_role("group", name="Workspace").get_by_role("button").count() == 2
    box = menu.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert axe_violations(page) == []
    assert overflow_px(page) == 0


def test_what_is_shown_once_is_copied_whole_and_says_so(page: Page, pages: Stage) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=pages.url)
    page.goto(f"{pages.url}/key-once/")
    button = page.get_by_role("button", name="Copy").first
    button.click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == WHOLE


def test_a_form_pressed_twice_is_sent_once(page: Page, pages: Stage) -> None:
    page.goto(f"{pages.url}/key-new/")
    page.get_by_label("Name").fill("nightly report")
    page.evaluate(
        """() => {
          window.sent = 0;
          document.addEventListener("submit", (event) => {
            if (!event.defaultPrevented) window.sent += 1;
            event.preventDefault();
          });
        }"""
    )
    button = page.get_by_role("button", name="Make the key")
    button.click()
    button.click()
    assert page.evaluate("window.sent") == 1


def test_without_scripts_forms_are_sent_and_nothing_is_offered_that_would_not_work(
    chromium: Any, pages: Stage
) -> None:
    context = chromium.new_context(java_script_enabled=False)
    silent = context.new_page()
    silent.goto(f"{pages.url}/key-once/")
    assert silent.get_by_text(WHOLE, exact=True).is_visible()
    assert silent.get_by_role("button", name="Copy").count() == 0
    silent.goto(f"{pages.url}/members/")
    silent.get_by_label("For whom").fill("Dora")
    with silent.expect_request(lambda request: request.method == "POST") as sent:
        silent.get_by_role("button", name="Make a link").click()
    body = sent.value.post_data or ""
    context.close()
    assert "note=Dora" in body
    assert "role=member" in body


def test_what_is_wrong_in_a_form_is_told_with_its_field(page: Page, pages: Stage) -> None:
    page.goto(f"{pages.url}/key-refused/")
    field = page.get_by_label("Tokens a day")
    assert field.get_attribute("aria-invalid") == "true"
    told = page.locator(f"[id='{field.get_attribute('aria-describedby')}']")
    assert told.inner_text() == "Enter a whole number."
