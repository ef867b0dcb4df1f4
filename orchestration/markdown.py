"""Model text to HTML for readers without JavaScript: parsed strictly, then cleaned again.

Two independent layers, because the text is written by strangers: the parser is told to treat raw
HTML as text, and the cleaner allows a short list of tags. Neither lets an image through: a remote
image is fetched without a click, and its address can carry a secret out.
"""

from collections.abc import Sequence
from functools import lru_cache

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

REMEMBERED_CHARS = 32_000
HEADING_SHIFT = 2
"""A model's first-level heading becomes h3: the page has its own h1 and h2."""

TAGS = {"a", "blockquote", "br", "code", "div", "em", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p"}
TAGS |= {"pre", "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"}
ATTRIBUTES = {"a": {"href", "target"}, "ol": {"start"}, "code": {"class"}}
_SCROLLS = {"pre": "Code", "div": "Table"}
"""Boxes that scroll sideways must be reachable by keyboard, and so need a name."""


def _image(
    _renderer: RendererHTML,
    tokens: Sequence[Token],
    index: int,
    _options: OptionsDict,
    _env: EnvType,
) -> str:
    return nh3.clean_text(f"[image: {tokens[index].content}]")


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "linkify": False})
    parser.enable(["table", "strikethrough"])
    parser.add_render_rule("image", _image)
    parser.add_render_rule("table_open", lambda *_: "<div><table>\n")
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return parser


_PARSER = _parser()
_CLEANER = nh3.Cleaner(
    tags=TAGS,
    attributes={tag: set(names) for tag, names in ATTRIBUTES.items()},
    url_schemes={"http", "https", "mailto"},
    url_relative="deny",
    link_rel="noopener noreferrer nofollow",
    set_tag_attribute_values={
        "a": {"target": "_blank"},
        **{
            tag: {"tabindex": "0", "role": "group", "aria-label": name}
            for tag, name in _SCROLLS.items()
        },
        "div": {
            "class": "scroll-x",
            "tabindex": "0",
            "role": "group",
            "aria-label": _SCROLLS["div"],
        },
    },
)


def render_markdown(text: str) -> str:
    """`text` as clean HTML: no images, no raw HTML, links absolute, headings from h3 down.

    Parsing 24 KB takes about 50 ms, and a finished run's page never changes: texts of ordinary
    length are remembered. Longer ones would fill memory.
    """
    return _remembered(text) if len(text) <= REMEMBERED_CHARS else _rendered(text)


@lru_cache(maxsize=256)
def _remembered(text: str) -> str:
    return _rendered(text)


def _rendered(text: str) -> str:
    tokens = _PARSER.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + HEADING_SHIFT)}"
    return _CLEANER.clean(_PARSER.renderer.render(tokens, _PARSER.options, {}))
