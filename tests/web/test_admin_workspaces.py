"""What operators do to workspaces: asked first, done once, and written down."""

from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from orchestration.fanout.client import FanoutUnavailable
from orchestration.models import Run
from tests.conftest import Person
from tests.web.admin_cast import (
    a_run,
    admitted,
    done,
    last_entry,
    operator,
    override,
    page,
    quota,
    superuser,
)
from workspaces.access import actor_from_key
from workspaces.domain.quotas import Dimension
from workspaces.models import (
    ApiKey,
    AuditEntry,
    Membership,
    Quota,
    QuotaOverride,
    Workspace,
)
from workspaces.standing import uses_of

pytestmark = pytest.mark.django_db


def test_pausing_takes_a_reason_and_a_confirmation_and_can_be_undone(alice: Person) -> None:
    browser, home = superuser(), alice.workspace
    address = page("workspaces_workspace_pause", home.pk)
    assert browser.post(address, {"reason": "", "confirmed": "yes"}).status_code == 400
    answer = done(browser, address, reason="Their key leaked.")
    assert answer.status_code == 302
    home.refresh_from_db()
    assert home.paused_at is not None
    assert home.paused_reason == "Their key leaked."
    entry = last_entry()
    assert (entry.actor, entry.action) == ("operator sven", "workspace.paused")
    assert entry.workspace == home
    assert entry.after["paused_reason"] == "Their key leaked."
    again = browser.post(address, {"reason": "twice", "confirmed": "yes"})
    assert "paused already" in again.content.decode()
    done(browser, page("workspaces_workspace_resume", home.pk))
    assert not Workspace.objects.filter(pk=home.pk, paused_at__isnull=False).exists()
    assert last_entry().action == "workspace.resumed"


def settings_of(home: Workspace, **changed: Any) -> dict[str, Any]:
    """What the page of a workspace posts when it is saved."""
    rows = list(Quota.objects.filter(workspace__slug=home.slug).order_by("pk"))
    posted: dict[str, Any] = {
        "name": home.name,
        "slug": home.slug,
        "time_zone": home.time_zone,
        "on_excess": home.on_excess,
        "quotas-TOTAL_FORMS": len(rows) + 2,
        "quotas-INITIAL_FORMS": len(rows),
    }
    for at in range(len(rows) + 2):
        row = rows[at] if at < len(rows) else None
        posted[f"quotas-{at}-workspace"] = home.pk
        posted[f"quotas-{at}-id"] = row.pk if row else ""
        posted[f"quotas-{at}-dimension"] = row.dimension if row else ""
        posted[f"quotas-{at}-amount"] = row.limit if row else ""
    return {**posted, **changed}


def test_money_is_written_in_dollars_and_kept_exactly(alice: Person) -> None:
    browser, home = superuser(), alice.workspace
    address = page("workspaces_workspace_change", home.pk)
    day = Dimension.COST_PER_DAY.value
    new = {"quotas-0-dimension": day, "quotas-0-amount": "12.345678"}
    assert browser.post(address, settings_of(home, **new)).status_code == 302
    row = Quota.objects.in_workspace(home).get()
    assert row.limit == 12_345_678
    assert (last_entry().action, last_entry().after["limit"]) == ("quota.set", 12_345_678)
    assert last_entry().object_name == "Money a day, in micro-dollars: 12,345,678 (workspace)"
    assert 'value="12.345678"' in browser.get(address).content.decode()
    entries = AuditEntry.objects.everywhere().count()
    # Saved again as it stands, nothing has changed and nothing is logged.
    same = settings_of(home, **{"quotas-0-amount": "12.345678"})
    assert browser.post(address, same).status_code == 302
    assert AuditEntry.objects.everywhere().count() == entries
    browser.post(address, settings_of(home, **{"quotas-0-amount": "1,234,567.5"}))
    assert Quota.objects.get(pk=row.pk).limit == 1_234_567_500_000
    browser.post(address, settings_of(home, **{"quotas-0-amount": "12.345678"}))
    browser.post(address, settings_of(home, **{"quotas-0-amount": "0.1"}))
    assert Quota.objects.get(pk=row.pk).limit == 100_000
    assert (last_entry().before, last_entry().after) == ({"limit": 12_345_678}, {"limit": 100_000})
    # The first form once more, as a second click would send it: there is one such quota already.
    stale = {**settings_of(home, **new), "quotas-INITIAL_FORMS": 0, "quotas-0-id": ""}
    assert "more than one limit" in browser.post(address, stale).content.decode()
    assert Quota.objects.in_workspace(home).count() == 1
    gone = {"quotas-0-amount": "0.1", "quotas-0-DELETE": "on"}
    browser.post(address, settings_of(home, **gone))
    assert not Quota.objects.in_workspace(home).exists()
    assert last_entry().action == "quota.removed"


