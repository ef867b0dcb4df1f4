"""``GET /api/runs/{id}/events``: the log and the text on its way, as JSON (long-poll) or NDJSON.

Plain async views: a stream that lasts as long as its run must not hold a thread.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any, TypeVar
from uuid import UUID

from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    JsonResponse,
    StreamingHttpResponse,
)
from django.views.decorators.csrf import csrf_exempt

from orchestration.bridge import in_database
from orchestration.follow import follow
from orchestration.models import Run
from orchestration.problems import STORE_ERRORS, log_store_error, problem_response
from orchestration.queries import RunNotFound, run_of
from orchestration.reader import Cursor, Position, cursor_from
from workspaces.authentication import actor_of, actor_still_behind
from workspaces.models import ApiKey

Answer = TypeVar("Answer", bound=HttpResponseBase)

MAX_WAIT_S = 30
NDJSON = "application/x-ndjson"
# A line at least this often tells the client, and every proxy between, that the run still lives.
HEARTBEAT_S = 2.0
# A key may be revoked while an answer is open, or a membership end. It is looked at this often and
# for this long at most: with a beat's silence between two looks that is less than five seconds.
REAUTHORISE_S = 1.0
REAUTHORISE_TIMEOUT_S = 1.5


@csrf_exempt  # it only reads, and says so itself in the API's own words
async def events(request: HttpRequest, run_id: UUID) -> HttpResponseBase:
    """Query: ``since`` (seq), ``have`` (JSON: stream → [rev, offset]), ``wait`` (seconds ≤ 30).

    JSON: ``{"head", "events", "done"}`` as soon as there is something, or after ``wait``.
    ``Accept: application/x-ndjson``: one event a line until the run ends.
    """
    if request.method not in ("GET", "HEAD"):
        response = problem_response(request, "method_not_allowed")
        response["Allow"] = "GET, HEAD"
        return response
    try:
        since, have, wait_s = read_query(request.GET)
    except ValueError as error:
        return problem_response(request, "bad_request", str(error))
    actor = await in_database(actor_of, request)
    if actor is None:
        return problem_response(request, "not_authenticated")
    if why_not := actor.why_not(ApiKey.Scope.RUNS_READ):
        return problem_response(request, "forbidden", why_not)
    try:
        found = await in_database(run_of, actor.workspace, run_id)
    except RunNotFound:
        return problem_response(request, "not_found")
    cursor = await in_database(cursor_from, found, since, have)
    if request.method == "HEAD":
        # Following a run for nobody would keep the connection busy until the run ends.
        return _unstored(HttpResponse(content_type=_content_type(request)))
    if _content_type(request) == NDJSON:
        return _stream(request, found.pk, cursor)
    return await _poll(request, found.pk, cursor, wait_s)


def _content_type(request: HttpRequest) -> str:
    return NDJSON if NDJSON in request.headers.get("Accept", "") else "application/json"


def _unstored(response: Answer) -> Answer:
    response["Cache-Control"] = "no-store"
    return response


class _Guard:
    """Whether whoever asked may still be answered, looked up again now and then."""

    def __init__(self, request: HttpRequest, run_id: UUID) -> None:
        self._request, self._run_id = request, run_id
        self._looked_at = time.monotonic()

    async def lets_on(self) -> bool:
        """Raises TimeoutError or DatabaseError where that cannot be known."""
        if time.monotonic() - self._looked_at < REAUTHORISE_S:
            return True
        async with asyncio.timeout(REAUTHORISE_TIMEOUT_S):
            allowed = await in_database(self._look)
        self._looked_at = time.monotonic()
        return allowed

    def _look(self) -> bool:
        actor = actor_still_behind(self._request)
        if actor is None or not actor.may_read:
            return False
        return Run.objects.in_workspace(actor.workspace).filter(pk=self._run_id).exists()


def read_query(query: Any) -> tuple[int, dict[str, Position], float]:
    """(since, have, wait_s) of a query; ValueError says which part is wrong."""
    since = query.get("since", "0")
    if not (since.isascii() and since.isdigit() and len(since) <= 9):
        raise ValueError("since takes a sequence number.")
    wait = query.get("wait", "0")
    if not (wait.isascii() and wait.isdigit() and int(wait[:9]) <= MAX_WAIT_S):
        raise ValueError(f"wait takes whole seconds, at most {MAX_WAIT_S}.")
    try:
        have = read_have(json.loads(query.get("have", "{}")))
    except (ValueError, RecursionError):
        raise ValueError('have takes JSON like {"A": [0, 120]}: stream to [rev, offset].') from None
    return int(since), have, float(wait)


def read_have(value: Any) -> dict[str, Position]:
    """Positions by stream, checked; ValueError where they are not of the documented form."""
    if not isinstance(value, dict) or len(value) > 200:
        raise ValueError("not an object")
    have: dict[str, Position] = {}
    for stream, position in value.items():
        if not (isinstance(position, list) and len(position) == 2 and len(stream) <= 8):
            raise ValueError("not a position")
        rev, offset = position
        if not all(type(each) is int and 0 <= each < 2**31 for each in (rev, offset)):
            raise ValueError("not a position")
        have[stream] = (rev, offset)
    return have


async def _poll(
    request: HttpRequest, run_id: UUID, cursor: Cursor, wait_s: float
) -> HttpResponseBase:
    deadline = time.monotonic() + wait_s
    guard = _Guard(request, run_id)
    events: list[dict[str, Any]] = []
    async for batch in follow(run_id, cursor, heartbeat_s=min(max(0.05, wait_s), HEARTBEAT_S)):
        try:
            if not await guard.lets_on():
                return problem_response(request, "not_authenticated")
        except TimeoutError:
            return problem_response(request, "store_unavailable")
        events += batch
        if events or cursor.done or time.monotonic() >= deadline:
            break
    return _unstored(JsonResponse({"head": cursor.since, "events": events, "done": cursor.done}))


def _stream(request: HttpRequest, run_id: UUID, cursor: Cursor) -> StreamingHttpResponse:
    async def lines() -> AsyncIterator[bytes]:
        guard = _Guard(request, run_id)
        # Where the database does not answer the stream ends early; the client comes back and asks
        # for the rest.
        try:
            async for batch in follow(run_id, cursor, heartbeat_s=HEARTBEAT_S):
                # Not known to be allowed is not allowed.
                if not await guard.lets_on():
                    return
                # An empty line is allowed between NDJSON objects and keeps the connection in use.
                yield b"".join(json.dumps(event).encode() + b"\n" for event in batch) or b"\n"
        except TimeoutError:
            return
        except STORE_ERRORS as error:
            log_store_error(error)

    response = StreamingHttpResponse(lines(), content_type=NDJSON)
    response["X-Accel-Buffering"] = "no"
    return _unstored(response)
