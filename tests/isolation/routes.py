"""Every route of the URL conf, and what the crawl puts into its parameters."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.resolvers import RegexPattern

# Of routes that are regular expressions: an address each of them takes.
_SAMPLES = {
    r"^(?P<app_label>workspaces|auth|orchestration)/$": "workspaces/",
    r"(?P<url>.*)$": "no-such-page",
}
_PARAMETER = re.compile(r"(<(?:\w+:)?(\w+)>)")
_CONSOLE = re.compile(r"admin/(\w+)/(\w+)/")
# Where the console's number is that of another model than the page's.
_OF_ANOTHER = {
    "admin/workspaces/workspace/members/": "workspaces.membership",
    "admin/workspaces/quotaoverride/raise/": "workspaces.quota",
}


@dataclass(frozen=True, slots=True)
class Route:
    """``template`` is an address with ``{parameter}`` for each of ``parameters``."""

    name: str
    template: str
    parameters: tuple[str, ...]

    @property
    def is_api(self) -> bool:
        return self.template.startswith("/api/")

    @property
    def is_console(self) -> bool:
        return self.template.startswith("/admin/")

    def address(self, ids: Mapping[str, Any]) -> str:
        """Raises KeyError for a parameter the crawl has no id for: teach it (``world.ids``)."""
        return _PLACE.sub(lambda found: str(ids[found[1]]), self.template)

    def __str__(self) -> str:
        return self.template


_PLACE = re.compile(r"\{([\w.]+)\}")


def routes() -> list[Route]:
    return sorted(_routes(get_resolver()), key=lambda route: route.template)


def _routes(resolver: URLResolver, prefix: str = "") -> Iterator[Route]:
    for each in resolver.url_patterns:
        if isinstance(each.pattern, RegexPattern):
            assert isinstance(each, URLPattern)
            # A new one is a KeyError here: it needs a sample.
            yield Route(each.name or "", f"/{prefix}{_SAMPLES[str(each.pattern)]}", ())
            continue
        route = f"{prefix}{each.pattern}"
        if isinstance(each, URLResolver):
            yield from _routes(each, route)
            continue
        template = f"/{route}"
        for written, parameter in _PARAMETER.findall(route):
            template = template.replace(written, f"{{{_called(route, parameter)}}}")
        yield Route(each.name or "", template, tuple(_PLACE.findall(template)))


def _called(route: str, parameter: str) -> str:
    """The name under which the world keeps what goes into ``parameter`` of ``route``."""
    console = _CONSOLE.match(route)
    if console is None or parameter not in ("object_id", "pk", "id"):
        return parameter
    for beginning, model in _OF_ANOTHER.items():
        if route.startswith(f"{beginning}<"):
            return model
    return f"{console[1]}.{console[2]}"
