"""The start page, the list and the plain pages in Chromium."""

import uuid
from datetime import UTC, date, datetime
from typing import Any

import pytest
from django.contrib.auth.forms import AuthenticationForm
from playwright.sync_api import Page

from orchestration.domain.errors import ERROR_ROWS
from orchestration.domain.pipelines import PIPELINES
from orchestration.domain.run import RunStatus
from orchestration.forms import StartForm
from orchestration.problems import PROBLEMS
from orchestration.run_filter import BadFilter, RunFilter
from orchestration.run_list import RunRow
from tests.frontend.browser import axe_violations, overflow_px
from tests.frontend.conftest import Render
from tests.frontend.stage import Stage
from tests.frontend.usage_page import USED, empty_context, usage_context

pytestmark = pytest.mark.browser


def row(status: str, prompt: str) -> RunRow:
    return RunRow(
        id=uuid.UUID(int=1),
        url="/runs/1/",
        prompt_preview=prompt,
        status=status,
        pipeline="synthesis",
        created_at=datetime(2026, 11, 23, 12, 4, tzinfo=UTC),
        duration_ms=14_230,
        answers="2/3",
        cost_micro_usd=2130,
        reason=None,
        started_by="alice",
    )


ROWS = [
    row("running", "Should we split it?"),
    row("done", "Summarise incident 77."),
    row("degraded", "What does WAL change for readers?"),
    row("failed", "averylongword" * 12),
    row("cancelled", "<script>alert(1)</script>"),
]


