"""The websocket of a live run: authorise, replay what the page lacks, forward until it ends."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID

import structlog
from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import DatabaseError
from django.utils import timezone

from orchestration.bridge import in_database
from orchestration.events_api import read_have
from orchestration.follow import follow
from orchestration.models import Run
from orchestration.queries import RunNotFound, run_of, snapshot_of
from orchestration.reader import Position, cursor_from
from workspaces.access import Actor, actor_from_authorization, actor_from_session

HEARTBEAT_S = 20.0
# A browser that takes nothing for this long is gone or stuck; it may come back and resume.
SEND_TIMEOUT_S = 20.0
# A key may be revoked while the page is open, or a membership end. It is looked at this often, for
# this long at most, and then there is this long for a goodbye: together less than five seconds.
REAUTHORISE_S = 2.0
REAUTHORISE_TIMEOUT_S = 2.0
GOODBYE_S = 0.5
# A subscription names a position in each text. Anything longer is no subscription.
MAX_MESSAGE_CHARS = 64_000
# A frame's text ends about here: what one write hands to the socket is all a reader that takes
# nothing can make this process hold.
FRAME_TEXT_CHARS = 128_000

log = structlog.get_logger("rex.socket")

BAD_MESSAGE, NOT_AUTHENTICATED, FORBIDDEN, NOT_FOUND, TOO_SLOW = 4400, 4401, 4403, 4404, 4408
FAILED = 1011


class RunConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """``/ws/runs/<id>/``; the frames are described in docs/events.md."""

    run: Run
    awaiting_subscription = False
    leaving = False
    forwarding: asyncio.Task[None] | None = None
    guarding: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        # Accept first: a browser is not told the status of a refused upgrade, only a close code.
        await self.accept()
        self.awaiting_subscription = await self._is_let_on()
        if self.awaiting_subscription:
            self.guarding = asyncio.create_task(self._guard())

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        # Also what was on its way when the socket was refused comes here.
        if not self.awaiting_subscription:
            return
        self.awaiting_subscription = False
        # Whoever was let in may have said nothing for long.
        if not await self._is_let_on():
            return
        try:
            since, have = read_subscription(text_data or "")
        except ValueError:
            await self._bye(BAD_MESSAGE, "bad_message")
            return
        self.forwarding = asyncio.create_task(self._forward(since, have))

    async def disconnect(self, code: int) -> None:
        # Leaving a page is never a stop of its run.
        for task in (self.forwarding, self.guarding):
            if task is not None:
                task.cancel()

    async def _forward(self, since: int, have: dict[str, Position]) -> None:
        # A reader may be gone at any moment, also while it is told goodbye.
        with suppress(OSError):
            try:
                await self._replay_and_follow(since, have)
            except TimeoutError:
                # Waits until the reader takes something again or is gone, and holds nothing else.
                await self._leave(TOO_SLOW)
            except DatabaseError:
                # A socket that stayed open without its reader would be silent for ever.
                log.exception("follow_failed")
                await self._leave(FAILED)

    async def _replay_and_follow(self, since: int, have: dict[str, Position]) -> None:
        run = await in_database(self._reload)
        if run is None:
            await self._bye(NOT_FOUND, "not_found")
            return
        await self._frame(
            k="hello", v=1, run=str(run.pk), head=run.last_seq, now=_now(), hb=int(HEARTBEAT_S)
        )
        if since > run.last_seq:
            # The page knows more than the database: it was restored. Start over from what is.
            snapshot = await in_database(snapshot_of, run)
            await self._frame(k="snapshot", run=snapshot)
            since = snapshot["seq"]
            have = {call["label"]: (call["rev"], len(call["text"])) for call in snapshot["calls"]}
        cursor = await in_database(cursor_from, run, since, have)
        async for events in follow(run.pk, cursor, heartbeat_s=HEARTBEAT_S):
            for portion in portions(events):
                await self._frame(k="ev", events=portion)
            if not events:
                await self._frame(k="hb", seq=cursor.since)
        await self._bye(1000, "run_done")

    async def _guard(self) -> None:
        """Look again, on a clock of its own, whether this reader may still read or subscribe."""
        while not self.leaving:
            await asyncio.sleep(REAUTHORISE_S)
            await self._is_let_on(within_s=REAUTHORISE_TIMEOUT_S)

    async def _is_let_on(self, within_s: float | None = None) -> bool:
        """Whether this reader may read the run now; one who may not is shown out."""
        try:
            async with asyncio.timeout(within_s):
                refused = await in_database(self._authorise)
        except (TimeoutError, DatabaseError) as error:
            # Not known to be allowed is not allowed. The reader may come back and ask again.
            log.warning("not_authorised", error=type(error).__name__)
            refused = (FAILED, "")
        if self.leaving or refused is None:
            return not self.leaving
        self.awaiting_subscription = False
        if self.forwarding is not None:
            self.forwarding.cancel()
        code, reason = refused
        with suppress(OSError):
            try:
                async with asyncio.timeout(GOODBYE_S):
                    await (self._bye(code, reason) if reason else self._leave(code))
            except TimeoutError:
                await self._leave(code)
        return False

    def _authorise(self) -> tuple[int, str] | None:
        """Close code and reason where this socket may not read the run; nothing is remembered."""
        actor = self._actor()
        if actor is None:
            return NOT_AUTHENTICATED, "auth"
        if not actor.may_read:
            return FORBIDDEN, "forbidden"
        try:
            self.run = run_of(actor.workspace, self._run_id())
        except RunNotFound:
            return NOT_FOUND, "not_found"
        return None

    def _actor(self) -> Actor | None:
        keys = [value for name, value in self.scope["headers"] if name == b"authorization"]
        if keys:
            # As a server joins what is sent twice: which of two keys counts is nobody's guess.
            return actor_from_authorization(b",".join(keys).decode("latin-1"))
        return actor_from_session(self.scope["session"])

    def _reload(self) -> Run | None:
        return Run.objects.in_workspace(self.run.workspace).filter(pk=self.run.pk).first()

    def _run_id(self) -> UUID:
        run_id: UUID = self.scope["url_route"]["kwargs"]["run_id"]
        return run_id

    async def _frame(self, **frame: Any) -> None:
        """Send one frame; TimeoutError when the other side takes nothing."""
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await self.send(text_data=json.dumps(frame))

    async def _bye(self, code: int, reason: str) -> None:
        self.leaving = True
        await self._frame(k="bye", code=reason, retry=False)
        await self._leave(code)

    async def _leave(self, code: int) -> None:
        self.leaving = True
        await self.close(code)


class NowhereConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Every other address: closed like a run that is not there, so that nobody comes back."""

    async def connect(self) -> None:
        await self.accept()
        await self.send(text_data=json.dumps({"k": "bye", "code": "not_found", "retry": False}))
        await self.close(NOT_FOUND)


def read_subscription(text: str) -> tuple[int, dict[str, Position]]:
    """(since, have) of a client's one frame; ValueError where it is none."""
    if len(text) > MAX_MESSAGE_CHARS:
        raise ValueError("too long")
    try:
        message = json.loads(text)
        since, have = message["since"], read_have(message.get("have", {}))
        sound = message["k"] == "sub" and type(since) is int and since >= 0
    except (KeyError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise ValueError("not a subscription")
    return since, have


def portions(events: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """``events`` in order, in lists whose text ends at about ``FRAME_TEXT_CHARS``."""
    portion: list[dict[str, Any]] = []
    chars = 0
    for event in events:
        portion.append(event)
        chars += len(event.get("text", ""))
        if chars >= FRAME_TEXT_CHARS:
            yield portion
            portion, chars = [], 0
    if portion:
        yield portion


def _now() -> str:
    return timezone.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
