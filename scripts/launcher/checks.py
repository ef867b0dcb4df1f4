"""``./rex check``: every checker runs, and all their complaints are shown."""

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher import go_build, prepare
from launcher.layout import Layout
from launcher.steps import say


@dataclass(frozen=True, slots=True)
class Check:
    """A checker: it passes when it exits 0 and, if ``silent``, prints nothing."""

    name: str
    command: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    silent: bool = False


def check(layout: Layout) -> int:
    """Exit code 1 when any checker complains."""
    prepare.for_checking(layout)
    failed = [each.name for each in checks(layout) if not _passes(each)]
    say(f"\n{'FAILED  check: ' + ', '.join(failed) if failed else 'passed  check'}")
    return int(bool(failed))


def checks(layout: Layout) -> tuple[Check, ...]:
    tool = go_build.go(layout)
    python_env = dict(os.environ) | {"REX_SECRET_KEY": "only-for-checks"}
    python_env.pop("REX_SECRET_KEY_FILE", None)
    scripts, python = layout.venv / "bin", str(layout.python)
    go, go_env = str(tool.command), dict(tool.env)
    formatter = str(Path(_go_root(go, go_env)) / "bin" / "gofmt")
    linter = (go, "tool", "-modfile=../tools/go.mod", "golangci-lint", "run")
    rows = (
        ("ruff check", (python, "-m", "ruff", "check", "--quiet", "."), False),
        ("ruff format", (python, "-m", "ruff", "format", "--check", "."), False),
        ("mypy", (python, "-m", "mypy"), False),
        ("import-linter", (str(scripts / "lint-imports"), "--no-cache"), False),
        ("gofmt", (formatter, "-l", "."), True),
        ("go vet", (go, "vet", "./..."), False),
        ("golangci-lint", linter, False),
    )
    first_of_go = 4
    return tuple(
        Check(name, command, layout.go_service, go_env, silent)
        if position >= first_of_go
        else Check(name, command, layout.root, python_env, silent)
        for position, (name, command, silent) in enumerate(rows)
    )


def _go_root(go: str, env: Mapping[str, str]) -> str:
    done = subprocess.run(
        [go, "env", "GOROOT"], env=dict(env), capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _passes(check: Check) -> bool:
    started = time.monotonic()
    done = subprocess.run(
        check.command,
        cwd=check.cwd,
        env=dict(check.env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    passed = done.returncode == 0 and not (check.silent and done.stdout.strip())
    took_s = time.monotonic() - started
    say(f"{'passed' if passed else 'FAILED'}  {check.name} ({took_s:.1f} s)")
    if not passed:
        print(done.stdout, flush=True)
    return passed
