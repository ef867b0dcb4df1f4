"""LiteLLM's proxy is installed once, apart from Rex, and anew when its lock changes."""

from pathlib import Path
from typing import Any

import pytest

from launcher import litellm_proxy, python_env
from launcher.failure import Failed
from launcher.layout import Layout


@pytest.fixture
def installed(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where environments were made, each time one was. What an ``absent.whl`` in the checkout
    stands for cannot be had; else every other command does nothing."""
    made: list[Path] = []

    def run_tool(_: Layout, _what: str, command: list[Any], **_options: Any) -> str:
        if "venv" in command:
            made.append(command[-1])
            command[-1].mkdir(parents=True, exist_ok=True)
            (command[-1] / "stamp").unlink(missing_ok=True)
        elif (layout.root / "absent.whl").exists():
            raise Failed("Installing failed.", "network is unreachable")
        return ""

    monkeypatch.setattr(python_env, "run_tool", run_tool)
    monkeypatch.setattr(python_env, "uv", lambda _: Path("uv"))
    monkeypatch.setattr(python_env, "uv_environ", lambda _: {})
    (layout.requirements / "litellm-proxy.lock").write_text("litellm==1\n")
    return made


def test_it_is_installed_the_first_time_alone(layout: Layout, installed: list[Path]) -> None:
    program = litellm_proxy.find(layout)
    assert litellm_proxy.find(layout) == program
    assert installed == [layout.tools / "litellm-proxy"]
    assert program == installed[0] / "bin" / "litellm"
    assert not program.is_relative_to(layout.venv)


def test_a_changed_lock_installs_it_anew(layout: Layout, installed: list[Path]) -> None:
    litellm_proxy.find(layout)
    (layout.requirements / "litellm-proxy.lock").write_text("litellm==2\n")
    litellm_proxy.find(layout)
    assert len(installed) == 2


def test_what_was_not_installed_to_the_end_is_installed_again(
    layout: Layout, installed: list[Path]
) -> None:
    absent = layout.root / "absent.whl"
    absent.touch()
    with pytest.raises(Failed, match="could not be installed") as failed:
        litellm_proxy.find(layout)
    assert "--without litellm" in failed.value.advice
    assert "unreachable" in failed.value.detail
    absent.unlink()
    litellm_proxy.find(layout)
    assert len(installed) == 2
