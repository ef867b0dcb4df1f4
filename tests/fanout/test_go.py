"""The client of the Go service believes only what keeps the contract, and never half a stream."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from orchestration.fanout.client import ContractViolation, FanoutRefused, FanoutUnavailable
from orchestration.fanout.go import GoClient
from orchestration.fanout.wire import Chunk, Event, Finished, Message
from tests.fanout.asking import PROVIDERS, call, events_of, fanout, text_of

TIMING = {"queued": 1, "admitted": 1, "connect": 2, "first_token": 3, "last_token": 4}
USAGE = {
    "input_tokens": 3,
    "output_tokens": 2,
    "cached_tokens": 0,
    "reasoning_tokens": 0,
    "estimated": False,
}


def but(line: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return line | changes


STARTED = {
    "type": "started",
    "call": "A",
    "at_ms": 1,
    "attempt": 1,
    "reason": "first",
    "provider": "local",
    "model": "m",
}
CHUNK = {"type": "chunk", "call": "A", "at_ms": 3, "text": "Grüße"}
FINISHED = {
    "type": "finished",
    "call": "A",
    "at_ms": 5,
    "attempt": 1,
    "provider": "local",
    "model": "m",
    "finish_reason": "stop",
    "usage": USAGE,
    "timing_ms": TIMING,
    "cached_age_ms": None,
}
ATTEMPT_FAILED = {
    "type": "attempt_failed",
    "call": "A",
    "at_ms": 4,
    "attempt": 1,
    "kind": "overloaded",
    "message": "The provider is overloaded.",
    "retryable": True,
    "status": 503,
    "retry_after_ms": None,
    "wait_ms": 250,
    "usage": None,
    "timing_ms": TIMING,
}
END = {"calls": 1, "finished": 1, "failed": 0, "elapsed_ms": 6}
WHOLE = [
    {"n": 1, "ev": [STARTED, CHUNK]},
    {"n": 2, "ev": []},
    {"n": 3, "ev": [FINISHED], "end": END},
]


class Service:
    """Answers every request with the same bytes, and keeps the first line of each request."""

    def __init__(self, status: str, content_type: str, headers: str, body: bytes) -> None:
        self.head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n{headers}\r\n".encode()
        self.body = body
        self.asked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(request.partition(b"\r\n")[0].decode())
        writer.write(self.head)
        for byte in range(0, len(self.body), 7):  # lines and code points are cut anywhere
            writer.write(self.body[byte : byte + 7])
            await writer.drain()
        writer.close()


@asynccontextmanager
async def answering(
    *lines: dict[str, Any],
    status: str = "200 OK",
    content_type: str = "application/x-ndjson",
    headers: str = "",
    body: bytes = b"",
) -> AsyncIterator[tuple[GoClient, Service]]:
    """A service that says ``lines`` and closes, and a client that asks it."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    service = Service(status, content_type, headers, text.encode() + body)
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    client = GoClient(f"http://{host}:{port}", PROVIDERS)
    try:
        yield client, service
    finally:
        await client.aclose()
        server.close()


async def said(*lines: dict[str, Any], body: bytes = b"") -> list[Event]:
    async with answering(*lines, body=body) as (client, _):
        return await events_of(client, fanout())


async def test_a_whole_stream_gives_its_events_wherever_its_bytes_were_cut() -> None:
    events = await said(*WHOLE)
    assert text_of(events) == "Grüße"
    assert isinstance(events[-1], Finished)


@pytest.mark.parametrize(
    "lines", [(), WHOLE[:1], WHOLE[:2], [*WHOLE[:2], {"n": 3, "ev": [FINISHED]}]]
)
async def test_a_stream_without_its_end_was_cut(lines: list[dict[str, Any]]) -> None:
    with pytest.raises(FanoutUnavailable, match="broke off"):
        await said(*lines)


async def test_half_a_last_line_is_a_cut_not_an_event() -> None:
    with pytest.raises(FanoutUnavailable, match="broke off"):
        await said(*WHOLE[:2], body=json.dumps(WHOLE[2]).encode())


