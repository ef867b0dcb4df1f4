"""Who works in the admin console, and a workspace with something in it."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.contrib.auth.models import Permission, User
from django.db import transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from orchestration.models import Call, Run, RunEvent, Synthesis
from workspaces.actions.reserve import reserve
from workspaces.actions.settle import Charge, settle
from workspaces.domain.quotas import Dimension, Hold, Offer
from workspaces.models import ApiKey, AuditEntry, Quota, QuotaOverride, Workspace

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
