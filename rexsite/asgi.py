"""The ASGI application: HTTP, websockets, and (embedded) the driver of runs in the lifespan."""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rexsite.settings")

from django.core.asgi import get_asgi_application

django_application = get_asgi_application()

# Only once Django is set up can these be imported: they reach for models and settings.
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import WebsocketDenier
from django.conf import settings
from django.http.request import split_domain_port, validate_host
from django.utils.http import is_same_domain

from orchestration.problems import STORE_ERRORS, log_store_error
from orchestration.routing import websocket_urlpatterns
from orchestration.runner import Runner

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class PageOrigin:
    """Keeps other sites' pages from connecting with the session of whoever reads them.

    A browser always says which site a page is of: it must be this one, to the port, for cookies
    are sent to every port of a host; or one of REX_TRUSTED_ORIGINS, as for a form. A program says
    none, and is let on to where its key is looked at.
    """

    def __init__(self, inner: App) -> None:
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        origin = headers.get(b"origin")
        if origin is None or _is_ours(origin, scope["scheme"], headers) or _is_trusted(origin):
            await self.inner(scope, receive, send)
        else:
            await WebsocketDenier()(scope, receive, send)


class StoreOutage:
    """Closes a socket whose reader the database cannot name at the moment. The page comes back."""

    def __init__(self, inner: App) -> None:
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.inner(scope, receive, send)
        except STORE_ERRORS as error:
            log_store_error(error)
            # Who has left meanwhile needs no goodbye.
            with suppress(OSError, RuntimeError):
                await send({"type": "websocket.close", "code": 1011})


def _is_ours(origin: str, socket_scheme: str, headers: dict[bytes, str]) -> bool:
    host = headers.get(b"host", "")
    # Believed only where the settings say that a proxy sets it.
    believed = settings.SECURE_PROXY_SSL_HEADER is not None
    forwarded = believed and headers.get(b"x-forwarded-proto") == "https"
    scheme = "https" if forwarded or socket_scheme == "wss" else "http"
    known = validate_host(split_domain_port(host)[0], settings.ALLOWED_HOSTS)
    return known and origin == f"{scheme}://{host}"


def _is_trusted(origin: str) -> bool:
    try:
        page = urlsplit(origin)
    except ValueError:
        return False
    trusted = map(urlsplit, settings.CSRF_TRUSTED_ORIGINS)
    return any(
        page.scheme == site.scheme and is_same_domain(page.netloc, site.netloc.lstrip("*"))
        for site in trusted
    )


protocols: App = ProtocolTypeRouter(
    {
        "http": django_application,
        "websocket": PageOrigin(StoreOutage(AuthMiddlewareStack(URLRouter(websocket_urlpatterns)))),
    }
)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _live(receive, send)
    else:
        await protocols(scope, receive, send)


async def _live(receive: Receive, send: Send) -> None:
    """Start the run driver when the server starts, and let its runs go when the server stops."""
    runner = Runner() if settings.DRIVE_RUNS_IN_WEB else None
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            if runner:
                runner.start()
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            if runner:
                await runner.stop()
            await send({"type": "lifespan.shutdown.complete"})
            return
