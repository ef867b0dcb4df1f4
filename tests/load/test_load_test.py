"""scripts/fanout_load_test.py --quick, whole: real programs, real sockets, and counts that fit.

It says nothing about times: a busy machine is no fault of the service.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from launcher.go_build import LOAD_GENERATOR, SERVICE, build
from launcher.layout import Layout

pytestmark = pytest.mark.golang

ROOT = Path(__file__).resolve().parents[2]
_SECTIONS = ("latency", "chunks", "calls", "memory", "leaving", "growth", "storms")


def _command(out: Path, *options: str) -> list[str]:
    script = ROOT / "scripts" / "fanout_load_test.py"
    state = ["--state", str(ROOT / ".rex")]
    return [sys.executable, str(script), "--quick", *state, "--out", str(out), *options]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a quick run has written its report."""
    build(Layout(ROOT, ROOT / ".rex"), SERVICE, LOAD_GENERATOR)
    out = tmp_path_factory.mktemp("results")
    done = subprocess.run(
        _command(out, "--only", *_SECTIONS),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return out


@pytest.fixture(scope="module")
def results(written: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((written / "fanout_load_quick.json").read_text())
    return found


def test_every_section_is_there_and_nothing_failed(results: dict[str, Any]) -> None:
    assert tuple(results["sections"]) == _SECTIONS
    assert results["problems"] == []


def test_every_target_answered_every_call_with_every_chunk(results: dict[str, Any]) -> None:
    for entry in results["sections"]["latency"]:
        assert set(entry["targets"]) == {"direct", "proxy", "service"}
        for figures in entry["targets"].values():
            assert figures["failed"] == 0
            assert figures["chunks"] == 64 * figures["calls"]


def test_no_stream_misses_a_chunk(results: dict[str, Any]) -> None:
    for entry in results["sections"]["memory"]:
        assert entry["open"] == entry["streams"]
        assert (entry["short"], entry["failures"]) == (0, {})
    assert [entry["lost"] for entry in results["sections"]["chunks"]] == [0]
    for section in ("calls", "growth"):
        for entries in results["sections"][section].values():
            assert [entry["failed"] for entry in entries] == [0] * len(entries)


def test_the_upstream_saw_every_call_close(results: dict[str, Any]) -> None:
    for entry in results["sections"]["leaving"]:
        assert entry["closed"] == entry["opened"] == [entry["calls"]], entry["how"]


def test_nothing_was_asked_inside_a_retry_after(results: dict[str, Any]) -> None:
    storm = results["sections"]["storms"]["retry_after"]
    assert storm["seen"]["inside"] == 0
    assert storm["seen"]["requests"] >= storm["answered"] > 0


def test_the_text_tells_the_figures_of_the_json(written: Path, results: dict[str, Any]) -> None:
    text = (written / "fanout_load_quick.txt").read_text()
    for entry in results["sections"]["memory"]:
        assert f"{entry['chunks']:,}" in text
    assert "Against the targets" in text
    assert str(ROOT) not in text + json.dumps(results)


def test_an_interrupt_stops_every_program_and_writes_nothing(written: Path, tmp_path: Path) -> None:
    assert written.exists()  # so that everything is built
    process = subprocess.Popen(
        _command(tmp_path, "--only", "memory"),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr
    for line in process.stderr:
        if line.strip() == "memory":
            break
    children = _children(process.pid)
    assert len(children) > 3
    process.send_signal(signal.SIGINT)
    process.stderr.read()
    assert process.wait(30) != 0
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline, "a program goes on"
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []


def _children(pid: int) -> list[int]:
    raw = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in raw.split()]
