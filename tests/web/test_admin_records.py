"""Ledger, runs, models, prices and people in the console."""

import html
import re
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.urls import reverse

from orchestration.admin.queries import runs_under_way
from orchestration.fanout.target_state import CacheState, Targets, TargetState
from orchestration.models import Call, ModelPrice, PausedModel
from orchestration.price_book import prices_of
from tests.conftest import Person
from tests.web.admin_cast import a_run, admitted, done, last_entry, operator, page, superuser
from workspaces.models import (
    AuditEntry,
    Counter,
    Membership,
)

pytestmark = pytest.mark.django_db


def test_a_counter_that_went_wrong_is_made_again_from_the_ledger(alice: Person) -> None:
    home = alice.workspace
    admitted(home, tokens=100, cost=50)
    admitted(home, tokens=40, cost=20, ends=True)
    today = Counter.objects.in_workspace(home).exclude(window="").order_by("-window").first()
    assert today is not None
    right = (today.tokens, today.tokens_reserved, today.cost_micro_usd)
    assert right == (20, 100, 10)
    Counter.objects.in_workspace(home).filter(pk=today.pk).update(tokens=9_999)
    address = page("workspaces_counter_recount", today.pk)
    asked = superuser().get(address).content.decode()
    assert "9,999" in asked
    done(superuser("sue"), address)
    today.refresh_from_db()
    assert (today.tokens, today.tokens_reserved, today.cost_micro_usd) == right
    entry = last_entry()
    assert (entry.action, entry.before, entry.after) == (
        "counter.recounted",
        {"tokens": 9_999},
        {"tokens": 20},
    )


def test_the_ledger_is_found_by_state_and_by_run(alice: Person, charlie: Person) -> None:
    run = a_run(alice.workspace)
    admitted(alice.workspace, subject=run.pk)
    admitted(charlie.workspace, ends=True)
    browser, listed = superuser(), page("workspaces_reservation_changelist")

    def found(**query: str) -> set[Any]:
        rows = browser.get(listed, query).context["cl"].result_list
        return {row.workspace for row in rows}

    assert found(state="open") == {alice.workspace}
    assert found(state="closed") == {charlie.workspace}
    assert found(state="over") == set()
    assert found(q=str(run.pk)) == {alice.workspace}
    assert found(workspace=str(charlie.workspace.pk)) == {charlie.workspace}
    row = browser.get(listed, {"q": str(run.pk)}).content.decode()
    assert page("orchestration_run_change", run.pk) in row
    back = browser.get(page("orchestration_run_change", run.pk)).content.decode()
    assert f"{listed}?q={run.pk}" in back


def test_a_run_under_way_is_stopped_from_the_live_page(alice: Person) -> None:
    run = a_run(alice.workspace, status="running", lease_owner="worker-1")
    over = a_run(alice.workspace)
    browser = superuser()
    live = browser.get(page("orchestration_run_live"))
    text = live.content.decode()
    assert live["Refresh"] == "5"
    assert "Refresh" not in browser.get(page("orchestration_run_live"), {"still": ""})
    assert "worker-1" in text
    assert "local/brisk" in text
    assert page("orchestration_run_stop", run.pk) in text
    assert str(over.pk) not in text
    done(browser, page("orchestration_run_stop", run.pk))
    run.refresh_from_db()
    assert run.stop_requested_at is not None
    assert (last_entry().action, last_entry().object_id) == ("run.stopped", str(run.pk))
    for each in (run, over):
        again = browser.post(page("orchestration_run_stop", each.pk), {"confirmed": "yes"})
        assert again.status_code == 400
        assert "ended" in again.content.decode()