REPLAYED = but(STARTED, attempt=0, reason="cache")
AGAIN = but(STARTED, attempt=2, reason="restart")

VIOLATIONS = {
    "an unknown field of a line": [but(WHOLE[0], extra=1)],
    "an unknown field of an event": [{"n": 1, "ev": [but(STARTED, extra=1)]}],
    "an unknown event": [{"n": 1, "ev": [but(STARTED, type="wondered")]}],
    "a number as text": [{"n": "1", "ev": []}],
    "a missing field": [{"n": 1, "ev": [{"type": "chunk", "call": "A", "at_ms": 3}]}],
    "an empty text": [{"n": 1, "ev": [but(CHUNK, text="")]}],
    "a gap in the numbers": [WHOLE[0], but(WHOLE[1], n=3)],
    "a call nobody asked": [{"n": 1, "ev": [but(STARTED, call="B")]}],
    "text before an attempt": [{"n": 1, "ev": [CHUNK]}],
    "an answer of an attempt that was not made": [
        WHOLE[0],
        {"n": 2, "ev": [but(FINISHED, attempt=2)]},
    ],
    "an answer of an attempt that failed": [
        WHOLE[0],
        {"n": 2, "ev": [ATTEMPT_FAILED, FINISHED]},
    ],
    "an attempt that fails twice": [WHOLE[0], {"n": 2, "ev": [ATTEMPT_FAILED, ATTEMPT_FAILED]}],
    "an attempt that starts twice": [{"n": 1, "ev": [STARTED, but(STARTED, reason="retry")]}],
    "a second attempt that is a first": [{"n": 1, "ev": [STARTED, but(STARTED, attempt=2)]}],
    "a first attempt that is none": [{"n": 1, "ev": [but(STARTED, reason="retry")]}],
    "an attempt that is a replay": [{"n": 1, "ev": [but(STARTED, reason="cache")]}],
    "a replay after an attempt": [{"n": 1, "ev": [STARTED, REPLAYED]}],
    "a replay without an age": [{"n": 1, "ev": [REPLAYED, but(FINISHED, attempt=0)]}],
    "an age of a fresh answer": [WHOLE[0], {"n": 2, "ev": [but(FINISHED, cached_age_ms=5)]}],
    "an event after the end of its call": [
        WHOLE[0],
        {"n": 2, "ev": [FINISHED]},
        {"n": 3, "ev": [CHUNK]},
    ],
    "an end while a call is open": [but(WHOLE[0], end=END)],
    "an end that counts wrong": [WHOLE[0], WHOLE[1], but(WHOLE[2], end=but(END, finished=0))],
    "a line after the end": [*WHOLE, {"n": 4, "ev": []}],
}


@pytest.mark.parametrize("lines", VIOLATIONS.values(), ids=list(VIOLATIONS))
async def test_what_is_not_the_contract_is_not_believed(lines: list[dict[str, Any]]) -> None:
    with pytest.raises(ContractViolation):
        await said(*lines)


async def test_of_two_attempts_the_last_is_the_answer() -> None:
    queued = {"type": "queued", "call": "A", "at_ms": 0}
    answer = but(FINISHED, attempt=2)
    events = [queued, STARTED, CHUNK, ATTEMPT_FAILED, queued, AGAIN, but(CHUNK, text="Hi"), answer]
    async with answering({"n": 1, "ev": events, "end": END}) as (client, _):
        whole = await client.complete([Message("user", "?")], "local/smollm2-135m")
    assert (whole.text, whole.attempts, whole.cached_age_ms) == ("Hi", 2, None)


async def test_a_hedge_that_lost_leaves_the_answer_alone() -> None:
    hedge = but(STARTED, attempt=2, reason="hedge")
    lost = but(ATTEMPT_FAILED, attempt=2, kind="stop.superseded", wait_ms=None)
    events = await said({"n": 1, "ev": [STARTED, hedge, CHUNK, lost, FINISHED], "end": END})
    assert text_of(events) == "Grüße"


