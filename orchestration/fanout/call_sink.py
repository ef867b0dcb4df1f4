"""What one call of a fan-out in this process says: its attempts, its text, and its end as events.

A call tells a ``Telling``: its own ``CallSink``, which makes events of it, or a flight that several
calls follow (``flights.py``).
"""

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import msgspec

from orchestration.domain.errors import ErrorKind, row_of
from orchestration.fanout.wire import (
    AttemptFailed,
    CallRequest,
    Chunk,
    Event,
    Failed,
    Finished,
    FinishReason,
    Reason,
    Started,
    Thought,
    Timing,
    Usage,
)

MAX_PENDING_CHARS = 64 << 10
MAX_ANSWER_BYTES = 8 << 20  # as escaped in JSON, reasoning that is passed on included
CHARS_A_TOKEN = 4
# These end an attempt from here, while the provider may be at work on it.
GIVEN_UP = frozenset(
    {
        ErrorKind.STOP_USER,
        ErrorKind.STOP_SUPERSEDED,
        ErrorKind.DEADLINE,
        ErrorKind.SLOW_READER,
        ErrorKind.TIMEOUT_FIRST_TOKEN,
        ErrorKind.TIMEOUT_STALL,
        ErrorKind.TIMEOUT_TOTAL,
    }
)


class CallFault(Exception):
    """Why an attempt fails. ``fact`` is of our own making: no upstream text, no key. ``status`` is
    the HTTP status of a refusal, None when the provider answered 200 or not at all. ``next_key``:
    the provider refused one key, and there is another. ``lasting``: it said that trying again is of
    no use."""

    def __init__(
        self,
        kind: ErrorKind,
        fact: str = "",
        *,
        status: int | None = None,
        retry_after_ms: int | None = None,
        next_key: bool = False,
        lasting: bool = False,
    ) -> None:
        super().__init__(str(kind))
        self.kind, self.fact, self.status = kind, fact, status
        self.retry_after_ms, self.next_key = retry_after_ms, next_key
        self.retryable = row_of(kind).retryable and not lasting

    @property
    def message(self) -> str:
        sentence = row_of(self.kind).sentence
        facts = [f"HTTP {self.status}"] if self.status else []
        facts += [self.fact] if self.fact else []
        return f"{sentence} ({', '.join(facts)})" if facts else sentence


@dataclass(frozen=True, slots=True)
class Counted:
    """What a provider counted; None where it did not, or counted nonsense."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0


NOT_COUNTED = Counted()


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer, but for its text, which was told. ``usage`` and ``cached_age_ms`` are
    those of an answer this call did not get from a provider itself."""

    finish_reason: FinishReason
    counted: Counted = NOT_COUNTED
    usage: Usage | None = None
    cached_age_ms: int | None = None


class Telling(ABC):
    """What an attempt at ``call`` tells, and how much of it there is.

    ``characters`` are those of the answer since the newest attempt began; ``said``: text or
    reasoning of it was given out.
    """

    def __init__(self, call: CallRequest) -> None:
        self.call = call
        self.characters = 0
        self.said = False
        self._bytes = 0

    def started(self, attempt: int, reason: Reason, target: CallRequest) -> None:
        """An attempt at ``target`` begins, or with 0 a replay; what was said before is void."""
        self.characters, self.said, self._bytes = 0, False, 0

    @abstractmethod
    def deadline(self) -> float:
        """The event loop's time at which the call is over; it may move."""

    @abstractmethod
    def connected(self) -> None: ...

    @abstractmethod
    def counted(self, counted: Counted) -> None:
        """What the provider has counted so far, for an attempt that fails."""

    @abstractmethod
    def attempt_failed(self, fault: CallFault, wait_s: float) -> None:
        """The attempt is over; another one follows after ``wait_s``."""

    @abstractmethod
    def must_wait(self, text: str) -> bool:
        """Whether ``text`` would wait now: the reader is slow then, not the provider."""

    @abstractmethod
    async def text(self, text: str) -> None:
        """The next piece, as ``valid_text`` leaves it; waits while the reader is behind.

        Raises CallFault when the answer gets too large.
        """

    @abstractmethod
    async def thought(self, text: str) -> None:
        """The next piece of reasoning; likewise."""

    def usage(self, counted: Counted) -> Usage:
        """What the newest attempt has cost, estimated where the provider did not count."""
        asked = sum(len(message.text) for message in self.call.messages)
        # No prompt is empty and no complete answer is: a zero is sent by who does not know.
        given, written = counted.input_tokens or None, counted.output_tokens or None
        return Usage(
            input_tokens=estimated_tokens(asked) if given is None else given,
            output_tokens=estimated_tokens(self.characters) if written is None else written,
            cached_tokens=counted.cached_tokens,
            reasoning_tokens=counted.reasoning_tokens,
            estimated=given is None or written is None,
        )

    def _measure(self, text: str, *, is_answer: bool) -> None:
        self.said = True
        self.characters += len(text) if is_answer else 0
        self._bytes += len(msgspec.json.encode(text)) - 2
        if self._bytes > MAX_ANSWER_BYTES:
            raise CallFault(ErrorKind.RESPONSE_TOO_LARGE, f"over {MAX_ANSWER_BYTES} bytes")


class Outlet(Protocol):
    """Where events go, and what time it is there."""

    def now_ms(self) -> int: ...
    def put(self, event: Event, *, urgent: bool) -> None: ...


