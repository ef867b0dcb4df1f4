"""The console's lists and its first page, with few rows and with many."""

import itertools

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from orchestration.models import ModelPrice, PausedModel
from tests.conftest import Person
from tests.web.admin_cast import (
    a_run,
    admitted,
    done,
    last_entry,
    override,
    page,
    quota,
    superuser,
)
from workspaces.admin.standings import near_a_quota
from workspaces.domain.quotas import Dimension
from workspaces.models import (
    ApiKey,
    AuditEntry,
    Quota,
    Workspace,
)

pytestmark = pytest.mark.django_db


def test_lists_ask_the_database_no_more_often_for_more_rows(alice: Person) -> None:
    browser = superuser()

    def fill(number: int) -> None:
        for _ in range(number):
            home = Workspace.objects.create(slug=f"w{next(serial)}", name="W")
            override(quota(home, Dimension.COST_PER_DAY, 100), 200)
            quota(home, Dimension.CONCURRENT_RUNS, 5)
            key = ApiKey.objects.create(
                workspace=home, name="k", public=f"p{next(serial)}", secret_sha256="x"
            )
            run = a_run(home, status="running")
            admitted(home, subject=run.pk, api_key=key, cost=90)
            a_run(home, status="failed", reason="internal")
            PausedModel.objects.create(model=f"openai/m{next(serial)}")
            ModelPrice.objects.create(model=f"openai/m{next(serial)}", input=1, output=1)
            AuditEntry.objects.create(
                actor="a", action="x", object_type="t", object_id="1", object_name="n",
                workspace=home,
            )  # fmt: skip

    serial = itertools.count()
    addresses = [
        page("index"),
        page("workspaces_workspace_changelist"),
        page("workspaces_apikey_changelist"),
        page("workspaces_quotaoverride_changelist"),
        page("workspaces_reservation_changelist"),
        page("workspaces_counter_changelist"),
        page("workspaces_auditentry_changelist"),
        page("orchestration_run_changelist"),
        page("orchestration_run_live"),
        page("orchestration_pausedmodel_changelist"),
        page("orchestration_pausedmodel_providers"),
        page("orchestration_modelprice_changelist"),
        page("orchestration_modelprice_table"),
    ]

    def queries() -> dict[str, int]:
        counted = {}
        for address in addresses:
            with CaptureQueriesContext(
                connection,
            ) as asked:
                assert browser.get(address).status_code == 200
            counted[address] = len(asked)
        return counted

    fill(2)
    few = queries()
    fill(6)
    assert queries() == few
    assert max(few.values()) <= 30


def test_the_first_page_names_the_workspaces_that_are_near_a_quota(
    alice: Person, charlie: Person
) -> None:
    near, far = alice.workspace, charlie.workspace
    for home, cost in ((near, 85), (far, 50)):
        quota(home, Dimension.COST_PER_DAY, 100)
        admitted(home, cost=cost)
    found = near_a_quota(timezone.now())
    assert [row for row, _ in found] == [near]
    text = superuser().get(page("index")).content.decode()
    assert page("workspaces_workspace_change", near.pk) in text
    assert page("workspaces_workspace_change", far.pk) not in text
    # With a higher limit for a while it is far again; with a lower one the other is near.
    override(Quota.objects.in_workspace(near).get(), 1_000)
    override(Quota.objects.in_workspace(far).get(), 60)
    assert [row for row, _ in near_a_quota(timezone.now())] == [far]


def test_the_log_is_filtered_and_shows_before_and_after(alice: Person, charlie: Person) -> None:
    browser = superuser()
    done(browser, page("workspaces_workspace_pause", alice.workspace.pk), reason="Hot.")
    done(browser, page("workspaces_workspace_pause", charlie.workspace.pk), reason="Cold.")
    listed = page("workspaces_auditentry_changelist")

    def names(**query: str) -> list[str]:
        rows = browser.get(listed, query).context["cl"].result_list
        return [row.object_name for row in rows if row.action == "workspace.paused"]

    assert names() == ["Elsewhere", "Acme"]
    assert names(workspace=str(alice.workspace.pk)) == ["Acme"]
    assert names(action="workspace.paused") == ["Elsewhere", "Acme"]
    assert names(action="key.revoked") == []
    assert names(actor="operator sven", q="Acme") == ["Acme"]
    today = timezone.now()
    day = {"at__year": today.year, "at__month": today.month, "at__day": today.day}
    assert names(**{name: str(value) for name, value in day.items()}) == ["Elsewhere", "Acme"]
    history = browser.get(page("workspaces_workspace_history", alice.workspace.pk), follow=True)
    rows = history.context["cl"].result_list
    assert {row.object_id for row in rows} == {str(alice.workspace.pk)}
    text = browser.get(page("workspaces_auditentry_change", last_entry().pk)).content.decode()
    assert "Cold." in text
    assert "Before" in text
