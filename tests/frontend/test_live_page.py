"""The live page in Chromium, told a scripted run over a played socket."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.frontend import scripted_run
from tests.frontend.browser import axe_violations, overflow_px
from tests.frontend.conftest import Render
from tests.frontend.scripted_run import ANSWERS, BLOCKS, RUN_ID, Script
from tests.frontend.stage import Stage

pytestmark = pytest.mark.browser

DETAIL = "orchestration/run_detail.html"
WIDTHS = (320, 390, 768, 1440)
NOW = "stage.now = '2026-11-23T12:00:09.000Z'"

Tell = Callable[..., None]


@pytest.fixture
def script() -> Script:
    return scripted_run.script()


@pytest.fixture
def live(page: Page, stage: Stage, rendered: Render, script: Script) -> Page:
    """The page of a run that was just accepted."""
    stage.pages["/run/"] = rendered(DETAIL, {"snapshot": scripted_run.start()})
    page.add_init_script(NOW)
    page.goto(f"{stage.url}/run/")
    wait(page, "stage.subscriptions.length === 1")
    page.evaluate("frames => { stage.frames = frames }", script.frames)
    return page


def wait(page: Page, condition: str) -> None:
    page.wait_for_function(f"() => {condition}", timeout=10_000)


def tell(page: Page, script: Script, mark: str) -> None:
    """Deliver every frame up to ``mark`` and wait until they are drawn."""
    page.evaluate("upto => stage.deliver(upto - stage.next)", script.marks[mark])
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")


def card(page: Page, label: str, part: str) -> str:
    return page.locator(f"#call-{label} [data-part={part}]").first.inner_text()


def answer(page: Page) -> str:
    return page.locator("#synthesis [data-part=doc]").inner_text().strip()


def seen(page: Page) -> dict[str, Any]:
    """All a reader sees of a run, as text."""
    return {
        "bar": page.locator(".runbar .numbers").inner_text(),
        "state": page.locator("[data-part=run-state]").inner_text(),
        "sentence": page.locator("[data-part=sentence]").inner_text(),
        "answer": page.locator("#synthesis [data-part=doc]").inner_text().split(),
        "cards": [
            each.inner_text().replace("Copy", "").split() for each in page.locator(".card").all()
        ],
        "versions": page.locator("[data-part=versions]").inner_text(),
        "overlap": page.locator("[data-part=overlap-count]").inner_text(),
        "timeline": page.locator("#timeline li").all_text_contents(),
        "bars": page.eval_on_selector_all(
            "#timeline rect", "all => all.map(r => [r.className.baseVal, r.getAttribute('x')])"
        ),
    }


def test_page_that_watched_reads_like_the_page_loaded_afterwards(
    live: Page, script: Script, stage: Stage, rendered: Render
) -> None:
    tell(live, script, "end")
    watched = seen(live)
    stage.pages["/run/"] = rendered(DETAIL, {"snapshot": scripted_run.finished()})
    live.reload()
    wait(live, "document.querySelector('.run.js')")
    assert seen(live) == watched
    assert watched["state"] == "done"


def test_permanent_page_reads_the_same_without_scripts(
    chromium: Any, stage: Stage, rendered: Render, live: Page, script: Script
) -> None:
    tell(live, script, "end")
    stage.pages["/final/"] = rendered(DETAIL, {"snapshot": scripted_run.finished()})
    context = chromium.new_context(
        java_script_enabled=False, viewport={"width": 1440, "height": 900}
    )
    silent = context.new_page()
    silent.goto(f"{stage.url}/final/")
    texts = {
        "state": silent.locator("[data-part=run-state]").inner_text(),
        "sentence": silent.locator("[data-part=sentence]").inner_text(),
        "versions": silent.locator("[data-part=versions]").inner_text(),
    }
    shown = (
        answer(silent).split(),
        [each.inner_text().split() for each in silent.locator(".card").all()],
    )
    context.close()
    watched = seen(live)
    assert texts == {name: watched[name] for name in texts}
    assert shown[0] == watched["answer"]
    assert shown[1] == watched["cards"]


def test_synthesis_is_on_screen_while_models_still_answer(live: Page, script: Script) -> None:
    tell(live, script, "drafting")
    assert "Not this year." in live.locator("[data-part=live]").inner_text()
    assert card(live, "A", "state") == card(live, "C", "state") == "answering"
    assert "while models still answer" in live.locator("[data-part=sentence]").inner_text()


def test_overlap_is_shown_before_anything_is_synthesized(live: Page, script: Script) -> None:
    tell(live, script, "overlap")
    assert scripted_run.AGREED[0]["text"] in live.locator("#overlap").inner_text()
    assert answer(live) == ""


def test_version_on_screen_stays_whole_until_the_next_is(live: Page, script: Script) -> None:
    tell(live, script, "patched")
    before = answer(live)
    assert len(live.locator("#synthesis .block").all()) == len(BLOCKS[2])
    tell(live, script, "rewriting")
    assert answer(live) == before
    assert "characters so far" in live.locator("[data-part=progress]").inner_text()
    tell(live, script, "end")
    assert len(live.locator("#synthesis .block").all()) == len(BLOCKS[3])
    assert live.locator("[data-part=progress]").is_hidden()


def test_unchanged_blocks_keep_their_nodes_and_changed_ones_are_marked(
    live: Page, script: Script
) -> None:
    tell(live, script, "draft")
    live.evaluate("() => { window.first = document.querySelector('[data-block=b1]') }")
    tell(live, script, "patched")
    assert live.evaluate("first === document.querySelector('[data-block=b1]')")
    assert live.locator("[data-block=b3]").get_attribute("data-new") is not None
    assert live.locator("[data-block=b1]").get_attribute("data-new") is None


def test_a_selection_in_the_answer_is_not_taken_away(live: Page, script: Script) -> None:
    tell(live, script, "patched")
    live.evaluate(
        "() => getSelection().selectAllChildren(document.querySelector('[data-block=b2] p'))"
    )
    tell(live, script, "end")
    assert "Start with clear" in live.evaluate("getSelection().toString()")
    assert len(live.locator("#synthesis .block").all()) == len(BLOCKS[2])
    live.get_by_role("button", name="A newer version is ready. Show it").click()
    assert len(live.locator("#synthesis .block").all()) == len(BLOCKS[3])


def test_reloading_in_mid_stream_loses_and_doubles_nothing(
    live: Page, script: Script, stage: Stage, rendered: Render
) -> None:
    tell(live, script, "overlap")
    snapshot = scripted_run.start() | {"seq": 7, "status": "running"}
    for call in snapshot["calls"]:
        call |= {"state": "streaming", "text": ANSWERS[call["label"]][:30], "started_ms": 40}
    stage.pages["/run/"] = rendered(DETAIL, {"snapshot": snapshot})
    live.reload()
    wait(live, "stage.subscriptions.length === 1")
    have = live.evaluate("stage.subscriptions[0]")
    assert have == {"k": "sub", "since": 7, "have": {"A": [0, 30], "B": [0, 30], "C": [0, 30]}}
    live.evaluate("frames => { stage.frames = frames }", script.frames)
    tell(live, script, "end")  # from the very first frame: all of it overlaps
    assert live.evaluate("document.querySelector('#call-C .md').innerText") != ""
    for label, text in ANSWERS.items():
        assert card(live, label, "md").split()[-1] == text.split()[-1]
    assert card(live, "A", "md").count("Probably not this year") == 1


def test_a_dropped_socket_comes_back_with_what_the_page_holds(live: Page, script: Script) -> None:
    tell(live, script, "overlap")
    live.evaluate("stage.sockets.at(-1).close(1006)")
    wait(live, "stage.subscriptions.length === 2")
    have = live.evaluate("stage.subscriptions[1]")
    assert have["since"] == 7
    assert have["have"] == {"A": [0, 170], "B": [0, 140], "C": [0, 40]}
    tell(live, script, "end")
    assert live.locator("[data-part=run-state]").inner_text() == "done"


def test_a_hole_in_the_events_is_asked_for_again(live: Page, script: Script) -> None:
    live.evaluate("() => { stage.next = 2; stage.deliver(1) }")
    wait(live, "stage.subscriptions.length === 2")
    assert live.evaluate("stage.subscriptions[1].since") == 1
    live.evaluate("() => { stage.next = 0 }")
    tell(live, script, "end")
    assert live.locator("[data-part=run-state]").inner_text() == "done"


def test_stop_posts_once_with_a_token(live: Page, script: Script, stage: Stage) -> None:
    tell(live, script, "overlap")
    button = live.get_by_role("button", name="Stop answer B")
    button.click()
    button.click(force=True)  # impatient: the button says that it is disabled
    live.get_by_role("button", name="Stop run").click()
    wait(live, "document.querySelector('#call-B [data-part=stop]').innerText === 'Stopping…'")
    live.wait_for_timeout(100)
    paths = [path for path, _ in stage.posted]
    assert paths == [f"/api/runs/{RUN_ID}/calls/B/stop", f"/api/runs/{RUN_ID}/stop"]
    for _, headers in stage.posted:
        assert headers["X-CSRFToken"]


def test_a_failed_call_keeps_its_text_and_says_why(
    live: Page, stage: Stage, rendered: Render
) -> None:
    failing = scripted_run.script(failing=True)
    live.evaluate("frames => { stage.frames = frames }", failing.frames)
    tell(live, failing, "end")
    assert card(live, "C", "state") == "timed out"
    assert "stopped sending text" in card(live, "C", "reason")
    assert "It depends on what hurts today." in card(live, "C", "md")
    assert live.locator("[data-part=run-state]").inner_text() == "degraded"


def test_reader_who_scrolls_up_is_left_alone(live: Page, script: Script) -> None:
    tell(live, script, "overlap")
    body = live.locator("#call-A [data-part=body]")
    body.evaluate("node => { node.style.setProperty('height', '60px') }")
    body.hover()
    live.mouse.wheel(0, -40)
    live.wait_for_timeout(100)
    top = body.evaluate("node => node.scrollTop")
    tell(live, script, "draft")
    assert body.evaluate("node => node.scrollTop") == top
    newest = live.locator("#call-A [data-part=newest]")
    newest.click()
    assert newest.is_hidden()
    assert body.evaluate("n => n.scrollHeight - n.clientHeight - n.scrollTop") <= 8


def test_text_for_screen_readers_is_never_per_token(live: Page, script: Script) -> None:
    tell(live, script, "end")
    assert not live.locator(".body[aria-live], .doc[aria-live], [role=log]").count()
    said = live.locator("#say")
    wait(live, "document.querySelector('#say').textContent.includes('Run done')")
    assert said.get_attribute("aria-live") == "polite"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_moment_is_accessible_and_fits(
    live: Page, script: Script, stage: Stage, rendered: Render, width: int, theme: str
) -> None:
    live.set_viewport_size({"width": width, "height": 800})
    live.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
    for mark in ("overlap", "drafting", "rewriting", "end"):
        tell(live, script, mark)
        live.wait_for_timeout(900 if mark == "rewriting" else 0)  # highlight colours fade
        assert axe_violations(live) == [], mark
        assert overflow_px(live) == 0, mark


def test_narrow_screens_show_one_panel_and_every_state(live: Page, script: Script) -> None:
    live.set_viewport_size({"width": 390, "height": 800})
    tell(live, script, "draft")
    assert live.locator("#synthesis").is_visible()
    assert live.locator("#call-B").is_hidden()
    strip = live.get_by_role("navigation", name="Panels")
    strip.get_by_role("link", name="Answer B").click()
    assert live.locator("#call-B").is_visible()
    assert live.locator("#synthesis").is_hidden()
    assert strip.locator(".state").nth(0).get_attribute("data-s") == "done"
    assert strip.locator(".state").nth(1).get_attribute("data-s") == "streaming"


@pytest.mark.parametrize("width", [320, 1440])
def test_controls_are_large_enough_to_hit(live: Page, script: Script, width: int) -> None:
    live.set_viewport_size({"width": width, "height": 800})
    tell(live, script, "rewriting")
    small = live.evaluate(
        """() => [...document.querySelectorAll('a, button, summary, input')]
          .filter(node => node.checkVisibility() && !node.closest('.md, .vh, .skip'))
          .map(node => [node.outerHTML.slice(0, 80), node.getBoundingClientRect()])
          .filter(([, box]) => box.width && (box.width < 24 || box.height < 24))
          .map(([name, box]) => `${name} ${box.width}x${box.height}`)"""
    )
    assert small == []
