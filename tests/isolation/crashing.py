"""The settings of a Rex whose actions can be made to crash: a request says where in ``X-Crash``."""

from tests.rexsite.process_settings import *  # noqa: F403
from tests.rexsite.process_settings import MIDDLEWARE

MIDDLEWARE = [*MIDDLEWARE, "tests.isolation.crash_middleware.CrashMiddleware"]