class Tab(HTMLParser):
    """A tab of ``browser`` that has opened the form at ``address``, and saves it when told to."""

    def __init__(self, browser: Client, address: str) -> None:
        super().__init__()
        self.browser, self.address = browser, address
        self.read(browser.get(address))

    def read(self, answer: Any) -> None:
        self.text = answer.content.decode()
        self.fields: dict[str, list[str]] = {}
        self.choice = ""
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name, value = given.get("name") or "", given.get("value") or ""
        if tag == "select":
            self.choice = name
        elif tag == "option" and "selected" in given:
            self.fields.setdefault(self.choice, []).append(value)
        elif tag == "input" and name and given.get("type") == "checkbox":
            if "checked" in given:
                self.fields.setdefault(name, []).append(value or "on")
        elif tag == "input" and name and given.get("type") != "submit":
            self.fields.setdefault(name, []).append(value)

    def save(self, **changed: str) -> Any:
        """Change fields ("amount" is that of the first quota) and send the form. Where it comes
        back, the tab shows it."""
        names = {"amount": "quotas-0-amount", "burst": "quotas-0-burst", "gone": "quotas-0-DELETE"}
        for name, value in changed.items():
            self.fields[names.get(name, name)] = [value] if value else []
        answer = self.browser.post(self.address, self.fields)
        if answer.status_code == 200:
            self.read(answer)
        return answer


def test_an_older_tab_writes_only_what_was_changed_in_it(alice: Person) -> None:
    browser, home = superuser(), alice.workspace
    row = quota(home, Dimension.CONCURRENT_RUNS, 5)
    address = page("workspaces_workspace_change", home.pk)
    first, second, third = (Tab(browser, address) for _ in range(3))
    assert first.save(amount="2", allow_unpriced="on").status_code == 302
    assert second.save(name="Renamed").status_code == 302
    row.refresh_from_db()
    home.refresh_from_db()
    assert (row.limit, home.name, home.allow_unpriced) == (2, "Renamed", True)
    assert (last_entry().action, last_entry().after) == ("workspace.changed", {"name": "Renamed"})
    entries = AuditEntry.objects.everywhere().count()
    assert third.save().status_code == 302
    assert AuditEntry.objects.everywhere().count() == entries, "nothing was changed in it"
    # The other way round: the name stays when the limit is set.
    other = Tab(browser, address)
    Tab(browser, address).save(name="Again")
    assert other.save(amount="3").status_code == 302
    row.refresh_from_db()
    home.refresh_from_db()
    assert (row.limit, home.name) == (3, "Again")
    assert (last_entry().action, last_entry().after) == ("quota.set", {"limit": 3})


def test_what_two_tabs_changed_is_looked_at_again_and_then_saved(alice: Person) -> None:
    browser, home = superuser(), alice.workspace
    row = quota(home, Dimension.REQUESTS_PER_MINUTE, 5)
    address = page("workspaces_workspace_change", home.pk)
    first, second, third = (Tab(browser, address) for _ in range(3))
    first.save(amount="2", name="Theirs")
    entries = AuditEntry.objects.everywhere().count()
    assert second.save(amount="7", name="Mine").status_code == 200
    assert "Changed meanwhile: now “2”" in second.text
    assert "Changed meanwhile: now “Theirs”" in second.text
    assert second.fields["quotas-0-amount"] == ["7"], "what was written is not lost"
    assert AuditEntry.objects.everywhere().count() == entries
    # A burst belongs to its limit: it was chosen for the other one.
    assert third.save(burst="4").status_code == 200
    assert "Changed meanwhile: now “2”" in third.text
    assert third.fields["quotas-0-amount"] == ["2"]
    assert third.save().status_code == 302
    row.refresh_from_db()
    assert (row.limit, row.burst) == (2, 4)
    # Meanwhile there is a burst too; saved a third time it is meant.
    assert second.save().status_code == 200
    assert second.save().status_code == 302
    row.refresh_from_db()
    home.refresh_from_db()
    assert (row.limit, home.name) == (7, "Mine")