@pytest.fixture(autouse=True)
def _nothing_is_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The form asks the database which models are; pages are shown here without one."""
    monkeypatch.setattr("orchestration.forms.pauses", dict)


def start_context(form: StartForm | None = None) -> dict[str, Any]:
    form = form or StartForm(initial={"idempotency_key": "of-the-server"})
    models = [
        ({"id": model, "title": title, "provider": model.split("/")[0], "description": ""}, None)
        for model, title in form.fields["models"].choices  # type: ignore[attr-defined]
    ]
    return {
        "form": form,
        "pipelines": list(PIPELINES.values()),
        "models": models,
        "recent": ROWS[:3],
    }


def filtered_context() -> dict[str, Any]:
    """A list with every filter on, and one that could not be used."""
    wanted = RunFilter(
        since=date(2026, 11, 20),
        until=date(2026, 11, 23),
        model="openai/*",
        part="answers",
        pipeline="synthesis",
        member="alice",
        status="done",
        reason="rate_limited",
        state="failed",
        cached=True,
    )
    return {
        "runs": ROWS,
        "next_cursor": "x~y",
        "wanted": wanted,
        "wrong": [BadFilter("from", "from takes a day, such as 2026-11-23.")],
        "zone": "Europe/Berlin",
        "pipelines": list(PIPELINES),
        "statuses": list(RunStatus),
        "count": 5,
        "totals": USED,
    }


def refused() -> StartForm:
    form = StartForm({"prompt": "", "pipeline": "nonsense"})
    form.is_valid()
    form.add_error("prompt", "Write a question first.")
    return form


@pytest.fixture
def pages(stage: Stage, rendered: Render) -> Stage:
    """Every page that is not a run."""
    stage.pages |= {
        "/": rendered("orchestration/start.html", start_context()),
        "/refused/": rendered("orchestration/start.html", start_context(refused())),
        "/runs/": rendered("orchestration/run_list.html", {"runs": ROWS, "next_cursor": "x~y"}),
        "/empty/": rendered("orchestration/run_list.html", {"runs": [], "next_cursor": None}),
        "/filtered/": rendered("orchestration/run_list.html", filtered_context()),
        "/usage/": rendered("orchestration/usage.html", usage_context()),
        "/usage-empty/": rendered("orchestration/usage.html", empty_context()),
        "/login/": rendered(
            "registration/login.html",
            {"form": AuthenticationForm(), "next": "/", "signed_in": False},
        ),
        "/errors/": rendered(
            "orchestration/help_errors.html",
            {"kinds": list(ERROR_ROWS.values()), "problems": PROBLEMS},
        ),
        **{f"/{code}/": rendered(f"{code}.html", {}) for code in (400, 403, 404, 500, 503)},
    }
    return stage


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 768, 1440])
def test_every_page_is_accessible_and_fits(
    page: Page, pages: Stage, width: int, theme: str
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    for path in pages.pages:
        page.goto(f"{pages.url}{path}")
        page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        assert axe_violations(page) == [], path
        assert overflow_px(page) == 0, path


def test_refused_question_says_why_and_keeps_what_was_chosen(page: Page, pages: Stage) -> None:
    page.goto(f"{pages.url}/refused/")
    assert "Write a question first." in page.get_by_role("alert").inner_text()
    assert page.get_by_label("Your question").get_attribute("aria-invalid") == "true"


def test_draft_survives_leaving_the_page(page: Page, pages: Stage) -> None:
    page.goto(pages.url)
    page.get_by_label("Your question").fill("half a thought")
    page.goto(f"{pages.url}/runs/")
    page.goto(pages.url)
    assert page.get_by_label("Your question").input_value() == "half a thought"


def test_what_has_been_asked_is_no_longer_a_draft(page: Page, pages: Stage) -> None:
    page.goto(pages.url)
    page.get_by_label("Your question").fill("asked")
    page.evaluate("() => import('/static/rex/js/start.js').then(m => m.forgetDraft('asked'))")
    page.reload()
    assert page.get_by_label("Your question").input_value() == ""


def test_control_and_enter_ask_and_a_second_press_does_not_ask_again(
    page: Page, pages: Stage
) -> None:
    page.goto(pages.url)
    question = page.get_by_label("Your question")
    question.fill("Why?")
    page.evaluate(
        """() => {
          window.sent = [];
          document.addEventListener("submit", (event) => {
            if (!event.defaultPrevented) sent.push(new FormData(event.target));
            event.preventDefault();
          });
        }"""
    )
    question.press("Control+Enter")
    question.press("Control+Enter")
    page.get_by_role("button", name="Ask").click(force=True)
    assert page.evaluate("sent.length") == 1
    assert page.evaluate("sent[0].get('prompt')") == "Why?"
    assert page.evaluate("sent[0].getAll('models').length") == 3


def test_every_visit_has_a_key_of_its_own_for_its_one_run(page: Page, pages: Stage) -> None:
    keys = []
    for _ in range(2):
        page.goto(pages.url)
        keys.append(page.locator("[name=idempotency_key]").input_value())
    assert len({*keys, "of-the-server"}) == 3


def test_a_pipeline_of_one_model_turns_to_one_and_a_wider_one_leaves_the_choice_alone(
    page: Page, pages: Stage
) -> None:
    page.goto(pages.url)
    models = page.get_by_role("group", name="Models")
    pipelines = page.get_by_role("group", name="Pipeline")

    def ticked() -> list[str | None]:
        return [each.get_attribute("value") for each in models.locator(":checked").all()]

    three = ticked()
    assert len(three) == 3
    pipelines.locator("[value=wait-all]").check()
    assert ticked() == three
    pipelines.locator("[value=single]").check()
    assert ticked() == three[:1]
    models.locator(f"[value='{three[2]}']").check()
    assert ticked() == three[2:], "another choice takes the place of the first"
    pipelines.locator("[value=synthesis]").check()
    models.locator(f"[value='{three[0]}']").check()
    assert ticked() == [three[0], three[2]]


def test_start_page_works_without_scripts(chromium: Any, pages: Stage) -> None:
    context = chromium.new_context(java_script_enabled=False)
    silent = context.new_page()
    silent.goto(pages.url)
    silent.get_by_label("Your question").fill("Why?")
    with silent.expect_request(lambda request: request.method == "POST") as asked:
        silent.get_by_role("button", name="Ask").click()
    body = asked.value.post_data or ""
    context.close()
    assert "prompt=Why%3F" in body
    assert "idempotency_key=of-the-server" in body
    assert body.count("models=") == 3


def test_a_runs_question_is_text_in_the_list(page: Page, pages: Stage) -> None:
    page.goto(f"{pages.url}/runs/")
    assert page.get_by_text("<script>alert(1)</script>").count() == 1


def test_the_usage_page_needs_no_script_and_its_numbers_can_be_reached_by_key(
    page: Page, pages: Stage
) -> None:
    page.goto(f"{pages.url}/usage/")
    assert page.locator("main script, main [style]").count() == 0
    cost = page.locator(".figures a").first
    cost.focus()
    assert cost.get_attribute("href") == "/runs/?from=2026-11-17&to=2026-11-23"
    bars = page.locator(".quotas li")
    assert [bar.get_attribute("data-level") for bar in bars.all()][:3] == ["low", "high", "full"]
    assert "It is used up." in bars.nth(2).inner_text()
    assert page.get_by_text("<script>alert(1)</script>").count() == 1
