"""A Go program is built when its sources or the program itself are not what they were."""

from pathlib import Path
from typing import Any

import pytest

from launcher import go_build
from launcher.layout import Layout

_PROGRAM = "fanout-service"


@pytest.fixture
def builds(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was built, by a compiler that writes what it is given."""
    built: list[str] = []

    def run_tool(_: Layout, what: str, command: list[Any], **_options: Any) -> str:
        built.append(what)
        Path(command[command.index("-o") + 1]).write_text("a program")
        return ""

    monkeypatch.setattr(go_build, "run_tool", run_tool)
    monkeypatch.setattr(go_build, "go", lambda _: go_build.Go(Path("go"), {}, "go1.26"))
    layout.go_service.mkdir(parents=True)
    (layout.go_service / "main.go").write_text("package main\n")
    go_build.build(layout, _PROGRAM)
    assert len(built) == 1
    built.clear()
    return built


def test_a_program_that_is_there_is_not_built_again(layout: Layout, builds: list[str]) -> None:
    go_build.build(layout, _PROGRAM)
    assert builds == []


@pytest.mark.parametrize("change", ["source", "damaged", "gone"])
def test_a_change_of_either_builds_it_again(layout: Layout, builds: list[str], change: str) -> None:
    program = layout.bin / _PROGRAM
    if change == "source":
        (layout.go_service / "main.go").write_text("package main // changed\n")
    elif change == "damaged":
        program.write_text("a progr")
    else:
        program.unlink()
    go_build.build(layout, _PROGRAM)
    assert builds == [f"Building {_PROGRAM}"]
    assert program.read_text() == "a program"