def test_the_same_change_in_two_tabs_is_no_quarrel(alice: Person) -> None:
    browser, home = superuser(), alice.workspace
    quota(home, Dimension.CONCURRENT_RUNS, 5)
    address = page("workspaces_workspace_change", home.pk)
    first, second = Tab(browser, address), Tab(browser, address)
    same = {"amount": "2", "name": "Same", "allow_unpriced": "on"}
    assert first.save(**same).status_code == 302
    entries = AuditEntry.objects.everywhere().count()
    assert second.save(**same).status_code == 302
    assert AuditEntry.objects.everywhere().count() == entries


def test_a_limit_that_was_changed_meanwhile_is_not_taken_away_unseen(alice: Person) -> None:
    browser, home = superuser(), alice.workspace
    quota(home, Dimension.CONCURRENT_RUNS, 5)
    address = page("workspaces_workspace_change", home.pk)
    first, second, third = (Tab(browser, address) for _ in range(3))
    first.save(amount="2")
    assert second.save(gone="on").status_code == 200
    assert "was changed meanwhile" in second.text
    assert second.fields["quotas-0-amount"] == ["2"]
    assert second.save().status_code == 302
    assert not Quota.objects.in_workspace(home).exists()
    # Nor does one that is gone come back with a form that still has it.
    assert third.save(name="Late").status_code == 302
    third.read(browser.get(address))
    assert "taken away meanwhile" in third.text
    home.refresh_from_db()
    assert home.name != "Late"
    assert not Quota.objects.in_workspace(home).exists()


def test_an_older_tab_gives_no_user_their_rights_back(alice: Person) -> None:
    browser = superuser()
    group = Group.objects.create(name="Night shift")
    nina = User.objects.create_user(username="nina", password="p", is_staff=True)
    nina.groups.add(group)
    address = page("auth_user_change", nina.pk)
    first, second = Tab(browser, address), Tab(browser, address)
    assert nina.password not in first.text
    assert first.save(is_staff="", groups="").status_code == 302
    assert second.save(username="nina-2").status_code == 302
    nina.refresh_from_db()
    assert (nina.username, nina.is_staff, nina.groups.count()) == ("nina-2", False, 0)
    assert nina.check_password("p")


def test_a_limit_that_lets_nothing_new_start_is_said_to(alice: Person) -> None:
    browser, home = superuser(), alice.workspace
    quota(home, Dimension.CONCURRENT_RUNS, 5)
    address = page("workspaces_workspace_change", home.pk)

    def said(amount: str) -> str:
        tab = Tab(browser, address)
        assert tab.save(amount=amount).status_code == 302
        return browser.get(address).content.decode()

    assert "Runs at once is now 0: nothing new starts." in said("0")
    assert "nothing new starts" not in said("1")
    assert "nothing new starts" not in said("3")
    admitted(home)
    assert "Runs at once is now 1, and 1 is used or held: nothing new starts" in said("1")


