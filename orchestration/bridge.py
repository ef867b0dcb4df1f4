"""The one bridge from async code to the database.

Django's ORM is synchronous. ``in_database`` runs one function on a small pool of threads whose
connections stay open, so that a slow query of one run does not hold up the event loop. The other
bridge, async work from synchronous code, is needed nowhere.
"""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from django.db import close_old_connections

P = ParamSpec("P")
T = TypeVar("T")

# More threads than SQLite has writers would only queue on its lock; readers need a few.
_POOL = ThreadPoolExecutor(max_workers=4, thread_name_prefix="rex-db")


async def in_database(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``function`` on a database thread, with this task's logging context."""
    context = contextvars.copy_context()

    def call() -> T:
        # A connection the server has closed meanwhile would fail the first query otherwise.
        close_old_connections()
        try:
            return context.run(lambda: function(*args, **kwargs))
        finally:
            # Gives PostgreSQL's back to its pool, where others wait for one; SQLite's stays open.
            close_old_connections()

    return await asyncio.get_running_loop().run_in_executor(_POOL, call)
