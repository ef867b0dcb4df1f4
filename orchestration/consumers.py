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
from workspaces.access import Actor, actor_from_authorization, actor_from_user

HEARTBEAT_S = 20.0
# A browser that takes nothing for this long is gone or stuck; it may come back and resume.
SEND_TIMEOUT_S = 20.0
# Membership may end while the page is open; it is looked at again this often.
REAUTHORISE_S = 5.0
# A subscription names a position in each text. Anything longer is no subscription.
MAX_MESSAGE_CHARS = 64_000
# A frame's text ends about here: what one write hands to the socket is all a reader that takes
# nothing can make this process hold.
FRAME_TEXT_CHARS = 128_000

log = structlog.get_logger("rex.socket")

NOT_AUTHENTICATED, NOT_FOUND, TOO_SLOW, BAD_MESSAGE, FAILED = 4401, 4404, 4408, 4400, 1011


class RunConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """``/ws/runs/<id>/``; the frames are described in docs/events.md."""

    run: Run
    awaiting_subscription = False
    forwarding: asyncio.Task[None] | None = None
    guarding: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        # Accept first: a browser is not told the status of a refused upgrade, only a close code.
        await self.accept()
        refused = await in_database(self._authorise)
        if refused:
            await self._bye(*refused)
        self.awaiting_subscription = not refused

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        # Also what was on its way when the socket was refused comes here.
        if not self.awaiting_subscription:
            return
        self.awaiting_subscription = False
        try:
            since, have = read_subscription(text_data or "")
        except ValueError:
            await self._bye(BAD_MESSAGE, "bad_message")
            return
        self.forwarding = asyncio.create_task(self._forward(since, have))
        self.guarding = asyncio.create_task(self._guard(self.forwarding))

    async def disconnect(self, code: int) -> None:
        # Leaving a page is never a stop of its run.
        if self.forwarding is not None:
            self.forwarding.cancel()

    async def _forward(self, since: int, have: dict[str, Position]) -> None:
        # A reader may be gone at any moment, also while it is told goodbye.
        with suppress(OSError):
            try:
                await self._replay_and_follow(since, have)
            except TimeoutError:
                # Waits until the reader takes something again or is gone, and holds nothing else.
                await self.close(TOO_SLOW)
            except DatabaseError:
                # A socket that stayed open without its reader would be silent for ever.
                log.exception("follow_failed")
                await self.close(FAILED)

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

    async def _guard(self, forwarding: asyncio.Task[None]) -> None:
        """Look again, on a clock of its own, whether this reader may still read."""
        while not forwarding.done():
            await asyncio.wait({forwarding}, timeout=REAUTHORISE_S)
            if forwarding.done():
                return
            try:
                refused = await in_database(self._authorise)
            except DatabaseError:
                # Not known to be allowed is not allowed. The reader may come back and ask again.
                forwarding.cancel()
                await self.close(FAILED)
                return
            if refused:
                forwarding.cancel()
                with suppress(OSError):
                    await self._bye(*refused)

    def _authorise(self) -> tuple[int, str] | None:
        """Close code and reason where this socket may not read the run; nothing is remembered."""
        actor = self._actor()
        if actor is None:
            return NOT_AUTHENTICATED, "auth"
        try:
            self.run = run_of(actor.workspace, self._run_id())
        except RunNotFound:
            return NOT_FOUND, "not_found"
        return None

    def _actor(self) -> Actor | None:
        for name, value in self.scope["headers"]:
            if name == b"authorization":
                return actor_from_authorization(value.decode("latin-1"))
        user, session = self.scope["user"], self.scope["session"]
        # Signing out, in whatever tab, ends the session; the scope only remembers how it began.
        if not user.is_authenticated or not session.exists(session.session_key):
            return None
        # The session's user as it is now: one made inactive since the page opened is refused.
        fresh = type(user._wrapped if hasattr(user, "_wrapped") else user).objects.filter(
            pk=user.pk
        )
        found = fresh.first()
        return actor_from_user(found) if found else None

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
        await self._frame(k="bye", code=reason, retry=False)
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
