"""The HTTP side of ``ask``: start a run, follow its events across reconnects, stop it, read it."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx

from launcher.ask.outcome import exit_code_of_problem
from launcher.ask.view import Event, RunView
from launcher.failure import Failed

_NDJSON = "application/x-ndjson"
# The server says something at least every 15 s; silence beyond this is a lost connection.
_SILENCE_S = 45.0
_GIVE_UP_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0


class Unavailable(Failed):
    """Rex is there, and refuses for a moment: its database does not answer, or it is stopping."""


class Client:
    """A client of one Rex. ``base_url`` without a path; ``key`` an API key of a workspace."""

    def __init__(self, base_url: str, key: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=base_url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(30.0, read=_SILENCE_S),
            trust_env=False,
        )

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def start(self, body: dict[str, object]) -> dict[str, Any]:
        """The accepted run: id, url, api_url, events_url. Raises Failed when it is refused."""
        # The key makes a second sending of the same question harmless.
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return _accepted(await self._sent("POST", "/api/run", json=body, headers=headers))

    async def events(self, events_url: str, view: RunView) -> AsyncIterator[Event]:
        """The events after ``view`` until the connection ends, which may be before the run does."""
        query = {"since": str(view.seq), "have": json.dumps(view.have)}
        headers = {"Accept": _NDJSON}
        async with self._http.stream("GET", events_url, params=query, headers=headers) as response:
            if response.status_code != 200:
                await response.aread()
                raise _refused(response)
            async for line in response.aiter_lines():
                if line:
                    yield json.loads(line)

    async def run(self, api_url: str) -> dict[str, Any]:
        """The run as the API gives it."""
        patience = Patience()
        while True:
            try:
                return _accepted(await self._sent("GET", api_url))
            except Unavailable as refused:
                await patience.wait(refused)

    async def stop(self, api_url: str) -> None:
        """Asks for a stop; raises Failed when it is refused.

        A server that cannot be reached is tried again by the next Ctrl-C.
        """
        response = await self._http.post(f"{api_url}/stop")
        if not response.is_success:
            raise _refused(response)

    async def _sent(self, method: str, url: str, **request: Any) -> httpx.Response:
        """The answer to a request that may be sent twice, tried a few times; raises Failed."""
        for last in (False, False, True):
            try:
                return await self._http.request(method, url, **request)
            except httpx.TransportError as error:
                if last:
                    raise _unreachable(error) from error
                await asyncio.sleep(_FIRST_PAUSE_S)
        raise AssertionError("unreachable")


class Patience:
    """How long to go on reconnecting: pauses that double, and an end after a minute of nothing."""

    def __init__(self) -> None:
        self._pause_s = _FIRST_PAUSE_S
        self._since_s = time.monotonic()

    def progress(self) -> None:
        self._pause_s = _FIRST_PAUSE_S
        self._since_s = time.monotonic()

    async def wait(self, error: Exception | None) -> None:
        """Pauses; raises Failed when there was no progress for too long."""
        if time.monotonic() - self._since_s > _GIVE_UP_S:
            raise error if isinstance(error, Failed) else _unreachable(error)
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(_LONGEST_PAUSE_S, 2 * self._pause_s)


def _accepted(response: httpx.Response) -> dict[str, Any]:
    if response.is_success:
        accepted: dict[str, Any] = response.json()
        return accepted
    raise _refused(response)


def _refused(response: httpx.Response) -> Failed:
    """The documented error of the API as a Failed with the matching exit code."""
    try:
        problem = response.json()
        detail, code = problem["detail"], problem["code"]
    except (ValueError, KeyError, TypeError):
        detail, code = f"Rex answered with HTTP {response.status_code}.", ""
    advice = f"Code {code}, request {problem.get('request_id')}." if code else ""
    kind = Unavailable if response.status_code == 503 else Failed
    return kind(detail, advice=advice, exit_code=exit_code_of_problem(response.status_code, code))


def _unreachable(error: Exception | None) -> Failed:
    cause = type(error).__name__ if error else "the stream ended again and again"
    return Failed(f"Rex cannot be reached ({cause}).", advice="Is ./rex up still running?")
