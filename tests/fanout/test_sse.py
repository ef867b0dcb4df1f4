"""However the bytes are cut, the events are the same."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.fanout.sse import EventTooLong, SseEvent, SseReader

STREAM = (
    "\ufeff: hello\n"
    "data: one\n\n"
    "event: named\r\ndata:two\r\ndata: more\r\n\r\n"
    "id: 7\rdata: three\r\r"
    "data\n\n"
    "data: naïve 🌍\n\n"
    ": ping\n\n"
    "data: never ended"
).encode()
EVENTS = [
    SseEvent(b"", b"one"),
    SseEvent(b"named", b"two\nmore"),
    SseEvent(b"", b"three"),
    SseEvent(b"", b""),
    SseEvent(b"", "naïve 🌍".encode()),
]


def read(pieces: list[bytes], limit: int = 1 << 20) -> list[SseEvent]:
    reader = SseReader(limit)
    return [event for piece in pieces for event in reader.feed(piece)]


@given(st.sets(st.integers(1, len(STREAM) - 1)))
def test_any_cutting_of_the_bytes_gives_the_same_events(cuts: set[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    assert read([STREAM[a:b] for a, b in pairwise(edges)]) == EVENTS


@pytest.mark.parametrize(
    "stream",
    [b"data: " + b"x" * 100, b"data: " + b"x" * 100 + b"\n\n", b"data: xxxxxxxxx\n" * 20],
    ids=["line without end", "whole line", "many lines of one event"],
)
def test_an_event_over_the_limit_is_refused_and_one_at_the_limit_is_not(stream: bytes) -> None:
    assert read([b"data: " + b"x" * 50 + b"\n\n"], limit=60)
    with pytest.raises(EventTooLong):
        read([stream], limit=60)
