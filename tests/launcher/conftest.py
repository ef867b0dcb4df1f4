"""A layout in a temporary directory, so that no test touches the checkout's own state."""

from pathlib import Path

import pytest

from launcher.layout import ROOT, Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(root=tmp_path / "rex", state=tmp_path / "rex" / ".rex")
    for folder in (made.bin, made.stamps, made.logs, made.requirements):
        folder.mkdir(parents=True)
    return made


@pytest.fixture
def checkout() -> Path:
    return ROOT
