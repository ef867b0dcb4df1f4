"""PostgreSQL for the tests: the system's, else Debian's package, unpacked."""

import os
import re
import shutil
from functools import partial
from pathlib import Path

from launcher.debian_package import DebianPackage, can_unpack, unpacked
from launcher.failure import Failed
from launcher.layout import Layout
from launcher.steps import run_tool

# What makes a cluster, and what serves it.
PROGRAMS = ("initdb", "postgres")
# Where Debian keeps the programs, out of PATH, a directory for each version.
_DEBIANS = "usr/lib/postgresql/*/bin"
_ADVICE = (
    "Install PostgreSQL (Debian: apt install postgresql, macOS: brew install postgresql), set "
    "REX_POSTGRES_BIN to the directory of its programs, or leave the tests that need it out: "
    "./rex test --without postgresql"
)
_PACKAGE = DebianPackage(
    name="PostgreSQL",
    folder="postgresql",
    packages=("postgresql",),
    programs=tuple(f"{_DEBIANS}/{program}" for program in PROGRAMS),
    why="Debian's package, unpacked for the tests; 270 MB on disk",
    advice=_ADVICE,
)


def find(layout: Layout, root: Path = Path("/")) -> Path:
    """The directory of an ``initdb`` and a ``postgres`` that run; ``REX_POSTGRES_BIN`` names one.

    ``root`` is where the system's files begin. Raises Failed in words.
    """
    named = os.environ.get("REX_POSTGRES_BIN")
    if named:
        return _checked(layout, Path(named))
    if system := shutil.which("postgres"):
        # A link on the path leads to the directory that has the other program too.
        return _checked(layout, Path(system).resolve().parent)
    versions = [folder for folder in root.glob(_DEBIANS) if (folder / "initdb").exists()]
    if versions:
        return _checked(layout, max(versions, key=_version))
    if not can_unpack():
        raise Failed("There is no PostgreSQL on this machine.", advice=_ADVICE)
    return unpacked(layout, _PACKAGE, partial(_checked, layout))


def _version(folder: Path) -> int:
    number = folder.parent.name
    return int(number) if number.isdigit() else 0


def _checked(layout: Layout, folder: Path) -> Path:
    """``folder`` if its programs are PostgreSQL's and run here."""
    for program in PROGRAMS:
        try:
            said = run_tool(layout, f"Starting {program}", [folder / program, "--version"])
        except Failed as failed:
            raise Failed(f"{folder / program} does not run.", failed.detail, _ADVICE) from failed
        if not re.search(rf"^{program} \(PostgreSQL\) \d", said, re.MULTILINE):
            raise Failed(f"{folder / program} is not PostgreSQL's.", advice=_ADVICE)
    return folder
