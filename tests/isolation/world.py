"""Two workspaces full of everything, whose every text and id says which of the two it is of.

A text of home begins with ``canary-of-home``; what it is stands behind it, so that a test can say
both "nothing of home is here" and "the prompt of home is here".
"""

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from django.contrib.auth.models import User
from django.core.management import call_command
from django.db.models import Model
from django.utils import timezone

from orchestration.domain.run import RunStatus
from orchestration.fanout.scripted import ScriptedClient
from orchestration.models import Call, Run, RunEvent, Synthesis
from tests.conftest import Person
from tests.runs import THREE, answers, drive, make_run, said
from tests.used_runs import call, draft, failed, used_run
from workspaces.domain.quotas import Dimension
from workspaces.models import (
    ApiKey,
    AuditEntry,
    Counter,
    Invitation,
    Lease,
    Membership,
    Profile,
    Quota,
    QuotaOverride,
    Reservation,
    Workspace,
)

UNKNOWN = UUID("7d1f7c55-3c1e-4b52-8f4e-0d3f0c8b5a11")
UNKNOWN_NUMBER = 999_999_999


@dataclass(slots=True)
class Place:
    """A workspace and all there is of it.

    ``ids`` are what an address can name, by the parameter of the route or, for the console, by the
    model. ``first_number`` begins the numbers of its rows, which occur nowhere else in a page.
    """

    canary: str
    first_number: int
    workspace: Workspace
    owner: Person
    member: Person
    viewer: Person
    by_scope: dict[str, str]
    ids: dict[str, Any]
    secrets: list[str]
    run: Run
    begun: Run

    def text(self, what: str) -> str:
        return f"{self.canary} {what}"

    @property
    def marks(self) -> list[str]:
        """Whatever must not be read by others: the canary, ids, secrets, but no small numbers."""
        runs = Run.objects.in_workspace(self.workspace).values_list("pk", flat=True)
        keys = ApiKey.objects.in_workspace(self.workspace).values_list("public", flat=True)
        reservations = Reservation.objects.in_workspace(self.workspace).values_list("pk", flat=True)
        found = [self.canary, str(self.workspace.pk), *map(str, runs), *keys]
        return [*found, *map(str, reservations), *self.numbers, *self.secrets]

    @property
    def numbers(self) -> list[str]:
        return [
            str(value)
            for value in self.ids.values()
            if isinstance(value, int) and value >= self.first_number
        ]

    def rows(self) -> dict[str, list[Any]]:
        """Every row of the workspace as it is now."""
        of_it: dict[type[Model], dict[str, Any]] = {
            Workspace: {"pk": self.workspace.pk},
            User: {"memberships__workspace": self.workspace},
            Profile: {"user__memberships__workspace": self.workspace},
            QuotaOverride: {"quota__workspace": self.workspace},
            Lease: {"reservation__workspace": self.workspace},
            **{model: {"run__workspace": self.workspace} for model in (Call, Synthesis, RunEvent)},
            **{
                model: {"workspace": self.workspace}
                for model in (Membership, Invitation, ApiKey, Quota, Reservation, Counter)
            },
            AuditEntry: {"workspace": self.workspace},
            Run: {"workspace": self.workspace},
        }
        return {
            model._meta.label: list(
                model._default_manager.filter(**wanted).order_by("pk").values_list()
            )
            for model, wanted in of_it.items()
        }


