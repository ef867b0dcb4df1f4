"""What a driver asks of the fan-out: attempts, and the cache keys of a run's calls."""

from dataclasses import replace
from typing import Any

import pytest
from django.utils import timezone
from msgspec import UNSET

from orchestration.actions.claim_runs import claim_runs
from orchestration.domain.synthesis import RunStarted, Source, StartSynthesis, State, apply
from orchestration.driving.load import DrivenRun, load_run
from orchestration.driving.requests import calls_request, synthesis_request
from orchestration.fanout.wire import CacheUse, FanoutRequest, Params, Retry, check_request
from tests.conftest import Person
from tests.runs import make_run

pytestmark = pytest.mark.django_db


def driven(person: Person, **fields: Any) -> DrivenRun:
    run = make_run(person, **fields)
    claim_runs(owner="test", limit=9, now=timezone.now())
    return load_run(run.pk, 1)


def asked(run: DrivenRun) -> FanoutRequest:
    request = calls_request(run, sorted(run.models), time_left_ms=1000)
    check_request(request)
    return request


def keys(run: DrivenRun) -> list[str]:
    uses = [call.cache for call in asked(run).calls]
    return [use.key for use in uses if isinstance(use, CacheUse)]


def synthesis_of(run: DrivenRun) -> FanoutRequest:
    command = StartSynthesis(1, "draft", 0, (Source("A", 0), Source("B", 0)), "all")
    state = apply(State(), RunStarted(tuple(run.models), seed="seed"), 0)
    return synthesis_request(run, command, state, time_left_ms=1000)


def test_calls_and_syntheses_are_tried_again_and_never_after_text(
    alice: Person, settings: Any
) -> None:
    settings.CALL_ATTEMPTS = 2
    run = driven(alice)
    for request in (asked(run), synthesis_of(run)):
        assert {call.retry for call in request.calls} == {Retry(attempts=2, restart=False)}
        assert request.workspace == str(alice.workspace.pk)


def test_a_limit_that_is_raised_meanwhile_is_not_the_runs(alice: Person, settings: Any) -> None:
    def limits() -> list[Any]:
        params = [call.params for call in asked(run).calls]
        return [each.max_tokens for each in params if isinstance(each, Params)]

    settings.MAX_OUTPUT_TOKENS = 80
    run = driven(alice)
    settings.MAX_OUTPUT_TOKENS = 8192
    assert limits() == [80, 80, 80], "what the leases are for"
    settings.MAX_OUTPUT_TOKENS = 50
    assert limits() == [50, 50, 50]


def test_every_call_and_every_synthesis_has_a_limit_to_its_answer(
    alice: Person, settings: Any
) -> None:
    run = driven(alice, models=("local/brisk", "local/smollm2-135m"))

    def limits() -> list[Any]:
        requests = (asked(run), synthesis_of(run))
        return [call.params and call.params.max_tokens for each in requests for call in each.calls]

    assert limits() == [90, 8_192, 420], "a persona's own is smaller"
    settings.MAX_OUTPUT_TOKENS = 50
    assert limits() == [50, 50, 50]


def test_an_answer_of_another_limit_is_not_taken_from_the_cache(
    alice: Person, settings: Any
) -> None:
    """It may have been cut off where this one would not be."""
    run = driven(alice, models=("local/brisk", "local/smollm2-135m"))
    brisk, plain = keys(run)
    settings.MAX_OUTPUT_TOKENS = 4_096
    assert keys(run)[0] == brisk, "its limit is still its own"
    assert keys(run)[1] != plain


def test_the_time_a_run_has_left_is_the_deadline_and_in_no_timeout(alice: Person) -> None:
    run = driven(alice)
    long, short = (calls_request(run, ["A"], time_left_ms=left) for left in (90_000, 1_000))
    assert (long.deadline_ms, short.deadline_ms) == (90_000, 1_000)
    assert long.calls == short.calls, "who shares an answer must not depend on another's time"


def test_the_same_question_of_one_workspace_has_the_same_keys(alice: Person, bob: Person) -> None:
    assert keys(driven(alice)) == keys(driven(bob)), "they share a workspace"


def test_two_workspaces_share_no_key(alice: Person, charlie: Person) -> None:
    assert not set(keys(driven(alice))) & set(keys(driven(charlie)))


def test_a_model_asked_twice_gives_two_answers_and_the_same_two_again(alice: Person) -> None:
    twice = ("local/brisk", "local/brisk")
    first = keys(driven(alice, models=twice))
    assert len(set(first)) == 2
    assert keys(driven(alice, models=twice)) == first
    assert keys(driven(alice, models=twice[:1])) == first[:1]


def test_a_call_keeps_its_key_when_those_before_it_are_not_sent(alice: Person) -> None:
    run = driven(alice, models=("local/brisk", "local/brisk"))
    only = calls_request(run, ["B"], time_left_ms=1000).calls[0].cache
    assert isinstance(only, CacheUse)
    assert only.key == keys(run)[1]


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "Another question"},
        {"pipeline": "another"},
        {"pipeline_version": 99},
        {"models": {"A": "local/plain", "B": "local/brisk", "C": "local/editor"}},
    ],
)
def test_another_question_pipeline_or_model_has_other_keys(
    alice: Person, change: dict[str, Any]
) -> None:
    run = driven(alice)
    assert keys(replace(run, **change))[0] != keys(run)[0]


def test_another_address_or_another_secret_has_other_keys(
    alice: Person, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = driven(alice)
    before = keys(run)
    settings.SECRET_KEY = "another"
    assert not set(before) & set(keys(run))
    settings.SECRET_KEY = "only-for-tests"
    assert keys(run) == before
    monkeypatch.setattr("orchestration.driving.requests.address_of", lambda provider: "http://b")
    assert not set(before) & set(keys(run))


@pytest.mark.parametrize(
    ("wish", "mode"), [(None, "read_write"), ("use", "read_write"), ("refresh", "write")]
)
def test_a_run_reads_the_cache_or_only_writes_it_as_it_was_asked_to(
    alice: Person, wish: str | None, mode: str
) -> None:
    modes = {call.cache.mode for call in asked(driven(alice, cache=wish)).calls if call.cache}
    assert modes == {mode}


def test_a_run_that_was_told_not_to_has_nothing_to_do_with_the_cache(alice: Person) -> None:
    assert keys(driven(alice, cache="off")) == []


def test_switched_off_the_cache_is_no_runs(alice: Person, settings: Any) -> None:
    settings.CACHE_ENABLED = False
    assert keys(driven(alice, cache="refresh")) == []


def test_a_synthesis_bypasses_the_cache(alice: Person) -> None:
    assert synthesis_of(driven(alice)).calls[0].cache is UNSET


def test_a_replay_is_neither_cached_nor_tried_again(alice: Person) -> None:
    models = {"A": "recorded/0b0a/A", "B": "recorded/0b0a/B"}
    run = replace(driven(alice), models=models, synthesizer="recorded/0b0a/synthesis")
    for request in (asked(run), synthesis_of(run)):
        assert {(call.cache, call.retry) for call in request.calls} == {(UNSET, UNSET)}
