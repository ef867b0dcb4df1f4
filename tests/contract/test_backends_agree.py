"""The Go service and LiteLLM in process give the same trace of the same upstream.

Every script of the scripted upstream runs through both, and no field of a trace may differ.
"""

import asyncio
from dataclasses import replace

import pytest

from orchestration.fanout.client import ProviderClient
from orchestration.fanout.wire import Params, Timeouts
from tests.contract.conftest import SECRET, Upstream
from tests.contract.traces import call, events_of, fanout, trace, trace_of

pytestmark = pytest.mark.golang

STREAMS_THAT_FINISH = [
    "ok",
    "ok?delay_ms=0&chunks=300",
    "ok?cached=3&reasoning=2",
    "echo",
    "prose-3?delay_ms=0",
    "length",
    "tool-calls",
    "unknown-finish",
    "reasoning?delay_ms=1",
    "no-done",
    "no-done-open?chunks=2",
    "no-choices",
    "usage-missing",
    "usage-late",
    "usage-with-finish",
    "usage-nonsense",
    "usage-everywhere",
    "ok?usage=0",
    "second-finish",
    "late-chunks",
    "crlf",
    "cr",
    "bom",
    "no-space",
    "named-events",
    "multi-line-data",
    "split-utf8",
    "odd-unicode",
    "invalid-utf8",
    "big-line",
    "drip",
]
STREAMS_THAT_FAIL = [
    "cut",
    "cut-abrupt",
    "reset",
    "reset-before",
    "done-without-finish",
    "empty",
    "empty-body",
    "null-content",
    "content-filter",
    "error-event",
    "error-event-text",
    "error-event?type=overloaded_error",
    "error-event?code=429",
    "error-event?code=context_length_exceeded",
    "not-json",
    "not-an-object",
    "html-200",
    "json-in-stream",
    "gzip",
    "huge-line",
    "endless",
]
REFUSALS = [
    *(f"http-{status}" for status in (400, 401, 402, 403, 404, 408, 409, 413, 422, 425, 429, 499)),
    *(f"http-{status}" for status in (500, 501, 502, 503, 504, 529, 599)),
    *(f"http-{status}" for status in (201, 301, 302, 307)),
    "http-400?code=context_length_exceeded",
    "http-400?code=content_policy_violation",
    "http-500?type=overloaded_error",
    "rate-limited",
    "rate-limited?retry_after=1.5",
    "rate-limited?retry_after=soon",
    "quota-exhausted",
    "context-too-long",
]
TIMEOUTS = {
    "no-headers": Timeouts(first_token=200),
    "slow-first-token": Timeouts(first_token=200),
    "stall": Timeouts(stall=200),
    "long": Timeouts(total=300),
}


@pytest.mark.parametrize("script", STREAMS_THAT_FINISH)
async def test_an_answer_that_finishes_is_the_same(
    script: str, go: ProviderClient, python: ProviderClient
) -> None:
    ours, theirs = await asyncio.gather(trace(go, call(script)), trace(python, call(script)))
    assert ours.finish_reason is not None
    assert theirs == ours


@pytest.mark.parametrize("script", [*STREAMS_THAT_FAIL, *REFUSALS])
async def test_a_failure_is_the_same(
    script: str, go: ProviderClient, python: ProviderClient
) -> None:
    ours, theirs = await asyncio.gather(trace(go, call(script)), trace(python, call(script)))
    assert ours.kind is not None
    assert theirs == ours


@pytest.mark.parametrize("script", TIMEOUTS)
async def test_the_same_timeout_fires(
    script: str, go: ProviderClient, python: ProviderClient
) -> None:
    asked = call(script, timeouts=TIMEOUTS[script])
    ours, theirs = await asyncio.gather(trace(go, asked), trace(python, asked))
    assert ours.kind
    assert ours.kind.startswith("timeout.")
    if ours.kind == "timeout.total":
        # How much of an answer came before the total ran out is chance.
        theirs = replace(theirs, text=ours.text, usage=ours.usage)
    assert theirs == ours


async def test_nobody_listening_is_the_same(go: ProviderClient, python: ProviderClient) -> None:
    asked = call("ok", provider="closed")
    ours, theirs = await asyncio.gather(trace(go, asked), trace(python, asked))
    assert (ours.kind, ours.moments) == ("connection", ("queued", "admitted"))
    assert theirs == ours


async def test_the_deadline_ends_calls_in_every_phase_alike(
    go: ProviderClient, python: ProviderClient
) -> None:
    asked = [call(s, call_id=s) for s in ("no-headers", "slow-first-token", "stall", "ok")]
    for backend in (go, python):
        events = await events_of(backend, fanout(*asked, deadline_ms=700))
        ends = {one.id: trace_of(events, one.id) for one in asked}
        assert [ends[s].kind for s in ("no-headers", "slow-first-token", "stall")] == [
            "deadline",
            "deadline",
            "deadline",
        ]
        assert ends["stall"].text
        assert ends["ok"].finish_reason == "stop"


async def test_calls_of_one_fanout_do_not_disturb_each_other(
    go: ProviderClient, python: ProviderClient
) -> None:
    scripts = ["ok", "cut", "http-429", "huge-line", "prose-2?delay_ms=1"]
    asked = [call(script, call_id=f"c{n}") for n, script in enumerate(scripts)]
    ours, theirs = await asyncio.gather(
        events_of(go, fanout(*asked)), events_of(python, fanout(*asked))
    )
    for one in asked:
        assert trace_of(theirs, one.id) == trace_of(ours, one.id)


async def test_the_parameters_arrive_alike(
    go: ProviderClient, python: ProviderClient, upstream: Upstream
) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "p", "schema": {"type": "array"}}}
    params = Params(
        max_tokens=5, temperature=0.25, top_p=0.5, seed=7, stop=["\n\n"], response_format=schema
    )
    model = "ok?delay_ms=0&seed=77"
    for backend in (go, python):
        got = await trace(backend, call(model, params=params))
        assert got.finish_reason == "length"
    ours, theirs = (row["params"] for row in upstream.log(model))
    assert theirs == ours


async def test_a_key_goes_to_its_provider_and_nowhere_else(
    client: ProviderClient, upstream: Upstream
) -> None:
    model = f"http-401?n={id(client)}"
    events = await events_of(
        client, fanout(call(model, provider="refused"), call(model, call_id="B"))
    )
    with_key, without = sorted(upstream.log(model), key=lambda row: not row["key_hash"])
    assert with_key["key_hash"]
    assert not without["key_hash"]
    assert trace_of(events).kind == "auth"
    assert SECRET not in repr(events)  # the upstream repeats the key in its refusal


async def test_a_redirect_is_not_followed(client: ProviderClient, upstream: Upstream) -> None:
    await trace(client, call("http-302", provider="keyed"))
    assert not upstream.log("/_/trap")