class CallSink(Telling):
    """Makes events of what one call says. Methods are called from the call's own task.

    ``workspace`` is whose call it is, empty when nobody said; ``deadline_at`` is when the call is
    over, by the event loop's clock; ``began``: an attempt or a replay was told of.
    """

    def __init__(
        self, outlet: Outlet, call: CallRequest, *, workspace: str, deadline_at: float
    ) -> None:
        super().__init__(call)
        self.workspace, self.deadline_at = workspace, deadline_at
        self.began = False
        self.shared_attempt = 0  # the newest of the flight that this call follows as a replay
        self._outlet = outlet
        self._attempt = 0
        self._target = call
        self._moments = _no_moments()
        self._counted = NOT_COUNTED
        self._at_work = False  # the provider has the prompt
        self._room = asyncio.Event()
        self._pending = 0

    def started(self, attempt: int, reason: Reason, target: CallRequest) -> None:
        super().started(attempt, reason, target)
        self.began = True
        now = self._outlet.now_ms()
        self._attempt, self._target = attempt, target
        self._counted, self._at_work = NOT_COUNTED, False
        # Nothing waits for its turn here: what is asked for is sent; a replay is not.
        self._moments = _no_moments() | {"queued": now, "admitted": now if attempt else None}
        self._outlet.put(
            Started(self.call.id, now, attempt, reason, target.provider, target.model), urgent=True
        )

    def redirected(self, target: CallRequest) -> None:
        """Another target gives the answer, and nothing that was shown is void by that."""
        self._target = target

    def take_over(self) -> None:
        """The attempts this call followed are its own from now on: so is what they cost."""
        if not self._attempt and self.shared_attempt:
            self._attempt, self._at_work = self.shared_attempt, True

    def hand_over(self) -> None:
        """Another call takes the attempts over: what they cost is not told here."""
        self.characters, self._counted, self._at_work = 0, NOT_COUNTED, False

    def catch_up(self, attempt: int, characters: int, counted: Counted, *, at_work: bool) -> None:
        """What ``attempt`` has said and counted, this call being too slow to pass it on."""
        self._attempt, self.characters = attempt, characters
        self._counted, self._at_work = counted, at_work

    def deadline(self) -> float:
        return self.deadline_at

    def connected(self) -> None:
        self._moments["connect"] = self._outlet.now_ms()
        self._at_work = True

    def counted(self, counted: Counted) -> None:
        self._counted = counted

    async def text(self, text: str) -> None:
        if not text:
            return
        now = self._outlet.now_ms()
        first = self._moments["first_token"] is None
        if first:
            self._moments["first_token"] = now
        self._moments["last_token"] = now
        self._measure(text, is_answer=True)
        await self._give(text, Chunk(self.call.id, now, text), urgent=first)

    async def thought(self, text: str) -> None:
        if text:
            self._measure(text, is_answer=False)
            now = self._outlet.now_ms()
            await self._give(text, Thought(self.call.id, now, text), urgent=False)

    async def _give(self, text: str, event: Event, *, urgent: bool) -> None:
        while self.must_wait(text):
            self._room.clear()
            await self._room.wait()
        self._pending += len(text)
        self._outlet.put(event, urgent=urgent)

    def must_wait(self, text: str) -> bool:
        return self._pending > 0 and self._pending + len(text) > MAX_PENDING_CHARS

    def taken(self) -> None:
        """The reader has taken what was pending."""
        self._pending = 0
        self._room.set()

    def attempt_failed(self, fault: CallFault, wait_s: float) -> None:
        self._outlet.put(
            AttemptFailed(
                self.call.id,
                self._outlet.now_ms(),
                self._attempt,
                fault.kind,
                fault.message,
                fault.retryable,
                fault.status,
                fault.retry_after_ms,
                round(wait_s * 1000),
                self._spent(fault),
                Timing(**self._moments),
            ),
            urgent=True,
        )
        # Who ends the call while it waits tells nothing of this attempt again.
        self.characters, self.said, self._counted, self._at_work = 0, False, NOT_COUNTED, False

    def finish(self, answer: Answer) -> None:
        self._outlet.put(
            Finished(
                self.call.id,
                self._outlet.now_ms(),
                self._attempt,
                self._target.provider,
                self._target.model,
                answer.finish_reason,
                answer.usage or self.usage(answer.counted),
                Timing(**self._moments),
                cached_age_ms=answer.cached_age_ms,
            ),
            urgent=True,
        )

    def fail(self, fault: CallFault) -> None:
        self._outlet.put(
            Failed(
                self.call.id,
                self._outlet.now_ms(),
                self._attempt,
                fault.kind,
                fault.message,
                fault.retryable,
                fault.status,
                fault.retry_after_ms,
                self._spent(fault),
                Timing(**self._moments),
            ),
            urgent=True,
        )

    def _spent(self, fault: CallFault) -> Usage | None:
        """A replay costs nothing, nor does an attempt that said nothing, unless the provider
        counted, or had the prompt when the attempt was given up: reasoning that used up all its
        tokens gives no text, and is paid for."""
        tokens = self._counted.input_tokens or self._counted.output_tokens
        given_up = self._at_work and fault.status is None and fault.kind in GIVEN_UP
        spent = self.characters or tokens or given_up
        return self.usage(self._counted) if self._attempt and spent else None


def _no_moments() -> dict[str, int | None]:
    return dict.fromkeys(("queued", "admitted", "connect", "first_token", "last_token"))


def estimated_tokens(characters: int) -> int:
    """A token for four characters, rounded up."""
    return -(-characters // CHARS_A_TOKEN)


def valid_text(text: str) -> str:
    """``text`` with U+FFFD for U+0000 and lone surrogates, which what reads us would refuse."""
    if "\x00" in text:
        text = text.replace("\x00", "�")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