def test_the_live_page_says_what_it_leaves_out(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = superuser()
    for _ in range(3):
        a_run(alice.workspace, status="running")
    assert "more runs" not in browser.get(page("orchestration_run_live")).content.decode()
    monkeypatch.setattr("orchestration.admin.runs.runs_under_way", lambda: runs_under_way(1))
    assert "And 2 more runs" in browser.get(page("orchestration_run_live")).content.decode()


def test_the_product_page_is_linked_for_members_alone(alice: Person) -> None:
    run = a_run(alice.workspace)
    address = page("orchestration_run_change", run.pk)
    product = reverse("run-detail", args=[run.pk])
    browser = superuser()
    assert product not in browser.get(address).content.decode()
    assert browser.get(product).status_code in (403, 404)
    Membership.objects.create(
        workspace=alice.workspace, user=User.objects.get(username="sven"), role="viewer"
    )
    assert product in browser.get(address).content.decode()
    assert address in browser.get(product).content.decode()
    assert address not in alice.browser().get(product).content.decode()
    workspace = browser.get(page("workspaces_workspace_change", alice.workspace.pk))
    assert f'href="{reverse("usage")}">Usage' in workspace.content.decode()


def test_a_model_is_paused_with_a_reason_and_resumed(alice: Person) -> None:
    browser, address = superuser(), page("orchestration_pausedmodel_pause")
    for wrong in ("gpt-4o", "openai/", "nobody/x", "open ai/x", ""):
        refused = browser.post(address, {"model": wrong, "reason": "slow", "confirmed": "yes"})
        assert refused.status_code == 400, wrong
    assert not PausedModel.objects.exists()
    done(browser, address, model="local/*", reason="The machine is hot.")
    row = PausedModel.objects.get()
    assert (row.model, row.reason, row.created_by) == ("local/*", "The machine is hot.", "sven")
    assert last_entry().action == "model.paused"
    answer = alice.api().post(
        "/api/run", {"prompt": "Why?", "models": ["local/brisk"]}, content_type="application/json"
    )
    assert answer.json()["code"] == "model_paused"
    assert (
        "all models paused"
        in browser.get(page("orchestration_pausedmodel_providers")).content.decode()
    )
    resume = page("orchestration_pausedmodel_resume", row.pk)
    assert resume in browser.get(page("orchestration_pausedmodel_changelist")).content.decode()
    done(browser, resume)
    assert not PausedModel.objects.exists()
    assert last_entry().action == "model.resumed"


def test_a_provider_in_trouble_is_told_of_on_the_first_page(
    alice: Person, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    browser = superuser()
    settings.FANOUT_URL = "http://127.0.0.1:1"  # where nobody listens
    here, index = page("orchestration_pausedmodel_providers"), page("index")
    for address in (here, index):
        assert "is not known" in browser.get(address).content.decode()
    calm = TargetState("openai", "gpt-4o", "1", 3, 10, 2, "closed", False, None, 1_200)
    hot = TargetState("openai", "gpt-4o", "2", 0, None, 0, "open", False, 29_500, None)
    refused = TargetState("groq", "llama", "1", 0, None, 0, "closed", True, None, None)
    told = Targets((hot, refused, calm), 4, CacheState(12, 34_567))
    monkeypatch.setattr("orchestration.admin.pauses.targets", lambda: told)
    run = a_run(alice.workspace)
    Call.objects.filter(run=run).update(provider="groq", reason="auth")
    # Beside it what is no trouble of a provider: a call that was stopped, and one never sent.
    for label, state, reason in (
        ("B", "cancelled", "stop.user"),
        ("C", "skipped", "quota.exceeded"),
    ):
        Call.objects.create(
            run=run, label=label, model="groq/x", provider="groq", state=state, reason=reason
        )
    text = browser.get(here).content.decode()
    for words in ("for 30 s more", "refuses this key", "And 4 more", "12 answers", "1.2 s ago"):
        assert words in text, words
    calm_run = a_run(alice.workspace)
    assert "stop.user" not in text
    assert "quota.exceeded" not in text
    link = re.search(r'href="([^"]+)">auth</a> 1', text)
    assert link is not None
    listed = browser.get(html.unescape(link[1])).content.decode()
    assert str(run.pk) in listed
    assert str(calm_run.pk) not in listed
    assert "groq auth" in listed
    first = browser.get(index).content.decode()
    assert "openai/gpt-4o, key 2" in first
    assert "groq/llama, key 1" in first
    assert "openai/gpt-4o, key 1" not in first


def test_a_price_is_added_shown_in_force_and_given_back(alice: Person) -> None:
    browser, model = superuser(), "local/brisk"
    given = {"model": model, "input": "2.50", "output": "10", "cached_input": "", "note": "offer"}
    before = prices_of([model])[model]
    assert before is not None
    asked = browser.post(page("orchestration_modelprice_set"), given).content.decode()
    assert asked.count("$2.50") == 2, "input, and cached input that has no price of its own"
    assert "not offered" not in asked
    other = browser.post(page("orchestration_modelprice_set"), {**given, "model": "local/nope"})
    assert "not offered now" in other.content.decode()
    done(browser, page("orchestration_modelprice_set"), **given)
    row = ModelPrice.objects.get()
    assert (row.input, row.output, row.cached_input) == (2_500_000, 10_000_000, None)
    entry = last_entry()
    assert entry.action == "price.set"
    assert entry.before["version"] == before.version
    assert entry.after["version"] == f"override-{row.pk}"
    table = browser.get(page("orchestration_modelprice_table")).content.decode()
    assert f"override-{row.pk}" in table
    back = page("orchestration_modelprice_give_back")
    done(browser, f"{back}?model={model}")
    assert prices_of([model])[model] == before
    assert ModelPrice.objects.count() == 2, "prices are added, never changed"
    again = browser.post(f"{back}?model={model}", {"confirmed": "yes"})
    assert "No operator" in again.content.decode()


@pytest.mark.parametrize("wrong", ["", "-1", "1,5", "1.0000001", "NaN", "Infinity", "x", "1e40"])
def test_a_price_that_is_none_is_refused(alice: Person, wrong: str) -> None:
    given = {"model": "openai/x", "input": wrong, "output": "1", "confirmed": "yes"}
    answer = superuser().post(page("orchestration_modelprice_set"), given)
    assert answer.status_code == 400
    assert not ModelPrice.objects.exists()


def test_what_is_done_to_users_and_groups_is_in_the_log_without_passwords(alice: Person) -> None:
    browser = superuser()
    group = Group.objects.create(name="Night shift")
    made = {"username": "nina", "password1": "a-long-one-77", "password2": "a-long-one-77"}
    assert browser.post(page("auth_user_add"), made).status_code == 302
    nina = User.objects.get(username="nina")
    assert (last_entry().action, last_entry().object_name) == ("user.created", "nina")
    change = {"username": "nina", "is_active": "on", "is_staff": "on", "groups": [group.pk]}
    assert browser.post(page("auth_user_change", nina.pk), change).status_code == 302
    actions = [entry.action for entry in AuditEntry.objects.everywhere().order_by("pk")][-2:]
    assert actions == ["user.changed", "user.rights_changed"]
    assert last_entry().after == {"groups": ["Night shift"]}
    word = {"password1": "another-one-88", "password2": "another-one-88", "usable_password": "true"}
    address = page("auth_user_password_change", nina.pk)
    assert browser.post(address, word).status_code == 302
    assert last_entry().action == "user.password_set"
    assert browser.post(page("auth_user_delete", nina.pk), {"post": "yes"}).status_code == 302
    assert last_entry().action == "user.deleted"
    kept = str(list(AuditEntry.objects.everywhere().values()))
    for word_ in ("a-long-one-77", "another-one-88", "md5$", "pbkdf2"):
        assert word_ not in kept


def test_staff_cannot_make_themselves_superusers(alice: Person) -> None:
    browser = operator("auth.change_user", "auth.view_user", "auth.add_user")
    me = User.objects.get(username="olga")
    answer = browser.post(
        page("auth_user_change", me.pk),
        {"username": "olga", "is_active": "on", "is_staff": "on", "is_superuser": "on"},
    )
    assert answer.status_code == 403
    me.refresh_from_db()
    assert not me.is_superuser


def test_a_superuser_does_not_delete_themselves(alice: Person) -> None:
    browser = superuser()
    me = User.objects.get(username="sven")
    assert browser.post(page("auth_user_delete", me.pk), {"post": "yes"}).status_code == 403
    assert User.objects.filter(pk=me.pk).exists()


def test_a_superuser_does_not_take_their_own_rights(alice: Person) -> None:
    browser = superuser()
    me = User.objects.get(username="sven")
    browser.post(page("auth_user_change", me.pk), {"username": "sven"})
    me.refresh_from_db()
    assert (me.is_active, me.is_staff, me.is_superuser) == (True, True, True)


def test_the_last_owner_of_a_workspace_is_deleted_by_nobody(alice: Person, bob: Person) -> None:
    browser = superuser()
    address = page("auth_user_delete", alice.user.pk)
    assert browser.post(address, {"post": "yes"}).status_code == 403
    assert browser.get(page("auth_user_change", alice.user.pk)).status_code == 200
    Membership.objects.in_workspace(bob.workspace).filter(user=bob.user).update(role="owner")
    assert browser.post(address, {"post": "yes"}).status_code == 302
    assert not User.objects.filter(pk=alice.user.pk).exists()


def test_an_operator_without_a_workspace_begins_in_the_console(alice: Person) -> None:
    assert superuser().get("/").headers["Location"] == "/admin/"
    assert alice.browser().get("/").status_code == 200
