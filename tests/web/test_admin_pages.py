"""The console's pages: each opens for who may see it, and for nobody else."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from tests.conftest import Person
from tests.web.admin_cast import (
    CANARY,
    every_page,
    operator,
    page,
    quota,
    superuser,
)
from workspaces.domain.quotas import Dimension
from workspaces.models import ApiKey, AuditEntry

pytestmark = pytest.mark.django_db


@pytest.fixture
def pages(alice: Person) -> list[str]:
    return every_page(alice)


def test_every_page_opens_for_a_superuser(pages: list[str]) -> None:
    browser = superuser()
    for address in pages:
        answer = browser.get(address)
        assert answer.status_code == 200, address
        text = answer.content.decode()
        assert "style=" not in text, address
        assert "<script" not in text, address


def test_members_and_staff_without_permissions_get_nothing(pages: list[str], alice: Person) -> None:
    """Each page but the first: that one tells staff what they lack."""
    staff, member = operator(), alice.browser()
    assert "have no permissions yet" in staff.get(pages[0]).content.decode()
    assert member.get(pages[0]).status_code == 302
    assert member.get(pages[0], follow=True).status_code == 403
    for address in pages[1:]:
        for method in ("get", "post"):
            assert getattr(staff, method)(address).status_code == 403, address
            assert getattr(member, method)(address).status_code == 302, address


def test_whoever_is_not_signed_in_is_sent_to_the_sites_sign_in(db: None) -> None:
    answer = Client().get(page("orchestration_run_live"), follow=True)
    assert answer.redirect_chain[-1][0].startswith(reverse("login"))
    assert answer.templates[0].name == "registration/login.html"
    after = Client().get(page("login"), {"next": page("orchestration_run_live")})
    assert after["Location"].endswith("next=%2Fadmin%2Forchestration%2Frun%2Flive%2F")


def test_a_permission_opens_its_pages_and_no_others(pages: list[str]) -> None:
    browser = operator("workspaces.view_apikey")
    opened = [each for each in pages[1:] if browser.get(each).status_code == 200]
    keys = page("workspaces_apikey_changelist")
    assert [each.startswith(keys) for each in opened] == [True, True]
    text = browser.get(pages[0]).content.decode()
    assert keys in text
    assert page("workspaces_workspace_changelist") not in text


def test_whoever_may_look_at_a_workspace_may_not_change_it(pages: list[str], alice: Person) -> None:
    home = alice.workspace
    quota(home, Dimension.TOKENS_PER_DAY, 5)
    address = page("workspaces_workspace_change", home.pk)
    assert "/raise/" in superuser().get(address).content.decode()
    browser = operator("workspaces.view_workspace", "workspaces.view_quota")
    text = browser.get(address).content.decode()
    assert home.name in text
    for offered in ("/pause/", "/members/", "/raise/", 'name="_save"', '<input type="text"'):
        assert offered not in text, offered
    assert browser.post(address, {"name": "Mine now"}).status_code == 403
    home.refresh_from_db()
    assert home.name == "Acme"


def test_the_console_is_english_whatever_the_reader_speaks(pages: list[str], alice: Person) -> None:
    browser = superuser()
    browser.cookies["django_language"] = "de"
    text = browser.get(page("workspaces_workspace_change", alice.workspace.pk)).content.decode()
    assert "Save and continue editing" in text
    assert "Speichern" not in text.partition("<main")[2]


def test_nobody_adds_changes_or_deletes_a_record(pages: list[str]) -> None:
    """Not even a superuser: the ledger, the log and keys are written by actions alone."""
    browser = superuser()
    for name in ("reservation", "counter", "auditentry", "apikey", "quotaoverride"):
        assert browser.get(page(f"workspaces_{name}_add")).status_code == 403
    for name in ("run", "modelprice", "pausedmodel"):
        assert browser.get(page(f"orchestration_{name}_add")).status_code == 403
    before = list(AuditEntry.objects.everywhere().values())
    for address in pages:
        if (
            address.endswith("/change/")
            and "/auth/" not in address
            and "/workspace/" not in address
        ):
            assert browser.post(address, {"name": "x", "actor": "x"}).status_code == 403, address
            deletion = address.removesuffix("change/") + "delete/"
            assert browser.post(deletion, {"post": "yes"}).status_code == 403, deletion
    assert list(AuditEntry.objects.everywhere().values()) == before


def test_what_was_asked_and_answered_is_nowhere_in_the_console(pages: list[str]) -> None:
    browser = superuser()
    for address in pages:
        assert CANARY not in browser.get(address).content.decode(), address
    for search in (CANARY, "prompt"):
        found = browser.get(page("orchestration_run_changelist"), {"q": search})
        assert "0 runs" in found.content.decode()


def test_secrets_are_nowhere_in_the_console(pages: list[str], alice: Person) -> None:
    secret = alice.key.split("-", 3)[3]
    digest = ApiKey.objects.in_workspace(alice.workspace).get().secret_sha256
    password = User.objects.get(pk=alice.user.pk).password.rsplit("$", 1)[1]
    browser = superuser()
    for address in pages:
        text = browser.get(address).content.decode()
        assert secret not in text, address
        assert digest not in text, address
        assert password not in text, address


def test_unknown_ids_are_a_404_and_never_an_error(alice: Person) -> None:
    browser = superuser()
    for name, pk in (
        ("workspaces_workspace_pause", "7d1f7c55-3c1e-4b52-8f4e-0d3f0c8b5a11"),
        ("workspaces_workspace_role", 999),
        ("workspaces_apikey_revoke", 999),
        ("workspaces_quotaoverride_raise", 999),
        ("workspaces_quotaoverride_end", 999),
        ("workspaces_counter_recount", 999),
        ("orchestration_run_stop", "7d1f7c55-3c1e-4b52-8f4e-0d3f0c8b5a11"),
        ("orchestration_pausedmodel_resume", 999),
    ):
        assert browser.get(page(name, pk)).status_code == 404, name
    for query in ({"q": "not-an-id"}, {"workspace": "nonsense"}, {"state": "nonsense"}):
        for name in ("run", "modelprice", "pausedmodel"):
            answer = browser.get(page(f"orchestration_{name}_changelist"), query)
            assert answer.status_code in (200, 302), (name, query)
        for name in ("workspace", "apikey", "reservation", "counter", "auditentry"):
            answer = browser.get(page(f"workspaces_{name}_changelist"), query)
            assert answer.status_code in (200, 302), (name, query)