def make_place(name: str, first_number: int) -> Place:
    """``name`` is a word of small letters; the numbers of its rows begin with ``first_number``."""
    canary = f"canary-of-{name}"
    numbers = iter(range(first_number, first_number + 1000))
    workspace = Workspace.objects.create(
        slug=f"{canary}-slug",
        name=f"{canary} workspace-name",
        paused_reason=f"{canary} paused-reason",
        allow_unpriced=True,
    )
    ids: dict[str, Any] = {"workspace_id": workspace.pk, "workspaces.workspace": workspace.pk}
    secrets: list[str] = []

    def key(what: str, **fields: Any) -> tuple[ApiKey, str]:
        number = next(numbers)
        secret = f"canary-secret-of-{name}-{number}".ljust(43, "x")
        row = ApiKey.objects.create(
            pk=number,
            workspace=workspace,
            name=f"{canary} {what}",
            # Of letters and figures alone, as the public part of a key is.
            public=f"{name[:3]}{number}".ljust(12, "z")[:12],
            secret_sha256=hashlib.sha256(secret.encode()).hexdigest(),
            created_by=f"{canary} key-made-by",
            **{"scopes": list(ApiKey.Scope.values), **fields},
        )
        secrets.append(secret)
        return row, f"sk-rex-{row.public}-{secret}"

    def person(what: str, role: str) -> Person:
        user = User.objects.create_user(
            pk=next(numbers),
            username=f"{canary}-{what}",
            email=f"{canary}@{what}.example",
            password=f"canary-password-of-{name}-{what}",
            first_name=canary,
        )
        Profile.objects.create(user=user, theme="dark", language="en")
        secrets.append(f"canary-password-of-{name}-{what}")
        ids[f"membership of {what}"] = Membership.objects.create(
            pk=next(numbers), workspace=workspace, user=user, role=role
        ).pk
        return Person(user, workspace, key(f"key-of-{what}")[1])

    owner = person("owner", Membership.Role.OWNER)
    member = person("member", Membership.Role.MEMBER)
    viewer = person("viewer", Membership.Role.VIEWER)
    now = timezone.now()
    live, _ = key("key-name")
    key("key-revoked", revoked_at=now)
    key("key-expired", expires_at=now - timedelta(days=1), replaced_by=live)
    by_scope = {each: key(f"key-{each}", scopes=[each])[1] for each in ApiKey.Scope.values}

    def invitation(token: str, **fields: Any) -> Invitation:
        secrets.append(token)
        return Invitation.objects.create(
            pk=next(numbers), workspace=workspace, note=f"{canary} invitation-note",
            token_sha256=hashlib.sha256(token.encode()).hexdigest(),
            created_by=f"{canary} invited-by", expires_at=now + timedelta(days=1), **fields,
        )  # fmt: skip

    token, past = (f"canary-token-of-{name}-{what}".ljust(43, "t") for what in ("open", "past"))
    invited = invitation(token)
    invitation(past, withdrawn_at=now)

    def quota(dimension: Dimension, limit: int, **of: Any) -> Quota:
        return Quota.objects.create(
            pk=next(numbers), workspace=workspace, dimension=dimension, limit=limit, **of
        )

    tokens = quota(Dimension.TOKENS_PER_DAY, 10**9)
    quota(Dimension.FANOUT_WIDTH, 8, api_key=live)
    quota(Dimension.CONCURRENT_RUNS, 1000, pipeline=f"{canary} pipeline-of-quota")
    override = QuotaOverride.objects.create(
        pk=next(numbers), quota=tokens, limit=10**10, reason=f"{canary} override-reason",
        created_by=f"{canary} override-by", expires_at=now + timedelta(days=1),
    )  # fmt: skip
    entry = AuditEntry.objects.create(
        pk=next(numbers), workspace=workspace, actor=f"{canary} audit-actor", action="key.issued",
        object_type="workspaces.ApiKey", object_id=str(live.pk),
        object_name=f"{canary} audit-object", before={"name": f"{canary} audit-before"},
        after={"name": f"{canary} audit-after"}, request_id=f"{canary}-audit-request",
    )  # fmt: skip

    # Else the first reservation would make it, with a small number.
    counter = Counter.objects.create(pk=next(numbers), workspace=workspace)
    run = _run(owner, canary)
    begun = _begun(owner, canary)
    _others(workspace, canary)
    reservation = Reservation.objects.in_workspace(workspace).get(subject=begun.pk)
    return Place(
        canary=canary,
        first_number=first_number,
        workspace=workspace,
        owner=owner,
        member=member,
        viewer=viewer,
        by_scope=by_scope,
        secrets=secrets,
        run=run,
        begun=begun,
        ids=ids
        | {
            "run_id": run.pk,
            "membership_id": ids["membership of viewer"],
            "invitation_id": invited.pk,
            "public": live.public,
            # Whoever holds a link may use it, of whatever workspace: only one that is over is
            # none of theirs.
            "token": past,
            "open token": token,
            "workspaces.membership": ids["membership of viewer"],
            "workspaces.apikey": live.pk,
            "workspaces.quota": tokens.pk,
            "workspaces.quotaoverride": override.pk,
            "workspaces.auditentry": entry.pk,
            "workspaces.reservation": reservation.pk,
            "workspaces.counter": counter.pk,
            "orchestration.run": run.pk,
            "auth.user": viewer.user.pk,
        },
    )


