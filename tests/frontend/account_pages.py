"""The pages about people with everything on them, and with nothing."""

from datetime import UTC, datetime
from typing import Any

from django.contrib.auth.forms import PasswordChangeForm
from django.contrib.auth.models import User

from tests.frontend.conftest import Render
from workspaces.forms import InviteForm, IssueForm, QuotasForm, RegisterForm, RoleForm, RotateForm
from workspaces.models import Invitation, Membership, Workspace
from workspaces.words import DIMENSIONS, RIGHTS, ROLES, SCOPES, STATES

WHEN = datetime(2026, 11, 23, 12, 4, tzinfo=UTC)
WHOLE = "sk-rex-k3v9x0t3niz1-Vzd4oRNbzRYrGFl1UHdmi3tZ0BxyL0P4noCAUJvgW8s"
LONG = "averylongname" * 9


def _key(name: str, state: str, public: str) -> dict[str, Any]:
    return {
        "public": public,
        "name": name,
        "state": state,
        "state_word": STATES[state],
        "ended": state in ("expired", "revoked"),
        "rights": list(SCOPES.values()),
        "created_by": "alice",
        "created_at": WHEN,
        "last_used_at": WHEN if state != "expired" else None,
        "expires_at": WHEN if state != "active" else None,
        "revoked_at": WHEN if state == "revoked" else None,
        "successor": {"public": "a" * 12} if state == "replaced" else None,
    }


def _member(number: int, name: str, role: Membership.Role) -> dict[str, Any]:
    return {
        "id": number,
        "name": name,
        "own": number == 1,
        "role": ROLES[role],
        "rights": RIGHTS[role],
        "since": WHEN,
        "form": RoleForm(initial={"role": role}, auto_id=f"id_%s_{number}"),
    }


def _use(name: object, percent: int, **more: Any) -> dict[str, Any]:
    shown = {"taken": f"{percent:,}", "limit": "1,000,000"}
    return {"name": name, "percent": percent, **shown, **more}


def _bound(form: Any) -> Any:
    form.is_valid()
    return form


def account_pages(rendered: Render) -> dict[str, str]:
    """By path. Those of an owner, of a member, refused, and empty."""
    names = list(DIMENSIONS.values())
    workspace = Workspace(name=LONG)
    home = {"id": workspace.pk, "name": LONG, "chosen": True}
    places = [home, {"id": workspace.pk, "name": "Elsewhere", "chosen": False}]
    role = Membership.Role.OWNER
    memberships = [
        {"workspace": each, "role": ROLES[role], "rights": RIGHTS[role], "chosen": n}
        for each, n in ((workspace, True), (Workspace(name="Elsewhere"), False))
    ]
    members = [_member(1, "alice", role), _member(2, LONG, Membership.Role.VIEWER)]
    invitations = [
        {"id": 1, "note": note, "role": ROLES[role], "created_by": "alice", "expires_at": WHEN}
        for note in ("Dora", "")
    ]
    uses = [
        _use(names[0], 5),
        _use(names[2], 0, is_bound=True),
        _use(names[3], 99, renews_at=WHEN),
        _use(names[4], 100, limit="$12.50", renews_at=WHEN),
    ]
    invitation = Invitation(workspace=workspace)
    joining = {"invitation": invitation, "role": ROLES[role], "rights": RIGHTS[role]}
    live = [_key("nightly report", "active", "b" * 12), _key(LONG, "replaced", "c" * 12)]
    ended = [_key("old", "revoked", "d" * 12), _key("older", "expired", "e" * 12)]
    owner = {"may_manage": True, "places": places, "workspace": LONG}
    one = {"key": live[0], "rotate": RotateForm(), "quotas": QuotasForm({}), "may_change": True}
    limits = QuotasForm({}, {"tokens_per_day": "1.5", "requests_per_minute": "-1"})
    example = f'curl http://127.0.0.1:8000/api/run -H "Authorization: Bearer {WHOLE}"'
    asked: dict[str, tuple[str, dict[str, Any]]] = {
        "account": ("account", {"memberships": memberships, "places": places}),
        "account-empty": ("account", {"memberships": [], "workspace": None}),
        "leave": ("leave", {"leaving": workspace, "problem": "A workspace needs an owner."}),
        "members": (
            "members",
            {"members": members, "invitations": invitations, "form": InviteForm()}
            | {"workspace_id": workspace.pk}
            | owner,
        ),
        "members-refused": (
            "members",
            {"members": members, "invitations": [], "form": _bound(InviteForm({"role": "x"}))}
            | {"workspace_id": workspace.pk, "problem": "A workspace needs an owner."}
            | owner,
        ),
        "members-seen": ("members", {"members": members, "workspace_id": workspace.pk}),
        "member-remove": ("member_remove", {"member": Membership(user=User(username="bob"))}),
        "invited": (
            "invited",
            {"link": f"http://127.0.0.1:8000/join/{'x' * 43}/", "note": "Dora"}
            | {"role": ROLES[role], "expires_at": WHEN},
        ),
        "join": ("join", joining | {"form": RegisterForm(), "signed_in": False}),
        "join-refused": ("join", joining | {"form": _bound(RegisterForm({}))}),
        "join-as": ("join", joining),
        "join-member": ("join", joining | {"already": True}),
        "join-gone": ("join_gone", {"problem": "This invitation is no longer valid."}),
        "keys": ("keys", {"live": live, "ended": ended} | owner),
        "keys-empty": ("keys", {"live": [], "ended": []} | owner),
        "keys-seen": ("keys", {"live": live, "ended": []}),
        "key-new": ("key_new", {"form": IssueForm()}),
        "key-new-refused": ("key_new", {"form": _bound(IssueForm({}))}),
        "key-once": (
            "key_once",
            {"whole": WHOLE, "example": example, "key": live[0]}
            | {"replaced": {"public": "b" * 12, "expires_at": WHEN}},
        ),
        "key": ("key", one | {"uses": uses, "may_follow": True}),
        "key-refused": (
            "key",
            one | {"quotas": _bound(limits), "may_follow": True, "problem": "This key is revoked."},
        ),
        "key-replaced": ("key", one | {"key": live[1]}),
        "key-seen": ("key", {"key": live[0], "uses": []}),
        "key-revoke": ("key_revoke", {"key": live[0]}),
    }
    pages = {
        f"/{path}/": rendered(f"workspaces/{template}.html", context)
        for path, (template, context) in asked.items()
    }
    password = _bound(PasswordChangeForm(User(), {"new_password1": "a", "new_password2": "b"}))
    return pages | {
        "/password/": rendered("registration/password_change.html", {"form": password}),
        "/locked/": rendered("registration/locked.html", {"wait_s": 240, "signed_in": False}),
    }
