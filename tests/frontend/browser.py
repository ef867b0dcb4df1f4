"""A real Chromium for tests, and what is asked of every page shown in it."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.frontend.stage import ROOT

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"


class NoBrowser(RuntimeError):
    """No Chromium was found: the browser tests cannot run, which is a failure and not a skip."""


def chromium() -> str:
    """REX_CHROMIUM, or the first Chromium on PATH; raises NoBrowser."""
    found = os.environ.get("REX_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise NoBrowser("Install chromium, or name one in REX_CHROMIUM.")
    return found


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