async def test_a_replay_tells_its_age() -> None:
    answer = but(FINISHED, attempt=0, cached_age_ms=61_000)
    async with answering({"n": 1, "ev": [REPLAYED, CHUNK, answer], "end": END}) as (client, _):
        whole = await client.complete([Message("user", "?")], "local/smollm2-135m")
    assert (whole.text, whole.attempts, whole.cached_age_ms) == ("Grüße", 0, 61_000)


async def test_what_is_not_json_is_a_violation_that_repeats_nothing_of_it() -> None:
    with pytest.raises(ContractViolation) as violated:
        await said(body=b"sk-secret words\n")
    assert "secret" not in str(violated.value)


async def test_an_answer_of_another_type_is_a_violation() -> None:
    async with answering(content_type="text/html", body=b"<h1>hi</h1>") as (client, _):
        with pytest.raises(ContractViolation, match="x-ndjson"):
            await events_of(client, fanout())


def refusing(status: str, kind: str, field: str | None, headers: str = "") -> Any:
    body = json.dumps({"error": {"kind": kind, "message": "no", "field": field}}).encode()
    return answering(status=status, content_type="application/json", headers=headers, body=body)


@pytest.mark.parametrize(("status", "code"), [("400 Bad Request", 400), ("422 No", 422)])
async def test_a_refusal_of_the_request_is_the_callers_fault(status: str, code: int) -> None:
    async with refusing(status, "invalid_request", "calls[0].model") as (client, _):
        with pytest.raises(FanoutRefused) as refused:
            await events_of(client, fanout())
    assert (refused.value.status, refused.value.field) == (code, "calls[0].model")


@pytest.mark.parametrize(("header", "wait_s"), [("Retry-After: 7\r\n", 7.0), ("", None)])
async def test_a_service_that_drains_is_not_there_for_now(
    header: str, wait_s: float | None
) -> None:
    async with refusing("503 Busy", "overloaded", None, header) as (client, _):
        with pytest.raises(FanoutUnavailable) as unavailable:
            await events_of(client, fanout())
    assert unavailable.value.retry_after_s == wait_s


async def test_a_stranger_at_the_address_is_a_service_that_is_not_there() -> None:
    async with answering(status="502 Bad Gateway", content_type="text/html") as (client, _):
        with pytest.raises(FanoutUnavailable, match="HTTP 502 without a reason"):
            await events_of(client, fanout())
        with pytest.raises(FanoutUnavailable, match="not ready"):
            await client.ready()


async def test_nobody_at_the_address_is_a_service_that_cannot_be_reached() -> None:
    client = GoClient("http://127.0.0.1:9", PROVIDERS)
    for asked in (client.ready(), client.cancel("f-1", None, "stop.user")):
        with pytest.raises(FanoutUnavailable, match="cannot be reached"):
            await asked
    with pytest.raises(FanoutUnavailable, match="cannot be reached"):
        await events_of(client, fanout())
    await client.aclose()


async def test_half_a_surrogate_pair_is_refused_before_anything_is_sent() -> None:
    async with answering(*WHOLE) as (client, service):
        with pytest.raises(FanoutRefused, match="surrogate"):
            await events_of(client, fanout(call("\ud83d")))
    assert not service.asked


async def test_a_stop_of_what_has_ended_is_what_was_wanted() -> None:
    async with refusing("404 Not Found", "invalid_request", None) as (client, service):
        await client.cancel("run:1", "A", "stop.user")
    assert service.asked == ["DELETE /fanout/run%3A1/calls/A?reason=stop.user HTTP/1.1"]


async def test_a_stop_that_is_refused_is_told() -> None:
    async with refusing("400 Bad Request", "invalid_request", "reason") as (client, service):
        with pytest.raises(FanoutRefused):
            await client.cancel("f-1", None, "boredom")
    assert service.asked == ["DELETE /fanout/f-1?reason=boredom HTTP/1.1"]


async def test_events_are_given_on_before_the_stream_has_ended() -> None:
    async with answering(WHOLE[0]) as (client, _):
        first = []
        with pytest.raises(FanoutUnavailable):
            async for event in client.stream(fanout()):
                first.append(type(event))  # noqa: PERF401  the stream breaks off in the middle
    assert first[-1] is Chunk
