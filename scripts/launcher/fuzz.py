"""The fuzz targets of the Go service: which there are, and what a short run of one is.

Their seeds run as tests anyway. A short run beyond them catches what a change has plainly broken;
finding the rest takes minutes a target (CONTRIBUTING.md says how).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHORT = "3s"
_TARGET = re.compile(r"^func (Fuzz\w+)\(\w+ \*testing\.F\)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Target:
    """A fuzz function; ``package`` is its folder as ``go test`` takes it."""

    package: str
    name: str

    def arguments(self) -> list[str]:
        """What ``go`` is given. Shrinking a finding is left to whoever looks into it: it could
        take a minute."""
        return [
            "test",
            self.package,
            "-run=^$",
            f"-fuzz=^{self.name}$",
            f"-fuzztime={SHORT}",
            "-fuzzminimizetime=1x",
        ]


def targets(go_service: Path) -> Iterator[Target]:
    """Every fuzz target below ``go_service``, in the order of their files."""
    for file in sorted(go_service.rglob("*_test.go")):
        package = f"./{file.parent.relative_to(go_service).as_posix()}"
        for match in _TARGET.finditer(file.read_text(encoding="utf-8")):
            yield Target(package, match[1])
