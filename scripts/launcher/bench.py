"""``./rex bench``: the measurements behind the figures in results/."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from launcher import prepare
from launcher.failure import Failed
from launcher.layout import Layout
from launcher.steps import say

_NAMED = {
    "policy": "scripts/synthesis_policy_report.py",
    "fanout": "scripts/fanout_load_test.py",
}


def benchmarks(layout: Layout) -> dict[str, Path]:
    """Every benchmark by name: the named ones, and each script in scripts/bench/."""
    found = {name: layout.root / path for name, path in _NAMED.items()}
    folder = layout.root / "scripts" / "bench"
    found |= {path.stem: path for path in sorted(folder.glob("[!_]*.py"))}
    return {name: path for name, path in found.items() if path.exists()}


def bench(layout: Layout, name: str, arguments: Sequence[str]) -> int:
    """Runs one benchmark with the rest of the arguments; without a name, lists them."""
    known = benchmarks(layout)
    if not name:
        say("Benchmarks (./rex bench NAME [arguments]):")
        for each, path in known.items():
            say(f"  {each:<12} {path.relative_to(layout.root)}")
        return 0
    if name not in known:
        raise Failed(
            f"There is no benchmark {name!r}.",
            advice=f"There are: {', '.join(known)}.",
            exit_code=2,
        )
    prepare.for_managing(layout)
    env = dict(os.environ) | {"PYTHONPATH": str(layout.root)}
    command: list[str | Path] = [layout.python, known[name], *arguments]
    return subprocess.run(command, cwd=layout.root, env=env, check=False).returncode
