"""``./rex`` as a person types it: exit codes and sentences, never a traceback."""

import os
import subprocess
from pathlib import Path

import pytest

from launcher.cli import main
from launcher.layout import Layout
from launcher.suites import test_environment as environment_of_tests


def _rex(checkout: Path, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [checkout / "rex", *arguments],
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_names_every_command(checkout: Path) -> None:
    done = _rex(checkout, "help")
    assert done.returncode == 0
    for command in ("up", "ask", "test", "check", "bench", "manage"):
        assert f"\n    {command} " in done.stdout


def test_the_launcher_is_found_through_a_link(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "rex").symlink_to(checkout / "rex")
    assert _rex(tmp_path, "help").returncode == 0


def test_without_a_python_that_is_new_enough_it_says_so(checkout: Path, tmp_path: Path) -> None:
    for tool in ("sh", "dirname", "readlink"):
        (tmp_path / tool).symlink_to(f"/bin/{tool}" if tool == "sh" else f"/usr/bin/{tool}")
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = _rex(checkout, "up", PATH=str(tmp_path))
    assert done.returncode == 1
    assert "needs Python 3.11" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nonsense",), "There is no command nonsense. Known: up, ask, test,"),
        (("--nonsense",), "unknown arguments: --nonsense"),
        (("up", "--port", "http"), "is not a port"),
        (("up", "--model", "gpt-9"), "invalid choice"),
        (
            ("test", "--without", "everything"),
            "the suites are browser, go, litellm, localmodel, postgresql, redis",
        ),
        (("ask",), "Give a question"),
        (("ask", "a", "--file", "-"), "Give one of the two"),
        (("ask", "a", "--file", "/nowhere"), "Give one of the two"),
        (("ask", "--file", "/tmp"), "/tmp is a directory"),
        (("ask", "a", "--models", ""), "--models names no model"),
        (("ask", "a", "--models", " ,"), "--models names no model"),
        (("ask", "a\udc80b"), "The question is not UTF-8"),
        (("ask", "a", "--models", "m/\udcff"), "--models is not UTF-8"),
        (("ask", "a", "--pipeline", "\udcff"), "--pipeline is not UTF-8"),
        (("ask", "  "), "The question is empty"),
        (("ask", "--file", "/nowhere/at/all"), "There is no file"),
        (("ask", "a", "--json", "--ndjson"), "not allowed with"),
        (("check", "--fast"), "usage: ./rex check"),
        (("up", "now"), "unknown arguments: now"),
        (("bench", "nothing"), "There is no benchmark"),
    ],
)
def test_wrong_arguments_exit_with_2_and_say_what_is_wrong(
    layout: Layout,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.setenv("REX_STATE_DIR", str(layout.state))
    try:
        code: object = main(arguments)
    except SystemExit as ended:
        code = ended.code
    output = capsys.readouterr()
    assert code == 2
    assert said in output.err
    assert output.out == ""


@pytest.mark.parametrize("below", ["", "state"])
def test_a_state_directory_that_cannot_be_one_is_said_in_words(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    below: str,
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REX_STATE_DIR", str(tmp_path / "file" / below))
    assert main(["bench"]) == 1
    said = capsys.readouterr().err
    assert str(tmp_path / "file") in said
    assert "Set REX_STATE_DIR to a directory" in said


def test_an_error_of_the_system_is_said_in_words(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REX_STATE_DIR", str(layout.state))
    (layout.logs / "a").write_text("")
    monkeypatch.setattr("launcher.cli.bench.bench", lambda *_: (layout.logs / "a").mkdir())
    assert main(["bench"]) == 1
    said = capsys.readouterr().err
    assert "File exists" in said
    assert str(layout.logs / "a") in said


def test_no_suite_sees_the_key_of_a_real_provider(layout: Layout) -> None:
    env = environment_of_tests(
        layout,
        {"OPENAI_API_KEY": "sk", "GEMINI_API_KEY_FILE": "/k", "REX_MODELS": "a", "PATH": "/bin"},
    )
    assert env.keys() == {"PATH", "REX_SECRET_KEY", "REX_STATE_DIR"}
