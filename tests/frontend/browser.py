"""A real Chromium for tests, and what is asked of every page shown in it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from launcher.chromium import find
from launcher.layout import Layout
from tests.frontend.stage import ROOT

AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"


def chromium() -> str:
    """REX_CHROMIUM, or what ``./rex test`` finds. Raises Failed where there is none: the browser
    tests cannot run then, which is a failure and not a skip."""
    return os.environ.get("REX_CHROMIUM") or str(find(Layout(ROOT, ROOT / ".rex")))


@contextmanager
def launched() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            browser.close()


def axe_violations(page: Page, axe: Path = AXE) -> list[Any]:
    """Rule and elements of every accessibility violation axe-core finds on the page as it is.

    Evaluated over the debugging protocol, because the page's own policy rightly refuses the script.
    """
    session = page.context.new_cdp_session(page)
    expression = (
        axe.read_text()
        + ';axe.run(document, {resultTypes: ["violations"]}).then((result) => JSON.stringify('
        "result.violations.map((v) => [v.id, v.nodes.map((n) => n.target.join(' '))])))"
    )
    result = session.send(
        "Runtime.evaluate",
        {"expression": expression, "awaitPromise": True, "returnByValue": True},
    )
    session.detach()
    violations: list[Any] = json.loads(result["result"]["value"])
    return violations


def overflow_px(page: Page) -> int:
    """How far the page scrolls sideways; 0 is the only good answer."""
    width: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return max(0, width)