def _run(person: Person, canary: str) -> Run:
    """A run that models have answered, to its end, and whose rows have all the texts there are."""
    scripts = answers(
        A=said(f"{canary} said-by-a. Lists in Python are mutable sequences of objects."),
        **{"*": said(f"{canary} synthesis. Lists are mutable. [A][B]")},
    )
    asked = make_run(person, prompt=f"{canary} prompt", idempotency_key=f"{canary}-idempotency-key")
    run = asyncio.run(drive(asked, ScriptedClient(scripts, speed=50)))
    assert run.status == RunStatus.DONE, run.reason
    call = run.calls.get(label="B")
    call.state, call.reason = "failed", "upstream.error"
    call.message = f"{canary} call-message"
    call.price = {"version": f"{canary} price", "input": 1, "output": 1, "cached_input": None}
    call.save()
    run.settings["titles"] = {THREE[2]: f"{canary} title"}
    run.request_id = f"{canary}-request"
    run.save(update_fields=["settings", "request_id"])
    return run


def _begun(person: Person, canary: str) -> Run:
    """A run under way, which holds a reservation, and which nobody drives."""
    run = make_run(person, prompt=f"{canary} prompt-of-what-runs")
    later = timezone.now() + timedelta(hours=1)
    Run.objects.in_workspace(person.workspace).filter(pk=run.pk).update(
        status=RunStatus.RUNNING, lease_owner=f"{canary} driver", lease_until=later,
    )  # fmt: skip
    return run


def _others(workspace: Workspace, canary: str) -> None:
    now = timezone.now()
    for status in RunStatus:
        used_run(
            workspace,
            call(f"local/{canary}-model", text=f"{canary} text", message=f"{canary} message"),
            failed(f"local/{canary}-model", message=f"{canary} failure"),
            drafts=(
                draft(f"local/{canary}-editor", text=f"{canary} draft",
                      blocks=[{"id": "b1", "md": f"{canary} block", "sources": []}]),
            ),
            prompt=f"{canary} prompt-{status}",
            answer=f"{canary} answer",
            at=now - timedelta(minutes=1),
            status=status,
            pipeline=f"{canary}-pipeline",
            started_by=f"{canary} started-by",
            synthesizer=f"local/{canary}-editor",
            settings={"policy": {}, "titles": {f"local/{canary}-model": f"{canary} title"}},
            seed=f"{canary}-seed",
            lease_until=now + timedelta(hours=1),
            lease_owner=f"{canary} driver",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class World:
    """``home`` is where Bob and Vera are members, ``elsewhere`` is Charlie's."""

    home: Place
    elsewhere: Place

    def other(self, place: Place) -> Place:
        return self.elsewhere if place is self.home else self.home


def make_world() -> World:
    return World(make_place("home", 710_000_000), make_place("elsewhere", 820_000_000))


def sweep_up() -> None:
    call_command("flush", verbosity=0, interactive=False)


def unknown_ids() -> dict[str, Any]:
    """For every parameter an id of the right form that nothing has."""
    numbers = dict.fromkeys(
        ("membership_id", "invitation_id", "workspaces.membership", "workspaces.apikey",
         "workspaces.quota", "workspaces.quotaoverride", "workspaces.auditentry",
         "workspaces.counter", "auth.user", "auth.group", "orchestration.pausedmodel",
         "orchestration.modelprice"),
        UNKNOWN_NUMBER,
    )  # fmt: skip
    uuids = dict.fromkeys(
        ("run_id", "workspace_id", "workspaces.workspace", "workspaces.reservation",
         "orchestration.run"),
        UNKNOWN,
    )  # fmt: skip
    return numbers | uuids | {"public": "a" * 12, "token": "u" * 43}


def fresh_id() -> UUID:
    return uuid4()
