"""Programs of a Debian package, unpacked below the toolchain with the libraries the system lacks.

Nothing is installed into the system, by root neither: the packages we take would start services,
and tests start servers of their own.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launcher.failure import Failed
from launcher.layout import Layout
from launcher.stamps import digest_of, one_at_a_time, replacing, stamped, write_stamp
from launcher.steps import run_tool, step, tool_environment

# What was unpacked fits the libraries of this system, until it is upgraded.
_SYSTEM = Path("/etc/os-release")
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
exec "$here/root/{program}" "$@"
"""


@dataclass(frozen=True, slots=True)
class DebianPackage:
    """``programs`` are patterns below the root, as ``usr/lib/postgresql/*/bin/initdb``; of several
    matches the last is taken. ``why`` is told while it is fetched, ``advice`` where it cannot be.
    """

    name: str
    folder: str
    packages: tuple[str, ...]
    programs: tuple[str, ...]
    why: str
    advice: str


def can_unpack() -> bool:
    """Whether this system has Debian's tools."""
    return bool(shutil.which("apt-get") and shutil.which("dpkg"))


def unpacked(layout: Layout, package: DebianPackage, check: Callable[[Path], object]) -> Path:
    """The directory with a script for each program, made once.

    ``check`` gets a new one before it takes its place, and may refuse it. Raises Failed in words.
    """
    target = layout.tools / package.folder
    digest = digest_of([_SYSTEM], *package.packages)
    with one_at_a_time(layout):
        if not stamped(target / "stamp", digest):
            what = f"Installing {package.name}"
            with step(what, package.why), replacing(target) as fresh:
                _fill(layout, package, fresh)
                check(fresh)
                write_stamp(fresh / "stamp", digest)
    return target


def _fill(layout: Layout, package: DebianPackage, fresh: Path) -> None:
    work = fresh / "work"
    try:
        _download(layout, package, work)
    except Failed as failed:
        said = f"{package.name} could not be installed."
        raise Failed(said, failed.detail, package.advice) from failed
    for archive in sorted((work / "cache" / "archives").glob("*.deb")):
        run_tool(layout, f"Unpacking {package.name}", ["dpkg", "-x", archive, fresh / "root"])
    shutil.rmtree(work)
    libraries = _libraries(fresh)
    for pattern in package.programs:
        found = sorted((fresh / "root").glob(pattern))
        if not found:
            raise Failed(f"Debian's package of {package.name} lacks {Path(pattern).name}.")
        start = fresh / Path(pattern).name
        program = found[-1].relative_to(fresh / "root")
        start.write_text(_START.format(libraries=libraries, program=program), encoding="utf-8")
        start.chmod(0o755)


def _download(layout: Layout, package: DebianPackage, work: Path) -> None:
    """Leaves the packages in ``work/cache/archives``, and what of their needs is missing here."""
    (work / "cache" / "archives" / "partial").mkdir(parents=True)
    (work / "lists" / "partial").mkdir(parents=True)
    settings = work / "apt.conf"
    settings.write_text(_APT_SETTINGS.format(work=work), encoding="utf-8")
    env = tool_environment(layout, os.environ) | {"DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-c", str(settings), "-q"]
    install = ["install", "--download-only", "--reinstall", "-y", "--no-install-recommends"]
    what = f"Downloading {package.name}"
    try:
        run_tool(layout, what, [*apt, *install, *package.packages], env=env)
    except Failed:
        # The system has no lists of packages, as in most images, or old ones.
        apt += ["-o", f"Dir::State::Lists={work}/lists"]
        run_tool(layout, "apt-get update", [*apt, "update"], env=env)
        run_tool(layout, what, [*apt, *install, *package.packages], env=env)


def _libraries(unpacked: Path) -> str:
    """The directories of the unpacked libraries, as the start scripts name them."""
    root = unpacked / "root"
    folders = {root / "usr" / "lib"} | {found.parent for found in root.rglob("*.so*")}
    return ":".join(f"$here/{folder.relative_to(unpacked)}" for folder in sorted(folders))
