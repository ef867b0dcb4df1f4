"""Set-up that can be interrupted anywhere: stamps, whole-directory swaps, one at a time."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.layout import Layout
from launcher.steps import say


def digest_of(paths: Iterable[Path], *words: str) -> str:
    """A digest over the words and over every file below the paths, by relative name and content."""
    digest = hashlib.sha256()
    for word in words:
        digest.update(word.encode() + b"\0")
    for path in paths:
        for file in sorted(_files(path)):
            digest.update(f"{file.relative_to(path.parent)}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _files(path: Path) -> Iterable[Path]:
    if path.is_dir():
        files = (file for file in path.rglob("*") if file.is_file())
        return (file for file in files if file.suffix != ".pyc")
    return (path,)


def stamped(stamp: Path, digest: str) -> bool:
    """Whether ``stamp`` says that this very input was worked on to the end."""
    try:
        return stamp.read_text(encoding="utf-8") == digest
    except FileNotFoundError:
        return False


def write_stamp(stamp: Path, digest: str) -> None:
    """Atomic: a stamp is whole or not there."""
    fresh = stamp.with_name(stamp.name + ".new")
    fresh.write_text(digest, encoding="utf-8")
    fresh.replace(stamp)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A fresh directory to build in, which takes the target's place only when all went well."""
    fresh = target.with_name(target.name + ".new")
    old = target.with_name(target.name + ".old")
    for left_over in (fresh, old):
        shutil.rmtree(left_over, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def one_at_a_time(layout: Layout) -> Iterator[None]:
    """Waits for another set-up of this checkout. The kernel drops the lock of a dead process."""
    layout.tools.mkdir(exist_ok=True)
    with (layout.tools / "lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            say(
                f"  Another set-up is running here (process {lock.read().strip()}); waiting for it."
            )
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield
