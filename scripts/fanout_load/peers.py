"""The gateways measured beside the service: installed apart from Rex, configured for speed.

They are pinned with hashes in requirements/peers.lock and requirements/portkey. What cannot be
installed is not left out silently: the report says it was not measured, and why.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fanout_load.processes import Program, Stack, free_port
from launcher import frontend
from launcher.failure import Failed
from launcher.layout import Layout
from launcher.python_env import install_apart
from launcher.stamps import digest_of, replacing, stamped, write_stamp
from launcher.steps import run_tool, step

# Bifrost is published as a Go module and as a download of its makers. The module proxy answers
# "This module version is not available" for github.com/maximhq/bifrost/transports, and a program
# from a download that no registry pins is not run here.
NOT_MEASURED = {
    "bifrost": "the Go module proxy does not serve github.com/maximhq/bifrost/transports (HTTP 403)"
}


@dataclass(frozen=True, slots=True)
class Peer:
    """A running gateway: where a chat completion is posted, and what it calls the models."""

    program: Program
    completions: str
    version: str
    settings: str
    headers: Mapping[str, str] = field(default_factory=dict)
    names: Callable[[str], str] = lambda model: model


def start_peers(
    layout: Layout, stack: Stack, upstream: str, models: Mapping[str, str], wanted: list[str]
) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers that run, and of the others why they do not. ``models`` are short names of the
    upstream's models, for gateways that must know them beforehand."""
    peers: dict[str, Peer] = {}
    absent = {name: why for name, why in NOT_MEASURED.items() if name in wanted}
    starts = {"litellm": _litellm, "tensorzero": _tensorzero, "portkey": _portkey}
    for name in wanted:
        if name not in starts:
            continue
        try:
            peers[name] = starts[name](layout, stack, upstream, models)
        except (Failed, RuntimeError, OSError) as problem:
            absent[name] = f"it could not be installed or started here ({problem})"
    return peers, absent


def _python(layout: Layout) -> Path:
    """An environment of the Python peers alone."""
    lock, target = layout.requirements / "peers.lock", layout.state / "peers" / "venv"
    if not stamped(target / "stamp", digest_of([lock])):
        with step("Installing the Python peers", "LiteLLM's proxy and TensorZero; 700 MB"):
            install_apart(layout, "Installing the Python peers", lock.name, target)
    return target / "bin"


def _litellm(layout: Layout, stack: Stack, upstream: str, models: Mapping[str, str]) -> Peer:
    programs = _python(layout)
    config = layout.state / "peers" / "litellm.json"
    parameters = {"model": "openai/*", "api_base": f"{upstream}/v1", "api_key": "none"}
    # JSON is YAML.
    config.write_text(
        json.dumps(
            {
                "model_list": [{"model_name": "*", "litellm_params": parameters}],
                "litellm_settings": {"telemetry": False, "num_retries": 0},
            }
        )
    )
    port = free_port()
    command: list[str | Path] = [programs / "litellm", "--config", config, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--num_workers", "2"]
    env = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        # It asks for a key of its own otherwise, and checking one costs time.
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    program = stack.listening("litellm", command, env, port)
    return Peer(
        program,
        f"{program.url}/v1/chat/completions",
        f"litellm {_version(programs, 'litellm')}",
        "2 workers, no database, quiet",
    )


_TENSORZERO = """
import sys, tensorzero
gateway = tensorzero._start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None,
    async_setup=False)
print('{"listening": "%s"}' % gateway.base_url, flush=True)
sys.stdin.read()
"""


def _tensorzero(layout: Layout, stack: Stack, upstream: str, models: Mapping[str, str]) -> Peer:
    programs = _python(layout)
    config = layout.state / "peers" / "tensorzero.toml"
    lines = ["[gateway]", "observability.enabled = false"]
    for name, model in models.items():
        lines += [f"[models.{name}]", 'routing = ["load"]', f"[models.{name}.providers.load]"]
        lines += ['type = "openai"', f'model_name = "{model}"']
        lines += [f'api_base = "{upstream}/v1/"', 'api_key_location = "none"']
    config.write_text("\n".join(lines) + "\n")
    program = stack.announcing(
        "tensorzero", [programs / "python", "-c", _TENSORZERO, config], {}, "listening"
    )
    named = {model: f"tensorzero::model_name::{name}" for name, model in models.items()}
    return Peer(
        program,
        f"{program.url}/chat/completions",
        f"tensorzero {_version(programs, 'tensorzero')}",
        "the gateway of its Python wheel, observability off",
        names=lambda model: named[model],
    )


def _version(programs: Path, package: str) -> str:
    found = next(programs.parent.glob(f"lib/python*/site-packages/{package}-*.dist-info"))
    return found.name.removeprefix(f"{package}-").removesuffix(".dist-info")


def _portkey(layout: Layout, stack: Stack, upstream: str, models: Mapping[str, str]) -> Peer:
    source, target = layout.requirements / "portkey", layout.state / "peers" / "portkey"
    digest = digest_of([source / "package-lock.json"])
    tool = frontend.node(layout)
    if not stamped(target / "stamp", digest):
        target.parent.mkdir(exist_ok=True)
        with step("Installing Portkey's gateway", "from npm"), replacing(target) as fresh:
            for name in ("package.json", "package-lock.json"):
                (fresh / name).write_bytes((source / name).read_bytes())
            command = [*tool.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            run_tool(layout, "Installing Portkey's gateway", command, env=tool.env, cwd=fresh)
            write_stamp(fresh / "stamp", digest)
    gateway = target / "node_modules" / "@portkey-ai" / "gateway"
    port = free_port()
    start: list[str | Path] = [
        tool.command,
        gateway / "build" / "start-server.js",
        "--headless",
        f"--port={port}",
    ]
    env = {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"}
    program = stack.listening("portkey", start, env, port, cwd=target)
    version = json.loads((gateway / "package.json").read_text())["version"]
    headers = {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"{upstream}/v1".replace("127.0.0.1", "localhost"),
        "Authorization": "Bearer none",
    }
    return Peer(
        program,
        f"{program.url}/v1/chat/completions",
        f"@portkey-ai/gateway {version}",
        "its npm gateway on Node, headless",
        headers,
    )
