"""Logs: one JSON object a line, found by request id, and never a prompt, an answer or a key."""

import html
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from orchestration.bridge import in_database
from orchestration.fanout.scripted import Fail, Script, ScriptedClient
from orchestration.models import Run
from rexsite import logs
from tests.conftest import Person
from tests.runs import answers, drive, said
from workspaces.models import ApiKey

PROMPT = "canary-prompt-7f3a"
ANSWER = "canary-answer-19bc"
SYNTHESIS = "canary-synthesis-e04d"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything Rex would write to stderr at the most talkative level."""
    written = io.StringIO()
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    logs.configure({"level": "DEBUG", "format": "json"})
    [handler] = [each for each in root.handlers if each not in before]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written)
    yield written
    logs.configure({"level": "INFO", "format": "json"})
    root.handlers[:] = before
    root.setLevel(level)


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def scripts() -> Any:
    return answers(
        A=said(f"{ANSWER} is what A says. Lists are mutable sequences of objects."),
        B=Script([(0.01, f"{ANSWER} broke off")], Fail("server_error")),
        **{"*": said(f"{SYNTHESIS} Lists are mutable. [A][C]")},
    )


@pytest.mark.django_db(transaction=True)
async def test_a_whole_life_of_a_run_leaves_no_word_of_it_in_the_log(
    alice: Person, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, browser = alice.api(), await in_database(alice.browser)
    secret = alice.key.split("-")[-1]
    body = {"prompt": f"{PROMPT}?", "models": ["local/brisk", "local/plain", "local/thorough"]}

    def ask() -> Any:
        return api.post("/api/run", body, content_type="application/json")

    started = await in_database(ask)
    run = await in_database(Run.objects.everywhere().get)
    await drive(run, ScriptedClient(scripts(), speed=2))
    for client, address in ((api, f"/api/runs/{run.pk}"), (browser, f"/runs/{run.pk}/")):
        shown = await in_database(client.get, address)
        assert PROMPT in shown.content.decode(), "else there would be nothing to keep quiet about"
        assert ANSWER in shown.content.decode()
    for client in (api, browser):
        client.raise_request_exception = False

    def broken(**given: Any) -> None:
        raise RuntimeError("start_run failed")

    monkeypatch.setattr("orchestration.api.start_run", broken)
    monkeypatch.setattr("orchestration.views.start_run", broken)
    failures = [
        await in_database(ask),
        await in_database(browser.post, "/", {"prompt": PROMPT, "models": ["local/brisk"]}),
        await in_database(api.post, "/api/run", f'{{"{PROMPT}": ', content_type="application/json"),
        await in_database(browser.get, f"/runs/?cursor={PROMPT}&key={alice.key}"),
        await in_database(browser.get, f"/nothing/{PROMPT}"),
        await in_database(
            api.get, "/api/runs", headers={"Authorization": f"Bearer {alice.key}{PROMPT}"}
        ),
    ]

    assert [each.status_code for each in failures] == [500, 500, 400, 200, 404, 401]
    for each in (answer for answer in failures if answer.status_code >= 400):
        # A page may repeat its own address, which its reader sees anyway.
        address = each.wsgi_request.get_full_path()
        assert PROMPT not in each.content.decode().replace(html.escape(address), "")
    text = log.getvalue()
    assert started["X-Request-Id"] in text, "the log was not captured"
    assert "start_run failed" in text, "a failure must be in the log"
    digest = await in_database(ApiKey.objects.get, name="alice's key")
    for canary in (PROMPT, ANSWER, SYNTHESIS, secret, digest.secret_sha256):
        assert canary not in text, next(line for line in text.splitlines() if canary in line)


@pytest.mark.django_db
def test_every_request_leaves_one_line_with_its_route_and_id(
    alice: Person, log: io.StringIO
) -> None:
    answer = alice.api().get("/api/runs")
    [line] = [each for each in lines(log) if each["event"] == "request"]
    assert line["request_id"] == answer["X-Request-Id"]
    assert (line["method"], line["route"], line["status"]) == ("GET", "api/runs", 200)
    assert line["duration_ms"] >= 0
    assert line["level"] == "info"
    assert line["timestamp"].endswith("Z")


def test_other_libraries_come_out_in_the_same_form_with_their_failures(log: io.StringIO) -> None:
    try:
        raise ValueError("a reason")
    except ValueError:
        logging.getLogger("some.library").exception("it %s", "broke")
    [line] = lines(log)
    assert (line["event"], line["logger"], line["level"]) == ("it broke", "some.library", "error")
    assert "ValueError: a reason" in line["exception"]


@pytest.mark.parametrize(
    "talkative",
    [
        "httpx", "httpcore.http11", "openai._base_client", "LiteLLM", "LiteLLM Router",
        "django.db.backends", "django.template", "websockets.server", "uvicorn.access",
        "django.channels.server", "markdown_it",
    ],
)  # fmt: skip
def test_what_logs_requests_or_texts_whole_is_quiet_even_when_debugging(
    log: io.StringIO, talkative: str
) -> None:
    logging.getLogger(talkative).debug("POST /chat %s", PROMPT)
    logging.getLogger(talkative).info("POST /chat %s", PROMPT)
    assert log.getvalue() == ""
    logging.getLogger(talkative).error("it broke")
    assert "it broke" in log.getvalue()


def test_the_console_form_is_text_for_people(
    log: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure({"level": "INFO", "format": "console"})
    logging.getLogger("some.library").warning("for people")
    told = capsys.readouterr().err
    assert "for people" in told
    assert not told.startswith("{")
