"""POST /api/run: what it takes, and how it refuses the rest without storing anything."""

import json
from typing import Any

import pytest
from django.test import Client

from orchestration.models import Call, Run, RunEvent
from orchestration.problems import PROBLEMS
from tests.conftest import Person

pytestmark = pytest.mark.django_db

URL = "/api/run"


def post(client: Client, body: Any, **headers: str) -> Any:
    data = body if isinstance(body, (bytes, str)) else json.dumps(body)
    return client.post(URL, data, content_type="application/json", headers=headers)


def refused(response: Any, status: int, code: str) -> dict[str, Any]:
    """Assert the documented shape, and that nothing was stored."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["type"] == f"/docs/errors#{code}"
    assert problem["request_id"] == response["X-Request-Id"]
    assert code in PROBLEMS
    assert not Run.objects.everywhere().exists()
    return problem


def test_a_question_becomes_a_queued_run_with_its_calls_and_its_first_fact(alice: Person) -> None:
    response = post(alice.api(), {"prompt": "Why?", "models": ["local/brisk", "local/plain"]})

    assert response.status_code == 202
    run = Run.objects.everywhere().get()
    assert response["Location"] == f"/api/runs/{run.pk}"
    assert response.json()["id"] == str(run.pk)
    assert (run.status, run.prompt, run.workspace) == ("queued", "Why?", alice.workspace)
    assert run.request_id == response["X-Request-Id"]
    models = list(Call.objects.filter(run=run).values_list("label", "model", "state"))
    assert models == [("A", "local/brisk", "queued"), ("B", "local/plain", "queued")]
    event = RunEvent.objects.get(run=run)
    assert (event.seq, event.type) == (1, "run.started")


def test_without_a_key_or_session_it_asks_to_sign_in(client: Client) -> None:
    response = post(client, {"prompt": "Why?"})
    refused(response, 401, "not_authenticated")
    assert response["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "key", ["", "nonsense", "sk-rex-aaaaaaaaaaaa-" + "a" * 43, "sk-rex-" + "x" * 5000, "\x01' OR 1"]
)
def test_a_bad_key_is_refused_and_never_falls_back_to_the_session(alice: Person, key: str) -> None:
    response = post(alice.browser(), {"prompt": "Why?"}, Authorization=f"Bearer {key}")
    refused(response, 401, "not_authenticated")


def test_a_session_without_its_csrf_token_is_refused(alice: Person) -> None:
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(alice.user)
    refused(post(careful, {"prompt": "Why?"}), 403, "csrf_failed")


def test_a_viewer_may_not_start_a_run(vera: Person) -> None:
    refused(post(vera.browser(), {"prompt": "Why?"}), 403, "forbidden")


@pytest.mark.parametrize("prompt", ["", "   \n\t "])
def test_an_empty_prompt_is_refused(alice: Person, prompt: str) -> None:
    problem = refused(post(alice.api(), {"prompt": prompt}), 400, "empty_prompt")
    assert problem["errors"][0]["field"] == "prompt"


@pytest.mark.parametrize(
    "prompt",
    [
        "\u200b",
        "\u200d\ufeff\u2060",
        "\u00ad \u202e",
        "\ufe0f\u0301",
        "\u3164",
        "\u2800",
        "\U000e0041",
    ],
)
def test_a_prompt_nobody_could_see_is_an_empty_one(alice: Person, prompt: str) -> None:
    refused(post(alice.api(), {"prompt": prompt}), 400, "empty_prompt")
    assert post(alice.api(), {"prompt": f"{prompt}?{prompt}"}).status_code == 202
    assert Run.objects.everywhere().get().prompt == f"{prompt}?{prompt}", "kept as it was sent"


@pytest.mark.parametrize("body", [{}, ""])
def test_a_missing_prompt_is_an_empty_one(alice: Person, body: Any) -> None:
    refused(post(alice.api(), body), 400, "empty_prompt")


@pytest.mark.parametrize("prompt", ["a\x00b", "half \ud800 pair", "\udfff"])
def test_text_that_cannot_be_stored_everywhere_is_refused(alice: Person, prompt: str) -> None:
    refused(post(alice.api(), {"prompt": prompt}), 400, "invalid_text")


def test_emoji_and_right_to_left_text_are_kept_to_the_byte(alice: Person) -> None:
    prompt = "👩‍👩‍👧 שלום e\u0301"
    assert post(alice.api(), {"prompt": prompt}).status_code == 202
    assert Run.objects.everywhere().get().prompt == prompt


def test_a_prompt_of_the_longest_length_is_taken_and_one_more_is_not(
    alice: Person, settings: Any
) -> None:
    settings.MAX_PROMPT_CHARS = 50
    refused(post(alice.api(), {"prompt": "x" * 51}), 413, "prompt_too_long")
    assert post(alice.api(), {"prompt": "x" * 50}).status_code == 202


def test_a_body_of_three_megabytes_is_refused_before_it_is_parsed(alice: Person) -> None:
    body = b'{"prompt": "' + b"x" * 3_000_000 + b'"}'
    refused(post(alice.api(), body), 413, "body_too_large")


@pytest.mark.parametrize("opening", [b"[", b'{"prompt":'])
def test_json_nested_a_hundred_thousand_deep_is_refused(alice: Person, opening: bytes) -> None:
    refused(post(alice.api(), opening * 100_000), 400, "json_too_deep")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"prompt=Why",
        b"\xff\xfe{}",
        b'{"prompt": NaN}',
        b'{"prompt": "a", "prompt": "b"}',
        b'{"prompt": ' + b"9" * 5000 + b"}",
    ],
)
def test_a_body_that_is_not_strict_json_is_refused(alice: Person, body: bytes) -> None:
    refused(post(alice.api(), body), 400, "invalid_json")


@pytest.mark.parametrize("body", ["[]", "3", '"text"', "null"])
def test_a_body_that_is_no_object_is_refused(alice: Person, body: str) -> None:
    refused(post(alice.api(), body), 400, "not_an_object")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", 3),
        ("prompt", None),
        ("prompt", ["Why?"]),
        ("pipeline", 1),
        ("models", "local/brisk"),
        ("models", [1]),
        ("models", {"a": 1}),
        ("replay_of", "not-a-uuid"),
        ("replay_of", 7),
    ],
)
def test_a_field_of_the_wrong_type_is_refused_by_name(
    alice: Person, field: str, value: Any
) -> None:
    problem = refused(post(alice.api(), {"prompt": "Why?", field: value}), 400, "wrong_type")
    assert problem["errors"][0]["field"] == field


@pytest.mark.parametrize("name", ["workspace", "stream", "__proto__", "x" * 5000, "\ud800"])
def test_an_unknown_field_is_refused_not_ignored(alice: Person, name: str) -> None:
    refused(post(alice.api(), {"prompt": "Why?", name: True}), 400, "unknown_field")


@pytest.mark.parametrize("model", ["", "gpt", "local/nobody", "local/", "/x", "nope/x", "a\x00b/c"])
def test_an_unknown_model_is_refused(alice: Person, model: str) -> None:
    response = post(alice.api(), {"prompt": "Why?", "models": [model]})
    refused(response, 400, "invalid_text" if "\x00" in model else "unknown_model")


def test_a_model_of_a_provider_without_a_key_names_the_variable_to_set(alice: Person) -> None:
    response = post(alice.api(), {"prompt": "Why?", "models": ["openai/gpt-4o"]})
    problem = refused(response, 400, "provider_not_configured")
    assert "OPENAI_API_KEY" in problem["detail"]


def test_more_models_than_a_run_may_ask_are_refused(alice: Person) -> None:
    response = post(alice.api(), {"prompt": "Why?", "models": ["local/brisk"] * 9})
    refused(response, 400, "too_many_models")


def test_to_name_no_model_is_refused_and_to_leave_them_out_means_the_default_ones(
    alice: Person, settings: Any
) -> None:
    problem = refused(post(alice.api(), {"prompt": "Why?", "models": []}), 400, "no_models")
    assert problem["errors"][0]["field"] == "models"
    assert post(alice.api(), {"prompt": "Why?"}).status_code == 202
    asked = Call.objects.values_list("model", flat=True)
    assert list(asked) == list(settings.MODELS)


def test_a_model_named_twice_is_asked_twice(alice: Person) -> None:
    response = post(alice.api(), {"prompt": "Why?", "models": ["local/brisk", "local/brisk"]})
    assert response.status_code == 202
    calls = list(Call.objects.values_list("label", "model"))
    assert calls == [("A", "local/brisk"), ("B", "local/brisk")]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", "Why?"),
        ("prompt", ""),
        ("pipeline", "synthesis"),
        ("models", ["local/brisk"]),
        ("models", []),
        ("cache", "refresh"),
    ],
)
def test_a_replay_takes_nothing_else(alice: Person, field: str, value: Any) -> None:
    body = {"replay_of": "7d1f7c55-3c1e-4b52-8f4e-0d3f0c8b5a11"}
    refused(post(alice.api(), body), 400, "unknown_run")
    problem = refused(post(alice.api(), body | {field: value}), 400, "replay_takes_nothing_else")
    assert problem["errors"][0]["field"] == field


@pytest.mark.parametrize("pipeline", ["", "nope", "synthesis@99", "synthesis@"])
def test_an_unknown_pipeline_is_refused(alice: Person, pipeline: str) -> None:
    response = post(alice.api(), {"prompt": "Why?", "pipeline": pipeline})
    refused(response, 400, "unknown_pipeline")


def test_a_form_body_is_refused_with_the_type_to_send(alice: Person) -> None:
    response = alice.api().post(URL, {"prompt": "Why?"})
    refused(response, 415, "unsupported_media_type")


def test_a_wrong_method_says_which_are_allowed(alice: Person) -> None:
    response = alice.api().get(URL)
    refused(response, 405, "method_not_allowed")
    assert response["Allow"] == "POST, OPTIONS"


def test_the_same_idempotency_key_gives_the_same_run(alice: Person) -> None:
    first = post(alice.api(), {"prompt": "Why?"}, Idempotency_Key="k1")
    second = post(alice.api(), {"prompt": "Why?"}, Idempotency_Key="k1")
    assert first.json()["id"] == second.json()["id"]
    assert Run.objects.everywhere().count() == 1


def test_the_same_idempotency_key_for_another_question_is_a_conflict(alice: Person) -> None:
    post(alice.api(), {"prompt": "Why?"}, Idempotency_Key="k1")
    response = post(alice.api(), {"prompt": "How?"}, Idempotency_Key="k1")
    assert response.status_code == 422
    assert response.json()["code"] == "idempotency_conflict"
    assert Run.objects.everywhere().count() == 1


def test_idempotency_keys_of_two_workspaces_never_meet(alice: Person, charlie: Person) -> None:
    ours = post(alice.api(), {"prompt": "Why?"}, Idempotency_Key="k1").json()["id"]
    theirs = post(charlie.api(), {"prompt": "Why?"}, Idempotency_Key="k1").json()["id"]
    assert ours != theirs


def test_unknown_addresses_under_the_api_answer_in_json_too(alice: Person) -> None:
    refused(alice.api().get("/api/nothing"), 404, "not_found")


def test_a_failure_of_ours_is_a_problem_with_the_request_id(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("orchestration.api.start_run", broken)
    problem = refused(post(alice.api(), {"prompt": "Why?"}), 500, "internal")
    assert "secret" not in json.dumps(problem)


@pytest.mark.parametrize(("wish", "kept"), [({}, "use"), ({"cache": "refresh"}, "refresh")])
def test_what_a_run_wants_of_the_cache_is_kept_with_it(
    alice: Person, wish: dict[str, str], kept: str
) -> None:
    assert post(alice.api(), {"prompt": "Why?", **wish}).status_code == 202
    assert Run.objects.everywhere().get().settings["cache"] == kept


def test_a_wish_nobody_knows_is_refused(alice: Person) -> None:
    problem = refused(post(alice.api(), {"prompt": "Why?", "cache": "maybe"}), 400, "unknown_cache")
    assert problem["errors"][0]["field"] == "cache"
    refused(post(alice.api(), {"prompt": "Why?", "cache": True}), 400, "wrong_type")
