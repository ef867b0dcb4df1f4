"""Who works in the admin console, and a workspace with something in it."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.contrib.auth.models import Permission, User
from django.db import transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from orchestration.models import Call, ModelPrice, PausedModel, Run, RunEvent, Synthesis
from tests.conftest import Person
from workspaces.actions.reserve import reserve
from workspaces.actions.settle import Charge, settle
from workspaces.domain.quotas import Dimension, Hold, Offer
from workspaces.models import (
    ApiKey,
    AuditEntry,
    Counter,
    Membership,
    Quota,
    QuotaOverride,
    Reservation,
    Workspace,
)

CANARY = "canary-of-what-was-asked"


def operator(*permissions: str, name: str = "olga") -> Client:
    """The browser of staff with these permissions ("workspaces.view_workspace")."""
    user = User.objects.create_user(username=name, password="p", is_staff=True)
    for each in permissions:
        label, _, codename = each.partition(".")
        user.user_permissions.add(
            Permission.objects.get(content_type__app_label=label, codename=codename)
        )
    return _browser(user)


def superuser(name: str = "sven") -> Client:
    return _browser(User.objects.create_superuser(username=name, password="p"))


def _browser(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def a_run(workspace: Workspace, status: str = "done", **fields: Any) -> Run:
    """A run with every text there can be, all of them CANARY."""
    run = Run.objects.create(
        workspace=workspace,
        prompt=f"{CANARY} prompt",
        answer=f"{CANARY} answer",
        pipeline="synthesis",
        pipeline_version=1,
        settings={"policy": {}, "titles": {"x": CANARY}},
        synthesizer="local/editor",
        deadline_s=60,
        seed=CANARY,
        status=status,
        overlap={"note": CANARY},
        created_at=timezone.now(),
        **fields,
    )
    Call.objects.create(
        run=run, label="A", model="local/brisk", provider="local", state="done",
        text=f"{CANARY} call", output_tokens=7, cost_micro_usd=0, message=CANARY,
    )  # fmt: skip
    Synthesis.objects.create(
        run=run, version=1, base_version=0, kind="draft", trigger="quorum", model="local/editor",
        text=f"{CANARY} draft", blocks=[{"md": CANARY}], started_ms=1, message=CANARY,
    )  # fmt: skip
    RunEvent.objects.create(
        run=run, seq=1, at=timezone.now(), at_ms=0, type="run.started", body={"prompt": CANARY}
    )
    return run


def admitted(workspace: Workspace, *, tokens: int = 100, cost: int = 50, ends: bool = False,
             api_key: ApiKey | None = None, subject: Any = None) -> Any:  # fmt: skip
    """Work that was let in, holding so much; with ``ends`` it has used half of it."""
    subject = subject or uuid4()
    with transaction.atomic():
        reserve(
            workspace=workspace,
            subject=subject,
            api_key=api_key,
            pipeline="synthesis",
            offers=[Offer(1, (Hold("A", tokens, cost),))],
        )
    if ends:
        charge = Charge("A", tokens=tokens // 2, cost_micro_usd=cost // 2, closes=True)
        with transaction.atomic():
            settle(subject=subject, charges=[charge], closes=True)
    return subject


def quota(workspace: Workspace, dimension: Dimension, limit: int, **fields: Any) -> Quota:
    return Quota.objects.create(
        workspace=workspace, dimension=dimension.value, limit=limit, **fields
    )


def override(of: Quota, limit: int, *, hours: int = 24, ended: bool = False) -> QuotaOverride:
    now = timezone.now()
    return QuotaOverride.objects.create(
        quota=of, limit=limit, reason="a demo", created_by="olga",
        expires_at=now + timedelta(hours=hours), ended_at=now if ended else None,
    )  # fmt: skip


def page(name: str, *args: Any) -> str:
    return reverse(f"admin:{name}", args=args)


def last_entry() -> AuditEntry:
    entry = AuditEntry.objects.everywhere().order_by("-pk").first()
    assert entry is not None
    return entry


def done(browser: Client, address: str, **fields: Any) -> Any:
    """Ask, look that nothing has happened, then confirm."""
    entries = AuditEntry.objects.everywhere().count()
    asked = browser.post(address, fields) if fields else browser.get(address)
    assert asked.status_code == 200, asked.content.decode()
    assert 'name="confirmed"' in asked.content.decode()
    assert AuditEntry.objects.everywhere().count() == entries, "nothing is done before it is asked"
    return browser.post(address, {**fields, "confirmed": "yes"})


def every_page(person: Person) -> list[str]:
    """The address of every page of the console there is, with something on it."""
    home = person.workspace
    money = quota(home, Dimension.COST_PER_DAY, 1_000)
    raised = override(money, 2_000)
    # Somebody drives it, so that the driver of a live server leaves it alone.
    later = timezone.now() + timedelta(hours=1)
    run = a_run(home, status="running", lease_owner="worker-1", lease_until=later)
    admitted(home, subject=run.pk)
    key = ApiKey.objects.in_workspace(home).get()
    price = ModelPrice.objects.create(model="openai/gpt-4o", input=1, output=2)
    paused = PausedModel.objects.create(model="openai/*", reason="slow")
    entry = AuditEntry.objects.create(
        actor="a", action="x.y", object_type="t", object_id="1", object_name="n", workspace=home
    )
    # A workspace's last owner cannot be deleted.
    leaving = User.objects.create_user("leaving")
    membership = Membership.objects.in_workspace(home).get()
    counter = Counter.objects.in_workspace(home).get(window="")
    reservation = Reservation.objects.in_workspace(home).get()
    return [
        page("index"),
        page("workspaces_workspace_changelist"),
        page("workspaces_workspace_add"),
        page("workspaces_workspace_change", home.pk),
        page("workspaces_workspace_pause", home.pk),
        page("workspaces_workspace_resume", home.pk),
        page("workspaces_workspace_delete_all", home.pk),
        page("workspaces_workspace_add_member", home.pk),
        page("workspaces_workspace_role", membership.pk),
        page("workspaces_workspace_remove_member", membership.pk),
        page("workspaces_apikey_changelist"),
        page("workspaces_apikey_change", key.pk),
        page("workspaces_apikey_revoke", key.pk),
        page("workspaces_apikey_rotate", key.pk),
        page("workspaces_quotaoverride_changelist"),
        page("workspaces_quotaoverride_change", raised.pk),
        page("workspaces_quotaoverride_raise", money.pk),
        page("workspaces_quotaoverride_end", raised.pk),
        page("workspaces_reservation_changelist"),
        page("workspaces_reservation_change", reservation.pk),
        page("workspaces_counter_changelist"),
        page("workspaces_counter_change", counter.pk),
        page("workspaces_counter_recount", counter.pk),
        page("workspaces_auditentry_changelist"),
        page("workspaces_auditentry_change", entry.pk),
        page("orchestration_run_changelist"),
        page("orchestration_run_change", run.pk),
        page("orchestration_run_live"),
        page("orchestration_run_stop", run.pk),
        page("orchestration_pausedmodel_changelist"),
        page("orchestration_pausedmodel_change", paused.pk),
        page("orchestration_pausedmodel_pause"),
        page("orchestration_pausedmodel_resume", paused.pk),
        page("orchestration_pausedmodel_providers"),
        page("orchestration_modelprice_changelist"),
        page("orchestration_modelprice_change", price.pk),
        page("orchestration_modelprice_table"),
        page("orchestration_modelprice_set"),
        page("orchestration_modelprice_give_back"),
        page("auth_user_changelist"),
        page("auth_user_add"),
        page("auth_user_change", person.user.pk),
        page("auth_user_password_change", person.user.pk),
        page("auth_user_delete", leaving.pk),
        page("auth_group_changelist"),
        page("auth_group_add"),
    ]
