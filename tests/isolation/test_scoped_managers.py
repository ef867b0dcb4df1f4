"""Rows of a workspace are reached by their workspace: in the code, not only in what it answers.

A query past it is written with ``everywhere()``, which only the files named here may call, each for
the reason that stands beside it.
"""

import ast
from collections.abc import Iterator
from functools import cache

import pytest
from django.apps import apps
from django.db.models import Model

from orchestration.models import Call, RunEvent, Synthesis
from tests.docs.markdown import ROOT
from workspaces.models import Lease, Profile, QuotaOverride, Scoped, Workspace

CONSOLE = "The admin console, which lets in operators alone, serves all workspaces."
DRIVER = "The driver serves all workspaces; it knows a run by its id and its fence."
SECRET = "Who asks is found by a secret, and their workspace only with it."
SWEEP = "A sweep over what all workspaces left behind."

EVERYWHERE = {
    "orchestration/actions/claim_runs.py": DRIVER,
    "orchestration/actions/give_up_run.py": DRIVER,
    "orchestration/actions/record_event.py": DRIVER,
    "orchestration/actions/settle_orphans.py": SWEEP,
    "orchestration/admin/queries.py": CONSOLE,
    "orchestration/driving/load.py": DRIVER,
    "orchestration/recordings.py": "Their door is plan_run, which takes those of the caller alone.",
    "rexsite/admin_site.py": CONSOLE,
    "workspaces/access.py": SECRET,
    "workspaces/actions/settle.py": DRIVER,
    "workspaces/admin/audit.py": CONSOLE,
    "workspaces/admin/ledger.py": CONSOLE,
    "workspaces/admin/members.py": CONSOLE,
    "workspaces/admin/overrides.py": CONSOLE,
    "workspaces/admin/quotas.py": CONSOLE,
    "workspaces/admin/standings.py": CONSOLE,
    "workspaces/invitations.py": SECRET,
    "workspaces/members.py": CONSOLE,
    "workspaces/management/commands/revoke_key.py": "Whoever runs commands has the database.",
}

# What has no workspace of its own, and through which field it is reached.
HANGS_OFF: dict[type[Model], str] = {
    Call: "run",
    RunEvent: "run",
    Synthesis: "run",
    Lease: "reservation",
    QuotaOverride: "quota",
    Profile: "user",
}
# Where it is not: (model, file).
NOT_BY_PARENT = {
    ("QuotaOverride", "workspaces/limits.py"): "Read ahead for the quotas of one workspace.",
    ("QuotaOverride", "workspaces/admin/standings.py"): CONSOLE,
    ("QuotaOverride", "workspaces/admin/overrides.py"): CONSOLE,
    ("Call", "orchestration/admin/queries.py"): CONSOLE,
}
# Of nobody's workspace: what holds for all of Rex.
OF_ALL = {"ModelPrice", "PausedModel", "Workspace", "User"}

# Rows that are handed over whole need no look-up.
WRITES = {"create", "bulk_create", "bulk_update"}


@cache
def code() -> dict[str, ast.Module]:
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for package in ("rexsite", "workspaces", "orchestration", "evals")
        for path in sorted((ROOT / package).rglob("*.py"))
        if "migrations" not in path.parts
    }


def ours() -> list[type[Model]]:
    return [
        model
        for label in ("workspaces", "orchestration")
        for model in apps.get_app_config(label).get_models()
    ]


def uses() -> Iterator[tuple[str, str, str, set[str]]]:
    """(file, model, method, names of its arguments) wherever a manager of ours is used."""
    names = {model.__name__ for model in ours()}
    for file, tree in code().items():
        chains = {
            id(child): parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)
        }
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Attribute) and node.attr in _MANAGERS):
                continue
            if not (isinstance(node.value, ast.Name) and node.value.id in names):
                continue
            method = chains[id(node)]
            called = chains[id(method)]
            assert isinstance(method, ast.Attribute), (
                f"{file}: {node.value.id} hands its manager on"
            )
            given = (
                {each.arg or "**" for each in called.keywords}
                if isinstance(called, ast.Call)
                else set()
            )
            yield file, node.value.id, method.attr, given


_MANAGERS = ("objects", "_default_manager", "_base_manager")


def test_every_model_is_known_here() -> None:
    scoped = {model.__name__ for model in ours() if _has_workspace(model)}
    hanging = {model.__name__ for model in HANGS_OFF}
    assert scoped | hanging | OF_ALL == {model.__name__ for model in ours()} | {"User"}


@pytest.mark.parametrize("model", [pytest.param(each, id=each.__name__) for each in ours()])
def test_every_model_with_a_workspace_is_reached_by_it(model: type[Model]) -> None:
    if _has_workspace(model):
        assert type(model._default_manager) is Scoped
        assert [manager.name for manager in model._meta.managers] == ["objects"]
    else:
        assert model in HANGS_OFF or model.__name__ in OF_ALL


def _has_workspace(model: type[Model]) -> bool:
    fields = model._meta.get_fields()
    return any(each.name == "workspace" and each.related_model is Workspace for each in fields)


def test_what_belongs_to_a_workspace_is_asked_for_by_workspace() -> None:
    scoped = {model.__name__ for model in ours() if _has_workspace(model)}
    seen = set()
    for file, model, method, _ in uses():
        if model in scoped:
            assert method in {"in_workspace", "everywhere"} | WRITES, f"{file}: {model}.{method}"
            seen.add(model)
    assert seen == scoped, "the search finds nothing of some of them: it is broken"


def test_what_hangs_off_such_a_row_is_only_reached_through_it() -> None:
    """``Call.objects.filter(pk=…)`` would find another workspace's."""
    parents = {model.__name__: parent for model, parent in HANGS_OFF.items()}
    others = set()
    for file, model, method, given in uses():
        if model not in parents or method in WRITES:
            continue
        parent = parents[model]
        if not any(name == f"{parent}_id" or name.split("__")[0] == parent for name in given):
            others.add((model, file))
    assert others == NOT_BY_PARENT.keys()


def test_only_files_that_serve_all_workspaces_reach_across_them() -> None:
    calling = {
        file
        for file, tree in code().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "everywhere"
    }
    assert calling == EVERYWHERE.keys()


def test_nothing_else_goes_around_the_managers() -> None:
    """A model that comes in a variable, or bare SQL, would go unseen by the tests above."""
    around = {
        (file, node.attr)
        for file, tree in code().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in ("_default_manager", "_base_manager", "raw", "extra", "get_model")
    }
    assert around == {("workspaces/admin/console.py", "_default_manager")}, CONSOLE


# Who may open a run's live text, its doorbell and its log by the bare id: those who were handed a
# run that was read in its workspace, or who drive it.
BY_BARE_ID = {
    "tails": {
        "orchestration/actions/drive_run.py",
        "orchestration/follow.py",
        "orchestration/queries.py",
        "orchestration/reader.py",
    },
    "follow": {"orchestration/consumers.py", "orchestration/events_api.py"},
    "readers_of": {"orchestration/actions/drive_run.py", "orchestration/follow.py",
                   "orchestration/queue.py"},
}  # fmt: skip


@pytest.mark.parametrize("name", BY_BARE_ID)
def test_live_text_is_opened_by_id_only_behind_a_look_up_in_the_workspace(name: str) -> None:
    importing = {
        file
        for file, tree in code().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and name in {each.name for each in node.names}
    }
    assert importing == BY_BARE_ID[name]
