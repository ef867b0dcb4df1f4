"""Shows a page in a Chromium as the tests do: ``python probe_chromium.py PATH``."""

import sys

from playwright.sync_api import sync_playwright

with sync_playwright() as playwright:
    browser = playwright.chromium.launch(
        executable_path=sys.argv[1], args=["--no-sandbox", "--disable-dev-shm-usage"]
    )
    page = browser.new_page()
    page.set_content("<h1>Rex</h1>")
    if page.text_content("h1") != "Rex":
        sys.exit("The page was not shown.")
    print(browser.version)
    browser.close()
