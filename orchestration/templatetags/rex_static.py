"""Native modules under hashed names, without a bundler.

Modules import each other by plain relative paths. The hashed storage does not rewrite those, so
the import map does it in the browser: "/static/rex/js/model.js" → "/static/rex/js/model.1a2b.js".
"""

import json
from functools import lru_cache
from pathlib import Path

from django import template
from django.contrib.staticfiles import finders
from django.templatetags.static import static
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

register = template.Library()

BARE = {"marked": "vendor/marked/marked.esm.js"}
"""Packages that modules import by name."""


@lru_cache(maxsize=1)
def _modules() -> tuple[str, ...]:
    folder = finders.find("rex/js")
    if not isinstance(folder, str):
        return ()
    return tuple(sorted(f"rex/js/{path.name}" for path in Path(folder).glob("*.js")))


@register.simple_tag(takes_context=True)
def importmap(context: template.Context) -> SafeString:
    """The page's one import map. It must come before any module script."""
    imports = {name: static(path) for name, path in BARE.items()}
    for path in _modules():
        plain, hashed = _plain(path), static(path)
        if plain != hashed:
            imports[plain] = hashed
    return format_html(
        '<script type="importmap"{}>{}</script>',
        _nonce(context),
        # "<" cannot end the script element early when it is written as an escape.
        mark_safe(json.dumps({"imports": imports}).replace("<", "\\u003c")),  # noqa: S308
    )


@register.simple_tag
def modulepreload(*names: str) -> SafeString:
    """Fetch these modules at once instead of one import after another."""
    links = [static(BARE.get(name, f"rex/js/{name}")) for name in names]
    return format_html_join("\n", '<link rel="modulepreload" href="{}">', ((u,) for u in links))


@register.simple_tag(takes_context=True)
def module(context: template.Context, name: str) -> SafeString:
    """<script type="module"> of one of our modules."""
    return format_html(
        '<script type="module" src="{}"{}></script>', static(f"rex/js/{name}"), _nonce(context)
    )


def _plain(path: str) -> str:
    """The address a relative import resolves to: the static URL without a hash."""
    from django.conf import settings

    prefix = settings.STATIC_URL if settings.STATIC_URL.startswith(("/", "http")) else "/static/"
    return f"{prefix}{path}"


def _nonce(context: template.Context) -> SafeString:
    # str(), because the middleware's nonce is false until it is read for the first time.
    nonce = str(getattr(context.get("request"), "csp_nonce", ""))
    return format_html(' nonce="{}"', nonce) if nonce else SafeString("")