def test_a_workspace_is_made_with_its_quotas(db: None) -> None:
    made = Workspace(name="New", slug="new")
    posted = settings_of(made, **{"quotas-0-dimension": "concurrent_runs", "quotas-0-amount": "3"})
    for at in (0, 1):
        posted[f"quotas-{at}-workspace"] = ""
    answer = superuser().post(page("workspaces_workspace_add"), posted)
    assert answer.status_code == 302
    assert Quota.objects.in_workspace(Workspace.objects.get(slug="new")).get().limit == 3
    actions = AuditEntry.objects.everywhere().order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["workspace.created", "quota.set"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"quotas-0-amount": "1.2345678"}, "millionth"),
        ({"quotas-0-amount": "-1"}, "from 0"),
        ({"quotas-0-amount": "NaN"}, "from 0"),
        ({"quotas-0-amount": "1e30"}, "from 0"),
        ({"quotas-0-amount": "twelve"}, "like 12.50"),
        ({"quotas-0-amount": "1,5"}, "like 12.50"),
        ({"quotas-0-amount": "2.000"}, "dollars from cents"),
        ({"quotas-0-amount": "$12.500"}, "dollars from cents"),
        ({"quotas-0-amount": "1,0000"}, "like 12.50"),
        ({"quotas-0-dimension": "tokens_per_day", "quotas-0-amount": "1,5"}, "whole number"),
        ({"quotas-0-dimension": "tokens_per_day", "quotas-0-amount": "1.5"}, "whole number"),
        ({"quotas-0-dimension": "tokens_per_day", "quotas-0-amount": "9" * 20}, "up to"),
        ({"quotas-0-dimension": "nonsense", "quotas-0-amount": "1"}, "valid choice"),
        ({"quotas-0-amount": "1", "quotas-0-burst": "5"}, "have a burst"),
        ({"quotas-0-amount": "1", "quotas-0-pipeline": "nonsense"}, "valid choice"),
        (
            {
                "quotas-0-amount": "1",
                "quotas-1-dimension": "cost_micro_usd_per_day",
                "quotas-1-amount": "2",
            },
            "more than one limit",
        ),
        ({"time_zone": "Mars/Olympus"}, "no such time zone"),
        ({"time_zone": "../../etc/passwd"}, "no such time zone"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_reason(
    alice: Person, fields: dict[str, str], words: str
) -> None:
    browser, home = superuser(), alice.workspace
    about_a_quota = {"quotas-0-dimension": "cost_micro_usd_per_day"}
    given = fields if "time_zone" in fields else {**about_a_quota, **fields}
    answer = browser.post(page("workspaces_workspace_change", home.pk), settings_of(home, **given))
    assert answer.status_code == 200
    assert words in answer.content.decode()
    assert not Quota.objects.in_workspace(home).exists()
    home.refresh_from_db()
    assert home.time_zone == "UTC"


def test_a_quota_of_another_workspaces_key_cannot_be_made(alice: Person, charlie: Person) -> None:
    foreign = ApiKey.objects.in_workspace(charlie.workspace).get()
    given = {
        "quotas-0-dimension": "tokens_per_day",
        "quotas-0-amount": "1",
        "quotas-0-api_key": foreign.pk,
    }
    address = page("workspaces_workspace_change", alice.workspace.pk)
    answer = superuser().post(address, settings_of(alice.workspace, **given))
    assert answer.status_code == 200
    assert "valid choice" in answer.content.decode()
    assert not Quota.objects.everywhere().exists()


def test_the_quota_of_a_revoked_key_stays_that_keys(alice: Person) -> None:
    """Were the key not offered, the browser would send the row back as one of the workspace."""
    browser, home = superuser(), alice.workspace
    key = ApiKey.objects.in_workspace(home).get()
    quota(home, Dimension.TOKENS_PER_DAY, 777, api_key=key)
    ApiKey.objects.in_workspace(home).update(revoked_at=timezone.now())
    address = page("workspaces_workspace_change", home.pk)
    assert f'<option value="{key.pk}" selected>' in browser.get(address).content.decode()
    as_shown = settings_of(home, **{"quotas-0-api_key": key.pk, "quotas-0-amount": "778"})
    assert browser.post(address, as_shown).status_code == 302
    row = Quota.objects.in_workspace(home).get()
    assert (row.api_key, row.limit) == (key, 778)


def test_the_page_of_a_workspace_reads_its_keys_once_for_all_quotas(alice: Person) -> None:
    browser, home = superuser(), alice.workspace
    address = page("workspaces_workspace_change", home.pk)

    def queries() -> int:
        with CaptureQueriesContext(connection) as asked:
            assert browser.get(address).status_code == 200
        return len(asked)

    quota(home, Dimension.TOKENS_PER_DAY, 5)
    quota(home, Dimension.CONCURRENT_RUNS, 5)
    browser.get(address)
    few = queries()
    for more in (Dimension.COST_PER_DAY, Dimension.FANOUT_WIDTH, Dimension.REQUESTS_PER_MINUTE):
        quota(home, more, 5)
    assert queries() == few


def test_members_are_added_given_roles_and_taken_out_but_not_the_last_owner(
    alice: Person, charlie: Person
) -> None:
    browser, home = superuser(), alice.workspace
    add = page("workspaces_workspace_add_member", home.pk)
    assert "no user of that name" in browser.post(add, {"username": "x"}).content.decode()
    done(browser, add, username="charlie", role="viewer")
    joined = Membership.objects.in_workspace(home).get(user=charlie.user)
    assert last_entry().action == "member.joined"
    role = page("workspaces_workspace_role", joined.pk)
    assert '<option value="viewer" selected>' in browser.get(role).content.decode()
    done(browser, role, role="member")
    joined.refresh_from_db()
    assert (joined.role, last_entry().action) == ("member", "member.role_changed")
    owner = Membership.objects.in_workspace(home).get(user=alice.user)
    refused = browser.post(
        page("workspaces_workspace_remove_member", owner.pk), {"confirmed": "yes"}
    )
    assert "needs an owner" in refused.content.decode()
    assert Membership.objects.filter(pk=owner.pk).exists()
    done(browser, page("workspaces_workspace_remove_member", joined.pk))
    assert not Membership.objects.filter(pk=joined.pk).exists()
    assert last_entry().actor == "operator sven"


class Service:
    """Stands where the fan-out service is asked to forget."""

    def __init__(self) -> None:
        self.forgot: list[Any] = []
        self.away = False

    def purge(self, workspace_id: Any) -> None:
        if self.away:
            raise FanoutUnavailable("the fan-out service cannot be reached")
        self.forgot.append(workspace_id)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    made = Service()
    monkeypatch.setattr("orchestration.actions.delete_workspace.purge", made.purge)
    return made


def test_a_workspace_is_deleted_paused_idle_named_and_with_its_cached_answers(
    alice: Person, service: Service
) -> None:
    browser, home = superuser(), alice.workspace
    run = a_run(home, status="running")
    address = page("workspaces_workspace_delete_all", home.pk)
    sure = {"slug": home.slug, "confirmed": "yes"}
    assert "Pause the workspace first" in browser.post(address, sure).content.decode()
    Workspace.objects.filter(pk=home.pk).update(paused_at=timezone.now())
    assert "Runs are under way" in browser.post(address, sure).content.decode()
    Run.objects.in_workspace(home).filter(pk=run.pk).update(status="done")
    wrong = browser.post(address, {**sure, "slug": "elsewhere"})
    assert "not its short name" in wrong.content.decode()
    service.away = True
    assert "nothing was deleted" in browser.post(address, sure).content.decode()
    assert service.forgot == []
    assert Run.objects.in_workspace(home).count() == 1
    service.away = False
    answer = done(browser, address, slug=home.slug)
    assert answer["Location"] == page("workspaces_workspace_changelist")
    assert service.forgot == [home.pk]
    assert not Workspace.objects.filter(pk=home.pk).exists()
    assert not Run.objects.everywhere().exists()
    entry = last_entry()
    assert (entry.action, entry.object_id) == ("workspace.deleted", str(home.pk))
    assert (entry.workspace, entry.workspace_name) == (None, home.name)
    assert User.objects.filter(username="alice").exists()


def test_only_a_superuser_deletes_a_workspace(alice: Person, service: Service) -> None:
    home = alice.workspace
    Workspace.objects.filter(pk=home.pk).update(paused_at=timezone.now())
    browser = operator("workspaces.delete_workspace", "workspaces.view_workspace")
    address = page("workspaces_workspace_delete_all", home.pk)
    assert browser.get(address).status_code == 403
    answer = browser.post(address, {"slug": home.slug, "confirmed": "yes"})
    assert answer.status_code == 403
    assert Workspace.objects.filter(pk=home.pk).exists()
    assert address not in browser.get(page("workspaces_workspace_change", home.pk)).content.decode()


def test_an_override_shows_before_and_after_holds_for_its_time_and_ends_early(
    alice: Person,
) -> None:
    browser, home = superuser(), alice.workspace
    money = quota(home, Dimension.COST_PER_DAY, 5_000_000)
    address = page("workspaces_quotaoverride_raise", money.pk)
    given = {"limit": "7.50", "lasts": "24h", "reason": "A demo."}
    asked = browser.post(address, given).content.decode()
    assert "$5.00" in asked
    assert "$7.50" in asked
    assert uses_of(home)[0].limit.value == 5_000_000
    done(browser, address, **given)
    assert uses_of(home)[0].limit.value == 7_500_000
    made = QuotaOverride.objects.get()
    left = made.expires_at - timezone.now()
    assert timedelta(hours=23, minutes=59) < left <= timedelta(hours=24)
    assert (last_entry().action, last_entry().workspace) == ("quota.overridden", home)
    assert last_entry().before["limit"] == 5_000_000
    later = timezone.now() + timedelta(hours=25)
    assert uses_of(home, now=later)[0].limit.value == 5_000_000
    done(browser, page("workspaces_quotaoverride_end", made.pk))
    assert uses_of(home)[0].limit.value == 5_000_000
    assert last_entry().action == "quota.override_ended"
    again = browser.post(page("workspaces_quotaoverride_end", made.pk), {"confirmed": "yes"})
    assert "ended already" in again.content.decode()


def test_overrides_are_told_apart_by_whether_they_are_in_force(alice: Person) -> None:
    money = quota(alice.workspace, Dimension.COST_PER_DAY, 1)
    override(money, 2)
    override(money, 3, ended=True)
    override(money, 4, hours=-1)
    listed = page("workspaces_quotaoverride_changelist")
    browser = superuser()
    assert "1 quota override" in browser.get(listed, {"state": "live"}).content.decode()
    assert "2 quota overrides" in browser.get(listed, {"state": "over"}).content.decode()


def test_a_key_is_revoked_once_it_was_confirmed(alice: Person) -> None:
    key = ApiKey.objects.in_workspace(alice.workspace).get()
    assert actor_from_key(alice.key) is not None
    done(superuser(), page("workspaces_apikey_revoke", key.pk))
    assert actor_from_key(alice.key) is None
    assert (last_entry().action, last_entry().actor) == ("key.revoked", "operator sven")


def test_a_rotated_keys_successor_is_shown_once_and_kept_nowhere(alice: Person) -> None:
    browser = superuser()
    key = ApiKey.objects.in_workspace(alice.workspace).get()
    answer = done(browser, page("workspaces_apikey_rotate", key.pk), grace="1h")
    text = answer.content.decode()
    whole = text[text.index("sk-rex-") :].partition("<")[0]
    actor = actor_from_key(whole)
    assert actor is not None
    assert actor.workspace == alice.workspace
    assert "no-store" in answer["Cache-Control"]
    assert actor_from_key(alice.key) is not None, "the old key lives for its grace"
    secret = whole.split("-", 3)[3]
    for address in (
        page("workspaces_apikey_changelist"),
        page("workspaces_apikey_change", key.pk),
        page("workspaces_auditentry_changelist"),
    ):
        assert secret not in browser.get(address).content.decode()
    assert secret not in str(list(AuditEntry.objects.everywhere().values()))


def test_keys_are_found_by_state_public_part_and_name(alice: Person) -> None:
    home = alice.workspace
    live = ApiKey.objects.in_workspace(home).get()
    now = timezone.now()
    long_ago = now - timedelta(days=100)
    for name, fields in {
        "revoked": {"revoked_at": now},
        "expired": {"expires_at": now - timedelta(days=1)},
        "unused": {"last_used_at": long_ago},
    }.items():
        ApiKey.objects.create(workspace=home, name=name, public=name, secret_sha256="x", **fields)
    browser, listed = superuser(), page("workspaces_apikey_changelist")

    def found(**query: str) -> list[str]:
        rows = browser.get(listed, query).context["cl"].result_list
        return sorted(row.public for row in rows)

    assert found(state="live") == sorted([live.public, "unused"])
    assert found(state="expired") == ["expired"]
    assert found(state="revoked") == ["revoked"]
    assert found(state="unused") == ["unused"]
    assert found(q=live.public) == [live.public]
    assert found(q="expir") == ["expired"]
    assert found(workspace=str(home.pk), q="unused") == ["unused"]


def test_a_short_name_is_refused_in_the_words_of_the_page(alice: Person) -> None:
    browser, home = superuser(), alice.workspace
    address = page("workspaces_workspace_change", home.pk)
    Workspace.objects.create(name="Other", slug="other")
    for slug, words in (("a b", "letters, digits"), ("other", "of this short name already")):
        text = browser.post(address, settings_of(home, slug=slug)).content.decode()
        assert words in text
        assert "Slug" not in text
    home.refresh_from_db()
    assert home.slug != "other"
