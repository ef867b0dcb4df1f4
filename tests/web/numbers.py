"""The numbers of a page, and what the list each leads to adds up to."""

import html
import re
from collections import Counter
from html.parser import HTMLParser

from django.test import Client


class Numbers(HTMLParser):
    """Every number of a page that says what it is: (where it leads or "", what, how much)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str, int]] = []
        self._leads_to = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag == "a":
            self._leads_to = given.get("href") or ""
        if tag == "data":
            self.found.append((self._leads_to, str(given["data-sum"]), int(str(given["value"]))))

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._leads_to = ""


def listed_sums(browser: Client, address: str) -> Counter[str]:
    """What the rows of a list add up to, over all of its pages; checked against its own totals."""
    sums: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    while address:
        text = browser.get(address).content.decode()
        head, _, rows = text.partition('<ul class="runs">')
        totals = Counter({what: value for _, what, value in Numbers(head).found})
        sums["runs"] += len(re.findall(r'href="/runs/[0-9a-f-]{36}/"', rows))
        for _, what, value in Numbers(rows).found:
            sums[what] += value
        older = re.search(r'rel="next" href="([^"]+)"', rows)
        address = f"/runs/{html.unescape(older[1])}" if older else ""
    sums["tokens"] = sums["input_tokens"] + sums["output_tokens"]
    for what, value in totals.items():
        assert sums[what] == value, what
    return sums
