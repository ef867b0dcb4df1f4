"""The short runs of the fuzz targets."""

from pathlib import Path

import pytest

from launcher import fuzz, go_build, suites
from launcher.layout import Layout

ROOT = Path(__file__).resolve().parents[2]
GO_SERVICE = ROOT / "go/fanout-service"

CLEAN = "func FuzzSum(f *testing.F) { f.Fuzz(func(*testing.T, int) {}) }"
BROKEN = "func FuzzSum(f *testing.F) { f.Fuzz(func(t *testing.T, n int) { t.Fail() }) }"


def test_every_reader_of_foreign_bytes_is_a_target() -> None:
    found = {(target.package, target.name) for target in fuzz.targets(GO_SERVICE)}
    readers = {"./httpapi", "./provider/sse", "./jsonwalk"}
    readers |= {f"./provider/{wire}" for wire in ("openai", "anthropic", "gemini")}
    assert readers <= {package for package, _ in found}
    assert ("./httpapi", "FuzzDecode") in found


@pytest.mark.golang
@pytest.mark.parametrize(("target", "exit_code"), [(CLEAN, 0), (BROKEN, 1), ("", 1)])
def test_a_finding_fails_the_suite_and_so_does_finding_no_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, exit_code: int
) -> None:
    service = tmp_path / "go/fanout-service"
    service.mkdir(parents=True)
    (service / "go.mod").write_text("module example\n\ngo 1.26\n")
    (service / "sum_test.go").write_text(f'package sum\n\nimport "testing"\n\n{target}\n')
    monkeypatch.setattr(fuzz, "SHORT", "1x")
    tool = go_build.go(Layout(ROOT, ROOT / ".rex"))
    monkeypatch.setattr(go_build, "go", lambda _: tool)
    result = suites._fuzz_suite(Layout(tmp_path, tmp_path / "state"), dict(tool.env))
    assert result.exit_code == exit_code
    assert result.name == "fuzz"
