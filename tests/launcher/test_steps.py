"""A step says how it ended, and a tool that does not start is named."""

from pathlib import Path

import pytest

from launcher.failure import Failed
from launcher.layout import Layout
from launcher.steps import run_tool, step
from launcher.supervise import Stopped


@pytest.mark.parametrize(
    ("error", "said"),
    [(Failed("x"), "failed"), (KeyboardInterrupt(), "stopped"), (Stopped(2), "stopped")],
)
def test_a_step_tells_an_interruption_from_a_failure(
    capsys: pytest.CaptureFixture[str], error: BaseException, said: str
) -> None:
    with pytest.raises(type(error)), step("Installing"):
        raise error
    assert capsys.readouterr().err == f"  Installing … {said}\n"


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_tool_that_does_not_start_says_what_to_delete(layout: Layout, damage: str) -> None:
    tool = layout.tools / "uv" / "bin" / "uv"
    if damage == "cut":
        tool.parent.mkdir(parents=True)
        tool.write_bytes(b"\x7fELF")
        tool.chmod(0o755)
    with pytest.raises(Failed, match="does not start") as failed:
        run_tool(layout, "Installing", [tool, "sync"], cwd=Path("/"))
    assert failed.value.advice == f"Delete {layout.tools} and run the same command again."
