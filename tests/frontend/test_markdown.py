"""Model text as the server renders it, for readers without scripts."""

import pytest

from orchestration.markdown import render_markdown


def test_headings_start_below_those_of_the_page() -> None:
    assert render_markdown("# One\n\n##### Five") == "<h3>One</h3>\n<h6>Five</h6>\n"


def test_tables_and_code_scroll_in_boxes_that_a_keyboard_reaches() -> None:
    for text in ("| a |\n|---|\n| 1 |", "```\nx\n```"):
        html = render_markdown(text)
        assert 'tabindex="0"' in html
        assert 'aria-label="' in html


def test_links_open_elsewhere_and_tell_nothing() -> None:
    html = render_markdown("[a](https://a.example/)")
    assert 'target="_blank"' in html
    assert 'rel="noopener noreferrer nofollow"' in html


@pytest.mark.parametrize(
    "text", ["[a](/logout/)", "[a](//b.example)", "[a](javascript:b)", "[a](ftp://b)"]
)
def test_links_that_are_not_plain_web_addresses_lead_nowhere(text: str) -> None:
    assert "href" not in render_markdown(text)


def test_raw_html_is_shown_as_the_text_it_is() -> None:
    assert "&lt;b&gt;" in render_markdown("a <b>c</b>")


def test_empty_text_is_empty() -> None:
    assert render_markdown("") == ""
