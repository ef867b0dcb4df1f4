"""Structured logs: one JSON object a line, or text for people; never a prompt, answer or key.

Code logs through ``structlog.get_logger`` with names and numbers as fields; what other libraries
log through ``logging`` comes out in the same form.
"""

import logging
import logging.config
from collections.abc import MutableMapping
from typing import Any

import structlog

_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]

# One line per request is ours (rexsite.request_id). These repeat it with whole addresses, or, when
# asked to debug, tell what is in a request, a query, a frame or a template: prompts and answers.
_TELL_TOO_MUCH = (
    "uvicorn.access",
    "django.channels.server",
    "django.db.backends",
    "django.template",
    "httpx",
    "httpcore",
    "openai",
    "LiteLLM",
    "LiteLLM Router",
    "LiteLLM Proxy",
    "websockets",
    "markdown_it",
)


class _NotTold(logging.Filter):
    """Keeps back what has a line of its own: ``store_unavailable``, without the path."""

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(record, "status_code", None) != 503


def _printable(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What would move a terminal's cursor, change its colours or begin a line is escaped: a name
    could forge lines, or hide them. Only a traceback has lines of its own."""
    for name, value in line.items():
        if isinstance(value, str) and not value.isprintable():
            kept = "\n" if name in ("exception", "stack") else ""
            line[name] = "".join(
                each if each.isprintable() or each in kept else ascii(each)[1:-1] for each in value
            )
    return line


class _RouteForPath(logging.Filter):
    """Django names the path of a request that failed or was refused; ours is told by its route, for
    a path may hold an invitation."""

    def filter(self, record: logging.LogRecord) -> bool:
        request = getattr(record, "request", None)
        path = getattr(request, "path", None)
        if path and isinstance(record.args, tuple):
            match = getattr(request, "resolver_match", None)
            route = match.route if match else "(none)"
            record.args = tuple(route if each == path else each for each in record.args)
        return True


def configure(options: dict[str, str]) -> None:
    """Set up logging from ``{"level": …, "format": "json" | "console"}``."""
    rendering: list[Any] = (
        [structlog.processors.JSONRenderer()]  # which escapes what is not plain
        if options["format"] == "json"
        else [_printable, structlog.dev.ConsoleRenderer(colors=False)]
    )
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "rex": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "foreign_pre_chain": _SHARED,
                    "processors": [
                        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                        structlog.processors.format_exc_info,
                        *rendering,
                    ],
                }
            },
            "filters": {"not_told": {"()": _NotTold}, "route": {"()": _RouteForPath}},
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "formatter": "rex",
                    "filters": ["route"],
                }
            },
            "root": {"handlers": ["stderr"], "level": options["level"]},
            "loggers": {
                **{name: {"level": "WARNING"} for name in _TELL_TOO_MUCH},
                # Without the handlers it comes with, which in debugging write each line again.
                "django": {"handlers": []},
                # Of a refused request it would repeat the path; of a failed one we need the cause.
                "django.request": {"level": "ERROR", "filters": ["not_told"]},
                # It names whoever could not sign in; rexsite.sign_in has a line of its own.
                "axes": {"level": "CRITICAL"},
            },
        }
    )
