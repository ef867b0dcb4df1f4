"""The Python environment: uv out of a hash lock, then ``.venv`` out of another.

The three locks contain each other (run ⊂ test ⊂ check), so an environment has a level, and a
command that needs less than is installed changes nothing.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.failure import Failed
from launcher.layout import Layout
from launcher.pip_settings import uv_environment
from launcher.stamps import digest_of, replacing, stamped, write_stamp
from launcher.steps import run_tool, say, step, tool_environment
from launcher.wheel_records import damaged

LEVELS = ("run", "test", "check")
_WHY = {
    "run": "100 packages with the embedded model's weights; 300 MB the first time",
    "test": "the packages of the tests",
    "check": "the packages of the checkers",
}


def uv(layout: Layout) -> Path:
    """The path of a ready uv; installs the locked one the first time. Needs no root and no venv."""
    lock = layout.requirements / "boot.lock"
    target, digest = layout.tools / "uv", digest_of([lock])
    if not stamped(target / "stamp", digest):
        with step("Installing uv", "the package installer, 25 MB"), replacing(target) as fresh:
            _pip_install(layout, lock, fresh)
            write_stamp(fresh / "stamp", digest)
    return target / "bin" / "uv"


def _pip_install(layout: Layout, lock: Path, target: Path) -> None:
    python, scratch = Path(sys.executable), target / "venv"
    env = tool_environment(layout, os.environ) | {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
    if not _has_pip(python):
        try:
            run_tool(layout, "Making a first environment", [python, "-m", "venv", scratch], env=env)
        except Failed as failed:
            raise Failed(
                "This Python has neither pip nor venv, so nothing can be installed.",
                failed.detail,
                "Install one of them (Debian: apt install python3-pip, or python3-venv).",
            ) from failed
        python = scratch / "bin" / "python"
    command: list[str | Path] = [python, "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--no-input", "--no-deps", "--require-hashes", "--target", target, "-r", lock]
    run_tool(layout, "Installing uv", command, env=env)
    shutil.rmtree(scratch, ignore_errors=True)


def _has_pip(python: Path) -> bool:
    found = subprocess.run(
        [python, "-m", "pip", "--version"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return found.returncode == 0


def uv_environ(layout: Layout) -> dict[str, str]:
    """The environment for uv: the machine's pip configuration in uv's words."""
    env = tool_environment(layout, os.environ)
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return env | uv_environment(listed.stdout, env)


def prepare(layout: Layout, level: str) -> None:
    """Leaves ``.venv`` with at least the packages of ``level``, exactly as locked.

    An environment without a stamp was interrupted half way (or is not ours): it is made anew, and
    so is one that lost files since.
    """
    stamp = layout.venv / "rex-stamp.json"
    have = _read_stamp(stamp)
    if have and LEVELS.index(have["level"]) >= LEVELS.index(level):
        level = have["level"]
    lock = layout.requirements / f"{level}.lock"
    digest = digest_of([lock])
    usable = have is not None and _runs(layout.python) and _is_whole(layout, have)
    if usable and have and (have["level"], have.get("digest")) == (level, digest):
        return
    tool, env = uv(layout), uv_environ(layout)
    with step("Installing Python packages", _WHY[level]):
        if usable:
            stamp.unlink()
        else:
            _make_venv(layout, tool, env)
        sync: list[str | Path] = [
            tool,
            "pip",
            "sync",
            "--require-hashes",
            "--python",
            layout.python,
        ]
        run_tool(layout, "Installing Python packages", [*sync, lock], env=env)
        # What a fresh installation lacks by its own list, a repair would not bring either.
        facts = {"level": level, "digest": digest, "damaged": damaged(layout.venv)}
        write_stamp(stamp, json.dumps(facts))


def _is_whole(layout: Layout, have: Mapping[str, Any]) -> bool:
    """Whether the environment has all the files it had when its stamp was written."""
    lost = [name for name in damaged(layout.venv) if name not in have.get("damaged", ())]
    if lost:
        say(f"  The Python environment is damaged ({lost[0]}, {len(lost)} in all): made anew.")
    return not lost


def _make_venv(layout: Layout, tool: Path, env: Mapping[str, str]) -> None:
    command: list[str | Path] = [tool, "venv", "--clear", "--python", sys.executable, layout.venv]
    run_tool(layout, "Making the Python environment", command, env=env)


def _read_stamp(stamp: Path) -> dict[str, Any] | None:
    try:
        read = json.loads(stamp.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return read if isinstance(read, dict) and read.get("level") in LEVELS else None


def _runs(python: Path) -> bool:
    """Whether the environment's Python still starts: the one it was made from may be gone."""
    try:
        done = subprocess.run([python, "-c", ""], stdin=subprocess.DEVNULL, check=False)
    except OSError:
        return False
    return done.returncode == 0


def install_apart(layout: Layout, what: str, lock_name: str, target: Path) -> None:
    """A whole environment of its own in ``target``, exactly as locked, with a stamp when done."""
    tool, env = uv(layout), uv_environ(layout)
    # Made in its place, not beside it: the programs of an environment know where it is.
    venv: list[str | Path] = [tool, "venv", "--clear", "--python", sys.executable, target]
    run_tool(layout, what, venv, env=env)
    lock = layout.requirements / lock_name
    sync: list[str | Path] = [tool, "pip", "sync", "--require-hashes", "--python", target, lock]
    run_tool(layout, what, sync, env=env)
    write_stamp(target / "stamp", digest_of([lock]))


def install_wheels(layout: Layout, what: str, lock_name: str, target: Path) -> None:
    """The wheels of one lock, without dependencies, into a directory of their own."""
    command: list[str | Path] = [uv(layout), "pip", "install", "--python", layout.python]
    command += ["--no-deps", "--require-hashes", "--target", target]
    command += ["-r", layout.requirements / lock_name]
    run_tool(layout, what, command, env=uv_environ(layout))
