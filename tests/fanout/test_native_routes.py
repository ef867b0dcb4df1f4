"""LiteLLM's own routes to Anthropic and Gemini, held to the same rules as the common format."""

import json
from typing import Any

import pytest

from orchestration.fanout.call_sink import Counted
from orchestration.fanout.inprocess import InProcessClient
from orchestration.fanout.providers import read_endpoints
from orchestration.fanout.sse import SseEvent
from orchestration.fanout.upstream_wires import AnthropicWire
from orchestration.fanout.wire import Params
from tests.contract.traces import Trace, call, trace
from tests.fanout.servers import Server, saying, serving

KEY = "sk-canary-0123456789"


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(
        f"event: {e.get('type', 'message')}\ndata: {json.dumps(e)}\n\n".encode() for e in events
    )


ANTHROPIC: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": "claude-x",
            "stop_reason": None,
            "usage": {"input_tokens": 7, "cache_read_input_tokens": 3, "output_tokens": 1},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    *(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        for text in ("Light ", "scatters.")
    ),
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 5},
    },
    {"type": "message_stop"},
]


def gemini(text: str, **more: Any) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0, **more}
    return {"candidates": [candidate], "modelVersion": "gemini-x"}


GEMINI_USAGE = {
    "promptTokenCount": 10,
    "candidatesTokenCount": 4,
    "thoughtsTokenCount": 2,
    "cachedContentTokenCount": 3,
    "totalTokenCount": 16,
}
GEMINI: list[dict[str, Any]] = [
    gemini("Light "),
    {**gemini("scatters.", finishReason="STOP"), "usageMetadata": GEMINI_USAGE},
]

ROUTES: dict[str, tuple[str, str, str, str, list[dict[str, Any]], int]] = {
    "anthropic": ("ANTHROPIC_BASE_URL", "/v1", "ANTHROPIC_API_KEY", "claude-x", ANTHROPIC, 5),
    "google": ("GOOGLE_BASE_URL", "/v1beta", "GEMINI_API_KEY", "gemini-x", GEMINI, 6),
}
BOTH = pytest.mark.parametrize("provider", ROUTES)


async def asked(
    provider: str, body: bytes, *, status: str = "200 OK", media: str = "text/event-stream"
) -> tuple[Trace, Server]:
    base_env, path, key_env, model, _, _ = ROUTES[provider]
    async with serving(saying(body, content_type=media, status=status)) as server:
        client = InProcessClient(read_endpoints({base_env: server.url + path, key_env: KEY}))
        await client.ready()
        one = call(model, provider=provider, params=Params(max_tokens=50, temperature=0.5))
        got = await trace(client, one)
        await client.aclose()
    return got, server


@BOTH
async def test_an_answer_arrives_whole_with_its_counts(provider: str) -> None:
    *_, events, written = ROUTES[provider]
    got, server = await asked(provider, sse(*events))
    assert (got.text, got.finish_reason) == ("Light scatters.", "stop")
    assert got.usage
    assert (got.usage.input_tokens, got.usage.output_tokens) == (10, written)
    assert got.usage.cached_tokens == 3
    assert not got.usage.estimated
    head = server.requests[0].partition(b"\r\n\r\n")[0].lower()
    assert head.count(KEY.encode()) == 1


@BOTH
async def test_every_cut_before_the_finish_reason_is_incomplete(provider: str) -> None:
    *_, events, _ = ROUTES[provider]
    finish = next(n for n, e in enumerate(events) if "STOP" in str(e) or "end_turn" in str(e))
    for length in range(finish + 1):
        got, _ = await asked(provider, sse(*events[:length]))
        assert got.kind == "incomplete", length


@BOTH
async def test_an_answer_that_reached_its_limit_says_so(provider: str) -> None:
    *_, events, _ = ROUTES[provider]
    body = sse(*events).replace(b"end_turn", b"max_tokens").replace(b'"STOP"', b'"MAX_TOKENS"')
    got, _ = await asked(provider, body)
    assert got.finish_reason == "length"


async def test_an_answer_that_called_a_tool_says_so_where_its_finish_reason_does_not() -> None:
    told = gemini("")
    told["candidates"][0]["content"]["parts"] = [{"functionCall": {"name": "look_up", "args": {}}}]
    for events in ([gemini("Light "), told, gemini("", finishReason="STOP")], GEMINI):
        got, _ = await asked("google", sse(*events))
        assert got.finish_reason == ("tool_calls" if told in events else "stop")


@BOTH
async def test_a_filtered_answer_is_a_failure(provider: str) -> None:
    *_, events, _ = ROUTES[provider]
    body = sse(*events).replace(b"end_turn", b"refusal").replace(b'"STOP"', b'"SAFETY"')
    got, _ = await asked(provider, body)
    assert got.kind == "content_filter"


@BOTH
@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        ("401 Unauthorized", {"type": "authentication_error", "message": KEY}, "auth"),
        ("429 Too Many Requests", {"type": "rate_limit_error", "message": "slow"}, "rate_limited"),
        ("529 Overloaded", {"type": "overloaded_error", "message": "busy"}, "overloaded"),
        ("500 Oops", {"type": "api_error", "message": "x"}, "server_error"),
        (
            "400 Bad Request",
            {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"},
            "context_too_long",
        ),
    ],
)
async def test_a_refusal_has_its_kind_and_is_not_repeated(
    provider: str, status: str, error: dict[str, str], kind: str
) -> None:
    body = json.dumps({"type": "error", "error": error}).encode()
    got, server = await asked(provider, body, status=status, media="application/json")
    assert (got.kind, got.status) == (kind, int(status[:3]))
    assert len(server.requests) == 1, "one layer retries, and it is not this one"


async def test_an_error_inside_the_stream_has_its_kind() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    got, _ = await asked("anthropic", sse(*ANTHROPIC[:4], error))
    assert got.kind == "overloaded"


def test_what_anthropic_counts_at_the_start_is_known_of_an_answer_that_breaks_off() -> None:
    wire = AnthropicWire()
    usage = {"input_tokens": 40, "cache_read_input_tokens": 2, "output_tokens": 1}
    start = {"type": "message_start", "message": {"content": [], "usage": usage}}
    wire.read(SseEvent(b"message_start", json.dumps(start).encode()))
    assert wire.counted == Counted(42, None, cached_tokens=2)
