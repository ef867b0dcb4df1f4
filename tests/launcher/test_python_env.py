"""The environment is made, kept, raised to a higher level, or made anew after an interruption."""

import json
from pathlib import Path
from typing import Any

import pytest

from launcher import python_env
from launcher.layout import Layout

Commands = list[list[str]]


@pytest.fixture
def commands(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """What would be run; a venv that is 'made' gets a Python that starts."""
    ran: Commands = []

    def run_tool(_: Layout, _what: str, command: list[Any], **_options: Any) -> str:
        ran.append([Path(str(part)).name for part in command])
        if "venv" in ran[-1]:
            layout.python.parent.mkdir(parents=True, exist_ok=True)
            layout.python.unlink(missing_ok=True)
            layout.python.symlink_to("/bin/true")
        return ""

    monkeypatch.setattr(python_env, "run_tool", run_tool)
    monkeypatch.setattr(python_env, "uv", lambda _: Path("uv"))
    monkeypatch.setattr(python_env, "uv_environ", lambda _: {})
    for level in python_env.LEVELS:
        (layout.requirements / f"{level}.lock").write_text(f"{level}==1\n")
    return ran


def _synced(commands: Commands) -> list[str]:
    return [command[-1] for command in commands if "sync" in command]


def test_the_first_preparation_makes_and_fills_it(layout: Layout, commands: Commands) -> None:
    python_env.prepare(layout, "run")
    assert "venv" in commands[0]
    assert _synced(commands) == ["run.lock"]


def test_a_second_preparation_does_nothing(layout: Layout, commands: Commands) -> None:
    python_env.prepare(layout, "run")
    commands.clear()
    python_env.prepare(layout, "run")
    assert commands == []


def test_a_lower_level_keeps_what_a_higher_one_installed(
    layout: Layout, commands: Commands
) -> None:
    python_env.prepare(layout, "check")
    commands.clear()
    python_env.prepare(layout, "run")
    assert commands == []


def test_a_changed_lock_is_synced_into_the_same_environment(
    layout: Layout, commands: Commands
) -> None:
    python_env.prepare(layout, "test")
    commands.clear()
    (layout.requirements / "test.lock").write_text("test==2\n")
    python_env.prepare(layout, "run")
    assert _synced(commands) == ["test.lock"]
    assert not any("venv" in command for command in commands)


def test_an_interrupted_environment_is_made_anew(layout: Layout, commands: Commands) -> None:
    python_env.prepare(layout, "run")
    (layout.venv / "rex-stamp.json").unlink()
    commands.clear()
    python_env.prepare(layout, "run")
    assert "--clear" in commands[0]
    assert _synced(commands) == ["run.lock"]


def test_an_environment_whose_python_is_gone_is_made_anew(
    layout: Layout, commands: Commands
) -> None:
    python_env.prepare(layout, "run")
    layout.python.unlink()
    layout.python.symlink_to("/nowhere/python3")
    commands.clear()
    python_env.prepare(layout, "run")
    assert "--clear" in commands[0]


@pytest.fixture
def package(layout: Layout, commands: Commands) -> Path:
    """The one module of a package that was installed, with the list it came with."""
    site = layout.venv / "lib" / "python3.11" / "site-packages"
    for folder in ("pkg", "pkg-1.dist-info"):
        (site / folder).mkdir(parents=True)
    module = site / "pkg" / "__init__.py"
    module.write_text("x = 1\n")
    record = f"pkg/__init__.py,sha256=abc,{module.stat().st_size}\npkg-1.dist-info/RECORD,,\n"
    (site / "pkg-1.dist-info" / "RECORD").write_text(record)
    python_env.prepare(layout, "run")
    commands.clear()
    return module


def test_an_undamaged_environment_is_left_alone(
    layout: Layout, commands: Commands, package: Path
) -> None:
    (package.parent / "__pycache__").mkdir()
    python_env.prepare(layout, "run")
    assert commands == []


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_damaged_environment_is_made_anew_once(
    layout: Layout,
    commands: Commands,
    package: Path,
    damage: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    package.unlink() if damage == "gone" else package.write_text("")
    python_env.prepare(layout, "run")
    assert "--clear" in commands[0]
    assert _synced(commands) == ["run.lock"]
    assert "pkg/__init__.py" in capsys.readouterr().err
    # The installer of this test brings nothing: what it cannot repair is not tried for ever.
    commands.clear()
    python_env.prepare(layout, "run")
    assert commands == []


def test_a_sync_that_fails_leaves_no_stamp(
    layout: Layout, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    python_env.prepare(layout, "run")
    (layout.requirements / "run.lock").write_text("run==2\n")

    def fail(*_: Any, **__: Any) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(python_env, "run_tool", fail)
    with pytest.raises(OSError, match="disk full"):
        python_env.prepare(layout, "run")
    assert not (layout.venv / "rex-stamp.json").exists()


def test_the_stamp_names_level_and_lock(layout: Layout, commands: Commands) -> None:
    python_env.prepare(layout, "test")
    stamp = json.loads((layout.venv / "rex-stamp.json").read_text())
    assert stamp["level"] == "test"
    assert len(stamp["digest"]) == 64
