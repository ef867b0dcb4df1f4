"""Asks a running Rex a question and photographs the page: in mid-stream, and when it is final.

    REX_PASSWORD=… python scripts/screenshots.py --username owner

Writes live-run-<theme>.png and final-run-<theme>.png, and the same with -narrow, to docs/images/.
The run is a real one, on whatever models the instance has; nothing on the page is made up.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Page, ViewportSize, sync_playwright

from launcher import chromium
from launcher.failure import Failed
from launcher.layout import Layout

ROOT = Path(__file__).resolve().parent.parent
QUESTION = "Should a small team split its web application into microservices?"
WIDE, NARROW = ViewportSize(width=1440, height=1000), ViewportSize(width=390, height=844)
THEMES = ("light", "dark")
RUN_TIMEOUT_MS = 300_000

# Text of the synthesis is on screen while a model still answers: the moment Rex is about.
IN_MID_STREAM = """() => {
  const shown = [...document.querySelectorAll('.synthesis .doc')]
    .map((node) => node.hidden ? '' : node.innerText).join('');
  return shown.length > 120 && document.querySelector('.card[data-s="streaming"]');
}"""
OVER = "() => /^(done|degraded|failed|stopped)/.test(document.title)"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Photograph a run of a running Rex.")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--username", default="owner")
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    asked = parser.parse_args(arguments)
    password = os.environ.get("REX_PASSWORD")
    if not password:
        parser.error("set REX_PASSWORD to the password that ./rex up printed")
    try:
        executable = chromium.find(Layout(ROOT, ROOT / ".rex"))
    except Failed as failed:
        print(failed.what, file=sys.stderr)
        return 1
    asked.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport=WIDE, reduced_motion="reduce")
        sign_in(page, asked.url, asked.username, password)
        start_run(page, asked.question)
        overlapped = photograph_moments(page, asked.out)
        browser.close()
    if not overlapped:
        print("No live picture: the answers ended before the synthesis began.", file=sys.stderr)
    return 0 if overlapped else 1


def sign_in(page: Page, url: str, username: str, password: str) -> None:
    page.goto(f"{url}/login/")
    page.get_by_label("Name").fill(username)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{url}/")


def start_run(page: Page, question: str) -> None:
    page.get_by_label("Your question").fill(question)
    page.get_by_role("button", name="Ask").click()
    page.wait_for_url("**/runs/*/")


def photograph_moments(page: Page, out: Path) -> bool:
    """False when the answers had ended before the synthesis showed anything: no live picture."""
    either = f"() => ({IN_MID_STREAM})() || ({OVER})()"
    page.wait_for_function(either, timeout=RUN_TIMEOUT_MS)
    overlapped = not page.evaluate(OVER)
    if overlapped:
        photograph(page, out, "live-run")
    page.wait_for_function(OVER, timeout=RUN_TIMEOUT_MS)
    page.reload()  # as everyone sees it from now on
    page.wait_for_selector(".run.js")
    photograph(page, out, "final-run")
    return overlapped


def photograph(page: Page, out: Path, name: str) -> None:
    """The page as it is now, in both themes, wide and narrow; quickly, for a live page moves on."""
    for size, suffix in ((WIDE, ""), (NARROW, "-narrow")):
        page.set_viewport_size(size)
        for theme in THEMES:
            page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
            path = out / f"{name}-{theme}{suffix}.png"
            page.screenshot(path=path)
            print(path)
    page.set_viewport_size(WIDE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
