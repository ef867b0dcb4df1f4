"""Runs the tests of the page's modules under Node, and holds their size to the budget."""

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
JS = HERE.parents[1] / "static" / "rex" / "js"
MARKED = HERE.parents[1] / "static" / "vendor" / "marked" / "marked.esm.js"
FIRST_LOAD_BYTES = 60 * 1024


@pytest.mark.parametrize("file", sorted(HERE.glob("*.test.mjs")), ids=lambda path: path.name)
def test_modules_pass_their_tests_under_node(file: Path) -> None:
    node = shutil.which("node")
    assert node, "Node is needed to test the page's modules."
    done = subprocess.run(
        [node, "--test", str(file)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "# pass 0\n" not in done.stdout


def test_first_load_of_the_live_page_stays_within_its_budget() -> None:
    modules = [*JS.glob("*.js"), MARKED]
    assert len(modules) > 10
    assert sum(len(gzip.compress(path.read_bytes())) for path in modules) <= FIRST_LOAD_BYTES


def test_no_module_parses_html_from_strings() -> None:
    forbidden = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(")
    for path in JS.glob("*.js"):
        code = "\n".join(
            line for line in path.read_text().splitlines() if not line.lstrip().startswith("//")
        )
        assert not [word for word in forbidden if word in code], path.name
