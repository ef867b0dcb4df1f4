"""The main job, with real models in a real browser: ask, watch, read before they are finished."""

import json
import re
import sqlite3
import subprocess
import time
from typing import Any
from uuid import UUID

import httpx
import pytest
from playwright.sync_api import Page

from tests.e2e.conftest import ROOT, Rex
from tests.e2e.cut_proxy import cutting

pytestmark = [pytest.mark.browser, pytest.mark.localmodel, pytest.mark.golang]

QUESTION = "What is a message queue, and when should one not use it?"
RUN_TIMEOUT_S = 240


def started(page: Page, rex: Rex, question: str = QUESTION) -> str:
    """Ask on the start page; the run's id, with its page open."""
    page.goto(f"{rex.url}/")
    page.get_by_label("Your question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()
    page.wait_for_url(re.compile(r"/runs/[0-9a-f-]{36}/"))
    match = re.search(r"/runs/([0-9a-f-]{36})/", page.url)
    assert match
    return match[1]


def shown(page: Page) -> dict[str, Any]:
    """What the page shows now: state of the run, text of the synthesis, state of each card."""
    state: dict[str, Any] = page.evaluate(
        """() => ({
            run: document.querySelector('[data-part=run-state]').innerText,
            synthesis: document.getElementById('synthesis').querySelector('[data-part=live]')
                .innerText + document.querySelector('[data-part=doc]').innerText,
            calls: [...document.querySelectorAll('[data-call]')].map(card => ({
                label: card.dataset.call, state: card.dataset.s,
                text: card.querySelector('[data-part=md]').innerText,
            })),
        })"""
    )
    return state


def ended(api: httpx.Client, run_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while time.monotonic() < deadline:
        run: dict[str, Any] = api.get(f"/api/runs/{run_id}").raise_for_status().json()
        if run["ended_at"]:
            return run
        time.sleep(1)
    raise AssertionError("the run did not end")


def test_the_answer_begins_before_the_models_have_finished_and_survives_reloads(
    page: Page, rex: Rex
) -> None:
    run_id = started(page, rex)

    deadline = time.monotonic() + RUN_TIMEOUT_S
    while True:
        seen = shown(page)
        if seen["synthesis"].strip() and any(c["state"] == "streaming" for c in seen["calls"]):
            break
        assert time.monotonic() < deadline, f"no synthesis while a model was streaming: {seen}"
        time.sleep(0.1)

    for _ in range(3):
        before = copied_so_far(page)
        assert before, "no model had said anything"
        page.reload()
        page.wait_for_selector("[data-call]")
        for label, text in before.items():
            after = copied(page, f"Copy answer {label}")
            assert after.startswith(text), f"text of answer {label} was lost by a reload"
        time.sleep(1)

    with rex.api() as api:
        run = ended(api, run_id)
    wait_until_shown_as_ended(page)
    assert run["status"] in ("done", "degraded")
    assert run["totals"]["ttfs_ms"] < run["totals"]["duration_ms"]

    in_database = stored(rex, run_id)
    assert copied(page, "Copy the answer") == run["answer"] == in_database["answer"]
    for call in run["calls"]:
        label = call["label"]
        on_page = copied(page, f"Copy answer {label}")
        assert on_page == call["text"] == in_database["calls"][label], f"answer {label} differs"


def copied_so_far(page: Page) -> dict[str, str]:
    """Label → the text the page holds, for every answer that has begun."""
    begun = [call["label"] for call in shown(page)["calls"] if call["text"].strip()]
    return {label: copied(page, f"Copy answer {label}") for label in begun}


def copied(page: Page, button: str) -> str:
    """What the page's own copy button puts on the clipboard: the text the page holds."""
    page.evaluate("navigator.clipboard.writeText('')")
    page.get_by_role("button", name=button, exact=True).click()
    page.wait_for_function("navigator.clipboard.readText().then(text => text !== '')")
    text: str = page.evaluate("navigator.clipboard.readText()")
    return text


def wait_until_shown_as_ended(page: Page) -> None:
    page.wait_for_selector("[data-part=stop-form]", state="hidden", timeout=30_000)


def stored(rex: Rex, run_id: str) -> dict[str, Any]:
    """The run as the database file has it, read past every layer of ours."""
    with sqlite3.connect(f"file:{rex.state}/rex.sqlite3?mode=ro", uri=True) as database:
        pk = UUID(run_id).hex
        [(answer,)] = database.execute(
            "SELECT answer FROM orchestration_run WHERE id = ?", (pk,)
        ).fetchall()
        calls = database.execute(
            "SELECT label, text FROM orchestration_call WHERE run_id = ?", (pk,)
        ).fetchall()
    return {"answer": answer, "calls": dict(calls)}


def test_dropped_connections_and_a_second_viewer_lose_and_double_nothing(
    page: Page, rex: Rex
) -> None:
    with cutting(rex.url) as proxy:
        run_id = started(page, rex, "How does a bicycle stay upright?")
        viewer = page.context.new_page()
        viewer.goto(f"{proxy.url}/runs/{run_id}/")
        viewer.wait_for_selector("[data-call][data-s=streaming]", timeout=60_000)
        for _ in range(3):
            proxy.cut()
            time.sleep(1.5)
        with rex.api() as api:
            run = ended(api, run_id)
        for tab in (page, viewer):
            wait_until_shown_as_ended(tab)
            tab.bring_to_front()
            assert copied(tab, "Copy the answer") == run["answer"]
            for call in run["calls"]:
                if call["text"]:
                    assert copied(tab, f"Copy answer {call['label']}") == call["text"]
        assert proxy.cuts == 3


def test_stop_works_after_a_reload_and_keeps_the_partial_texts(page: Page, rex: Rex) -> None:
    run_id = started(page, rex, "Write a long essay about rivers.")
    page.wait_for_selector("[data-call][data-s=streaming]", timeout=60_000)
    page.reload()
    page.get_by_role("button", name="Stop run").click()

    with rex.api() as api:
        run = ended(api, run_id)
    assert run["status"] == "cancelled"
    assert {call["state"] for call in run["calls"]} <= {"cancelled", "done"}
    wait_until_shown_as_ended(page)
    assert any(call["text"] for call in run["calls"])


def test_a_finished_run_reads_without_scripts(rex: Rex, chromium: Any, page: Page) -> None:
    run_id = started(page, rex, "Name three rivers of Europe.")
    with rex.api() as api:
        run = ended(api, run_id)
    plain = chromium.new_context(
        java_script_enabled=False, storage_state=page.context.storage_state()
    )
    try:
        tab = plain.new_page()
        tab.goto(f"{rex.url}/runs/{run_id}/")
        text = tab.inner_text("main")
        for call in run["calls"]:
            # Words of letters: list numbers and Markdown marks are drawn, not written.
            for word in re.findall(r"[^\W\d_]{5,}", call["text"])[:5]:
                assert word in text
    finally:
        plain.close()


def test_a_question_asked_again_is_answered_from_the_cache_unless_asked_afresh(
    page: Page, rex: Rex
) -> None:
    """An answer that ended by itself is kept; one that was cut at its length limit is not."""
    body = {"prompt": "Say hello.", "pipeline": "single", "models": ["local/brisk"]}
    with rex.api() as api:
        runs = [
            ended(api, api.post("/api/run", json=body | wish).raise_for_status().json()["id"])
            for wish in ({}, {}, {"cache": "refresh"}, {"cache": "off"})
        ]
    calls = [run["calls"][0] for run in runs]
    assert calls[0]["finish_reason"] == "stop"
    assert [call["state"] for call in calls] == ["done", "cached", "done", "done"]
    assert calls[1]["text"] == calls[0]["text"]
    assert calls[1]["output_tokens"] == calls[0]["output_tokens"]
    page.goto(f"{rex.url}{runs[1]['url']}")
    state = page.locator("#call-A [data-part=state]").inner_text()
    assert re.fullmatch(r"cached, (just now|\d+ (s|min) old)", state)

    page.goto(f"{rex.url}/")
    page.get_by_label("Single").check()
    page.get_by_label("Brisk").check()
    page.get_by_label("Ask afresh").check()
    page.get_by_label("Your question").fill("Say hello.")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.wait_for_url(re.compile(r"/runs/[0-9a-f-]{36}/"))
    with rex.api() as api:
        asked = ended(api, page.url.rstrip("/").rpartition("/")[2])
    assert asked["calls"][0]["state"] == "done"


def test_ask_puts_only_the_answer_on_stdout(rex: Rex) -> None:
    done = subprocess.run(
        [ROOT / "rex", "ask", "--json", "Why is the sky blue?"],
        cwd=ROOT,
        env=rex.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    assert done.returncode in (0, 3), done.stderr
    answer = json.loads(done.stdout)
    with rex.api() as api:
        run = api.get(f"/api/runs/{answer['id']}").json()
    assert answer["answer"] == run["answer"]
