"""A redis-server for the tests: the system's, else Debian's package, unpacked below the toolchain.

Nothing is installed into the system, by root neither: the package would start a service, and tests
start servers of their own.
"""

import os
import re
import shutil
from pathlib import Path

from launcher.failure import Failed
from launcher.layout import Layout
from launcher.stamps import digest_of, one_at_a_time, replacing, stamped, write_stamp
from launcher.steps import run_tool, step, tool_environment

# Valkey is what some systems ship in its place; to us it is the same.
_NAMES = ("redis-server", "valkey-server")
# In Debian the program of redis-server is a link into redis-tools.
_PACKAGES = ("redis-server", "redis-tools")
# What was unpacked fits the libraries of this system, until it is upgraded.
_SYSTEM = Path("/etc/os-release")

_ADVICE = (
    "Install Redis (Debian: apt install redis-server, macOS: brew install redis), set "
    "REX_REDIS_SERVER, or leave the tests that need it out: ./rex test --without redis"
)
# Directories of our own, so that it needs no root and leaves the system's apt as it is.
_APT_SETTINGS = """Dir::Cache "{work}/cache";
Debug::NoLocking "true";
APT::Sandbox::User "";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""
_START = """#!/bin/sh
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd -P)
export LD_LIBRARY_PATH="{libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
exec "$here/root/usr/bin/redis-server" "$@"
"""


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
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise Failed("There is no redis-server on this machine.", advice=_ADVICE)
    with one_at_a_time(layout):
        return _unpacked(layout)


def _unpacked(layout: Layout) -> Path:
    """Debian's package with the libraries the system lacks, and a script that starts it."""
    target, digest = layout.tools / "redis", digest_of([_SYSTEM], *_PACKAGES)
    if not stamped(target / "stamp", digest):
        with (
            step("Installing Redis", "Debian's package, unpacked for the tests; 7 MB on disk"),
            replacing(target) as fresh,
        ):
            work = fresh / "work"
            try:
                _download(layout, work)
            except Failed as failed:
                raise Failed("Redis could not be installed.", failed.detail, _ADVICE) from failed
            for package in sorted((work / "cache" / "archives").glob("*.deb")):
                run_tool(layout, "Unpacking Redis", ["dpkg", "-x", package, fresh / "root"])
            shutil.rmtree(work)
            start = fresh / "redis-server"
            start.write_text(_START.format(libraries=_libraries(fresh)), encoding="utf-8")
            start.chmod(0o755)
            _checked(layout, start)
            write_stamp(fresh / "stamp", digest)
    return target / "redis-server"


def _download(layout: Layout, work: Path) -> None:
    """Leaves the packages in ``work/cache/archives``: Redis, and what of its needs is missing."""
    (work / "cache" / "archives" / "partial").mkdir(parents=True)
    (work / "lists" / "partial").mkdir(parents=True)
    settings = work / "apt.conf"
    settings.write_text(_APT_SETTINGS.format(work=work), encoding="utf-8")
    env = tool_environment(layout, os.environ) | {"DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-c", str(settings), "-q"]
    install = ["install", "--download-only", "--reinstall", "-y", "--no-install-recommends"]
    try:
        run_tool(layout, "Downloading Redis", [*apt, *install, *_PACKAGES], env=env)
    except Failed:
        # The system has no lists of packages, as in most images, or old ones.
        apt += ["-o", f"Dir::State::Lists={work}/lists"]
        run_tool(layout, "apt-get update", [*apt, "update"], env=env)
        run_tool(layout, "Downloading Redis", [*apt, *install, *_PACKAGES], env=env)


def _libraries(unpacked: Path) -> str:
    """The directories of the unpacked libraries, as the start script names them."""
    root = unpacked / "root"
    folders = {root / "usr" / "lib"} | {found.parent for found in root.rglob("*.so*")}
    return ":".join(f"$here/{folder.relative_to(unpacked)}" for folder in sorted(folders))


def _checked(layout: Layout, path: Path) -> Path:
    """``path`` if it is a redis-server that runs here."""
    try:
        said = run_tool(layout, "Starting redis-server", [path, "--version"])
    except Failed as failed:
        raise Failed(f"{path} does not run.", failed.detail, _ADVICE) from failed
    if not re.search(r"\b(redis|valkey) server v=", said, re.IGNORECASE):
        raise Failed(f"{path} is no redis-server.", advice=_ADVICE)
    return path
