"""Only weights whose digest is written in the code are ever handed to the loader."""

import hashlib
import os
from pathlib import Path

import pytest

from launcher import weights
from launcher.failure import Failed
from launcher.layout import Layout
from launcher.weights import Weights, join, verified

_CONTENT = b"first half, second half"


@pytest.fixture
def known(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """A tiny model of two parts that the catalogue knows, with its file in place."""
    digest = hashlib.sha256(_CONTENT).hexdigest()
    tiny = Weights("tiny", "Tiny", digest, len(_CONTENT), parts=2)
    monkeypatch.setitem(weights.CATALOGUE, "tiny", tiny)
    layout.weights.mkdir()
    (layout.weights / "tiny.gguf").write_bytes(_CONTENT)
    return tiny


def test_the_known_file_may_be_loaded(layout: Layout, known: Weights) -> None:
    assert verified(layout, "tiny") == layout.weights / "tiny.gguf"


def test_a_changed_file_is_refused(layout: Layout, known: Weights) -> None:
    (layout.weights / "tiny.gguf").write_bytes(_CONTENT[::-1])
    with pytest.raises(Failed, match="not the file this version knows"):
        verified(layout, "tiny")


def test_a_file_changed_after_it_was_verified_is_refused(layout: Layout, known: Weights) -> None:
    path = verified(layout, "tiny")
    path.write_bytes(_CONTENT[::-1])
    os.utime(path, ns=(1, 1))
    with pytest.raises(Failed, match="not the file this version knows"):
        verified(layout, "tiny")


def test_absent_weights_name_the_command_that_installs_them(layout: Layout, known: Weights) -> None:
    (layout.weights / "tiny.gguf").unlink()
    with pytest.raises(Failed) as failed:
        verified(layout, "tiny")
    assert "./rex up --model tiny" in failed.value.advice


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_parts_are_joined_only_into_the_known_file(
    tmp_path: Path, known: Weights, order: tuple[int, int]
) -> None:
    halves = (_CONTENT[:12], _CONTENT[12:])
    parts = []
    for number in order:
        parts.append(tmp_path / f"part{number}")
        parts[-1].write_bytes(halves[number])
    target = tmp_path / "joined.gguf"
    if order == (0, 1):
        join(parts, target, known)
        assert target.read_bytes() == _CONTENT
    else:
        with pytest.raises(Failed):
            join(parts, target, known)
        assert not target.exists()
        assert not target.with_name("joined.gguf.new").exists()
