"""What Django's debug pages may show: where it went wrong, and nothing that was on its way there.

They are for a developer's own machine, but they are pasted into issues and chats.
"""

import re
from collections.abc import ItemsView
from typing import Any, ClassVar

from django.http import HttpRequest
from django.views.debug import SafeExceptionReporterFilter


class PlacesOnly(SafeExceptionReporterFilter):
    """Neither the variables of frames nor what a form sent: keys, passwords and questions are in
    them. Of the settings also no address, since one may hold a password."""

    hidden_settings: ClassVar[Any] = re.compile(  # type: ignore[misc]
        f"{SafeExceptionReporterFilter.hidden_settings.pattern}|_URL|DATABASE", re.IGNORECASE
    )

    def is_active(self, request: HttpRequest | None) -> bool:
        return True

    def get_post_parameters(self, request: HttpRequest | None) -> dict[str, Any]:
        return {} if request is None else dict.fromkeys(request.POST, self.cleansed_substitute)

    def get_traceback_frame_variables(
        self, request: HttpRequest | None, tb_frame: Any
    ) -> ItemsView[str, Any]:
        nothing: dict[str, Any] = {}
        return nothing.items()
