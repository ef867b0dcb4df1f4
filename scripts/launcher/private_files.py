"""Secrets on the disk: readable by their owner alone."""

import os
import secrets
from pathlib import Path


def write_private(path: Path, content: str) -> None:
    """Atomic, mode 0600 from the first byte on."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    fresh.replace(path)


def ensure_secret(path: Path) -> None:
    """Leaves a secret of 64 random bytes in ``path`` unless one is there."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(64))
