"""A redis-server for the tests: the system's, else Debian's package, unpacked."""

import os
import re
import shutil
from functools import partial
from pathlib import Path

from launcher.debian_package import DebianPackage, can_unpack, unpacked
from launcher.failure import Failed
from launcher.layout import Layout
from launcher.steps import run_tool

# Valkey is what some systems ship in its place; to us it is the same.
_NAMES = ("redis-server", "valkey-server")
_ADVICE = (
    "Install Redis (Debian: apt install redis-server, macOS: brew install redis), set "
    "REX_REDIS_SERVER, or leave the tests that need it out: ./rex test --without redis"
)
_PACKAGE = DebianPackage(
    name="Redis",
    folder="redis",
    # In Debian the program of redis-server is a link into redis-tools.
    packages=("redis-server", "redis-tools"),
    programs=("usr/bin/redis-server",),
    why="Debian's package, unpacked for the tests; 7 MB on disk",
    advice=_ADVICE,
)


def find(layout: Layout) -> Path:
    """The path of a redis-server that runs; ``REX_REDIS_SERVER`` names one.

    Raises Failed in words.
    """
    named = os.environ.get("REX_REDIS_SERVER")
    if named:
        return _checked(layout, Path(named))
    for name in _NAMES:
        if system := shutil.which(name):
            return _checked(layout, Path(system))
    if not can_unpack():
        raise Failed("There is no redis-server on this machine.", advice=_ADVICE)
    return unpacked(layout, _PACKAGE, partial(_check_unpacked, layout)) / "redis-server"


def _check_unpacked(layout: Layout, folder: Path) -> None:
    _checked(layout, folder / "redis-server")


def _checked(layout: Layout, path: Path) -> Path:
    """``path`` if it is a redis-server that runs here."""
    try:
        said = run_tool(layout, "Starting redis-server", [path, "--version"])
    except Failed as failed:
        raise Failed(f"{path} does not run.", failed.detail, _ADVICE) from failed
    if not re.search(r"\b(redis|valkey) server v=", said, re.IGNORECASE):
        raise Failed(f"{path} is no redis-server.", advice=_ADVICE)
    return path
