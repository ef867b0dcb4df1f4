"""How calls end that something went wrong with is told alike by both backends, counts included."""

import pytest

from orchestration.fanout.client import ProviderClient
from orchestration.fanout.wire import AttemptFailed, Failed, Fallback, Finished, Retry, Timeouts
from tests.contract.test_attempts import asked, asked_again, story
from tests.contract.traces import events_of, fanout

pytestmark = pytest.mark.golang

ENDS = {
    "counted, then cut": (
        asked("cut-at?as=usage-everywhere&how=end&bytes=1300"),
        ["1 first", "chunk", "failed of incomplete"],
    ),
    "counted, then filtered": (
        asked("content-filter"),
        ["1 first", "chunk", "failed of content_filter"],
    ),
    "no retry where the provider says that it is of no use": (
        asked("rate-limited?status=503&should_retry=false", retry=Retry(3)),
        ["1 first", "failed of rate_limited"],
    ),
    "a fallback there": (
        asked(
            "rate-limited?status=503&should_retry=false",
            retry=Retry(3),
            fallbacks=(Fallback("local", "ok?after=lasting"),),
        ),
        ["1 first", "1 failed of rate_limited", "2 fallback", "chunk", "finished"],
    ),
    "in one piece no first token is waited for": (
        asked("slow-first-token?first_ms=400", whole=True, timeouts_ms=Timeouts(first_token=100)),
        ["1 first", "chunk", "finished"],
    ),
    "finished, then silent for longer than the total": (
        asked("no-done-open", timeouts_ms=Timeouts(total=700)),
        ["1 first", "chunk", "finished"],
    ),
}


@pytest.mark.parametrize("name", ENDS)
async def test_ends_are_told_alike(name: str, go: ProviderClient, python: ProviderClient) -> None:
    one, expected = ENDS[name]
    theirs = asked_again(one)
    ours = [
        await events_of(client, fanout(call_)) for client, call_ in ((go, one), (python, theirs))
    ]
    assert [story(events) for events in ours] == [expected, expected]
    told = [
        [
            (e.kind, e.retryable, e.status, e.retry_after_ms, e.usage)
            for e in events
            if isinstance(e, AttemptFailed | Failed)
        ]
        for events in ours
    ]
    assert told[0] == told[1]
    if name.startswith("counted"):
        usage = told[0][-1][-1]
        assert usage is not None
        assert not usage.estimated


async def test_a_deadline_behind_the_finish_reason_only_ends_the_wait_for_the_usage(
    client: ProviderClient,
) -> None:
    events = await events_of(client, fanout(asked("no-done-open?delay_ms=0"), deadline_ms=900))
    assert isinstance(events[-1], Finished)
