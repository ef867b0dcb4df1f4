"""Event streams as the HTML standard defines them, from bytes in any pieces to events.

Lines end with LF, CRLF or CR, a byte order mark may lead, comments and unknown fields are skipped,
several data lines join with a line feed, and an event counts only when its blank line has come.
"""

from collections.abc import Iterator
from dataclasses import dataclass

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLong(Exception):
    """A line or an event is longer than the reader's limit."""


@dataclass(frozen=True, slots=True)
class SseEvent:
    name: bytes
    data: bytes


class SseReader:
    """Feed it bytes, take events. ``limit`` bytes is the longest line and the longest event."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._searched = 0
        self._begun = False
        self._skip_lf = False
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[SseEvent]:
        """The events that ``piece`` completes. Raises EventTooLong."""
        if self._skip_lf and piece:
            # The last line ended with CR: a LF that follows belongs to it.
            self._skip_lf = False
            piece = piece.removeprefix(b"\n")
        self._rest += piece
        for line in self._lines():
            if event := self._line(line):
                yield event
        if len(self._rest) > self._limit:
            raise EventTooLong

    def _lines(self) -> Iterator[bytes]:
        start = 0
        while True:
            end = self._line_end(max(start, self._searched))
            if end < 0:
                break
            line = bytes(self._rest[start:end])
            start = end + 1
            if self._rest[end] == 0x0D:
                if start == len(self._rest):
                    self._skip_lf = True
                elif self._rest[start] == 0x0A:
                    start += 1
            if not self._begun:
                self._begun = True
                line = line.removeprefix(_BYTE_ORDER_MARK)
            yield line
        del self._rest[:start]
        self._searched = len(self._rest)

    def _line_end(self, start: int) -> int:
        lf = self._rest.find(b"\n", start)
        cr = self._rest.find(b"\r", start, len(self._rest) if lf < 0 else lf)
        return lf if cr < 0 else cr

    def _line(self, line: bytes) -> SseEvent | None:
        if not line:
            name, data, self._name, self._data, self._size = self._name, self._data, b"", [], 0
            return SseEvent(name, b"\n".join(data)) if data else None
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._size += len(value)
            if self._size > self._limit:
                raise EventTooLong
            self._data.append(value)
        elif field == b"event":
            self._name = value
        return None
