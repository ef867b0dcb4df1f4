"""The committed locks: hashes everywhere, addresses nowhere, one version of each package."""

import hashlib
import json
import re
from pathlib import Path

import pytest

_PINNED = re.compile(r"^([a-z0-9._-]+==[^ ;\\]+)", re.MULTILINE | re.IGNORECASE)
_LOCKS = ("boot", "go", "node", "qwen", "run", "test", "check", "peers", "litellm-proxy")


def _pins(checkout: Path, name: str) -> set[str]:
    return set(_PINNED.findall((checkout / "requirements" / f"{name}.lock").read_text()))


@pytest.mark.parametrize("name", _LOCKS)
def test_a_lock_has_a_hash_for_every_package_and_no_address(checkout: Path, name: str) -> None:
    text = (checkout / "requirements" / f"{name}.lock").read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


@pytest.mark.parametrize(
    ("smaller", "larger"), [("run", "test"), ("test", "check"), ("litellm-proxy", "peers")]
)
def test_the_larger_lock_contains_the_smaller_one(
    checkout: Path, smaller: str, larger: str
) -> None:
    assert _pins(checkout, smaller) < _pins(checkout, larger)


@pytest.mark.parametrize("folder", [".", "requirements/chromium", "requirements/portkey"])
def test_the_npm_locks_have_integrity_and_no_address(checkout: Path, folder: str) -> None:
    lock = json.loads((checkout / folder / "package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert packages
    assert all(entry["integrity"].startswith("sha512-") for entry in packages.values())
    assert not any("resolved" in entry for entry in packages.values())


def test_what_is_served_is_what_was_listed(checkout: Path) -> None:
    served = checkout / "static" / "vendor"
    listed = (checkout / "requirements" / "vendored.sha256").read_text().splitlines()
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in served.rglob("*.*")}
    assert listed[0].split()[0] in digests
