"""``GET /api/runs/{id}/events``: the log and the text on its way, as JSON (long-poll) or NDJSON.

Plain async views: a stream that lasts as long as its run must not hold a thread.
"""

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
from orchestration.problems import problem_response
from orchestration.queries import RunNotFound, run_of
from orchestration.reader import Cursor, Position, cursor_from
from workspaces.authentication import actor_of

Answer = TypeVar("Answer", bound=HttpResponseBase)

MAX_WAIT_S = 30
NDJSON = "application/x-ndjson"
# A line at least this often tells the client, and every proxy between, that the run still lives.
HEARTBEAT_S = 4.0
# A key may be revoked while a stream is open, or a membership end: it is looked at this often.
REAUTHORISE_S = 4.0


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
    found = await in_database(_authorised, request, run_id)
    if isinstance(found, str):
        return problem_response(request, found)
    cursor = await in_database(cursor_from, found, since, have)
    if request.method == "HEAD":
        # Following a run for nobody would keep the connection busy until the run ends.
        return _unstored(HttpResponse(content_type=_content_type(request)))
    if _content_type(request) == NDJSON:
        return _stream(request, found.pk, cursor)
    return await _poll(found.pk, cursor, wait_s)


def _content_type(request: HttpRequest) -> str:
    return NDJSON if NDJSON in request.headers.get("Accept", "") else "application/json"


def _unstored(response: Answer) -> Answer:
    response["Cache-Control"] = "no-store"
    return response


def _authorised(request: HttpRequest, run_id: UUID) -> Run | str:
    """The run, or the code of the problem."""
    actor = actor_of(request)
    if actor is None:
        return "not_authenticated"
    try:
        return run_of(actor.workspace, run_id)
    except RunNotFound:
        return "not_found"


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


async def _poll(run_id: UUID, cursor: Cursor, wait_s: float) -> JsonResponse:
    deadline = time.monotonic() + wait_s
    events: list[dict[str, Any]] = []
    async for batch in follow(run_id, cursor, heartbeat_s=max(0.05, wait_s)):
        events += batch
        if events or cursor.done or time.monotonic() >= deadline:
            break
    return _unstored(JsonResponse({"head": cursor.since, "events": events, "done": cursor.done}))


def _stream(request: HttpRequest, run_id: UUID, cursor: Cursor) -> StreamingHttpResponse:
    async def lines() -> AsyncIterator[bytes]:
        authorised_at = time.monotonic()
        async for batch in follow(run_id, cursor, heartbeat_s=HEARTBEAT_S):
            if time.monotonic() - authorised_at >= REAUTHORISE_S:
                authorised_at = time.monotonic()
                if isinstance(await in_database(_authorised, request, run_id), str):
                    return
            # An empty line is allowed between NDJSON objects and keeps the connection in use.
            yield b"".join(json.dumps(event).encode() + b"\n" for event in batch) or b"\n"

    response = StreamingHttpResponse(lines(), content_type=NDJSON)
    response["X-Accel-Buffering"] = "no"
    return _unstored(response)
