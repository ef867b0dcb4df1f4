"""The ASGI application: HTTP, websockets, and (embedded) the driver of runs in the lifespan."""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import ParseResult

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rexsite.settings")

from django.core.asgi import get_asgi_application

django_application = get_asgi_application()

# Only once Django is set up can these be imported: they reach for models and settings.
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from django.conf import settings

from orchestration.routing import websocket_urlpatterns
from orchestration.runner import Runner

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class PageOrigin(OriginValidator):  # type: ignore[misc]
    """Keeps other sites' pages from connecting with the session of whoever reads them.

    A browser always says which site a page is of. A program says none, and is let on to where its
    key is looked at.
    """

    def valid_origin(self, parsed_origin: ParseResult | None) -> bool:
        return parsed_origin is None or bool(super().valid_origin(parsed_origin))


protocols: App = ProtocolTypeRouter(
    {
        "http": django_application,
        "websocket": PageOrigin(
            AuthMiddlewareStack(URLRouter(websocket_urlpatterns)), settings.ALLOWED_HOSTS
        ),
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
