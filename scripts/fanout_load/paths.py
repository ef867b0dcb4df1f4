"""The same fan-outs through the Python path (LiteLLM in process) and through the service."""

import os
import sys
from pathlib import Path
from typing import Any

from fanout_load.bench import PROVIDER, STREAMED, Bench
from fanout_load.figures import merged, quantile, shown, spread, table

WIDTH = 8
_CLIENT = Path(__file__).with_name("python_client.py")


def paths(bench: Bench, checkout: Path) -> list[dict[str, Any]]:
    """Fan-outs of 8 calls of 64 chunks, some at once; the Python code of ``checkout`` asks."""
    found = []
    for at_once, count in bench.extent.paths:
        rounds: dict[str, list[dict[str, Any]]] = {"python": [], "go": []}
        for _ in range(bench.extent.path_rounds):
            for backend in ("go", "python"):
                one = _run(bench, checkout, backend, at_once, count)
                if one is not None:
                    rounds[backend].append(one)
        for backend, of in rounds.items():
            entry = _figures(backend, at_once, of)
            found.append(entry)
            bench.say(
                f"    {backend}, {at_once} at once: client "
                f"{shown(entry['client_cpu_ms']['median'], 1)} + service "
                f"{shown(entry['service_cpu_ms']['median'], 1)} ms CPU a fan-out, "
                f"first text p99 {shown(entry['first_p99_ms'], 1)} ms"
            )
    return found


def _run(
    bench: Bench, checkout: Path, backend: str, at_once: int, count: int
) -> dict[str, Any] | None:
    service = bench.services["service"]
    spec = {
        "backend": backend,
        "url": service.url,
        "provider": PROVIDER,
        "model": STREAMED,
        "width": WIDTH,
        "at_once": at_once,
        "count": count if backend == "python" else max(count, 2 * at_once),
        "pids": service.pids,
        "beside": bench.upstream.pids,
    }
    env = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "PYTHONPATH": str(checkout),
        f"REX_PROVIDER_{PROVIDER.upper()}_BASE_URL": f"{bench.upstream.url}/v1",
    }
    return bench.run(f"the {backend} path, {at_once} at once", [sys.executable, _CLIENT], spec, env)


def _figures(backend: str, at_once: int, of: list[dict[str, Any]]) -> dict[str, Any]:
    first = merged(of, "first")
    wall = merged(of, "wall")
    return {
        "backend": backend,
        "at_once": at_once,
        "fanouts": sum(one["jobs"] for one in of),
        "failed": sum(one["failed"] for one in of),
        "characters": sorted({one["characters"] for one in of}),
        "client_cpu_ms": spread(one["client_cpu_s"] / one["jobs"] * 1e3 for one in of),
        "service_cpu_ms": spread(one["service_cpu_s"] / one["jobs"] * 1e3 for one in of),
        "others_cores": spread(one["others_cores"] for one in of),
        "first_p50_ms": round(quantile(first, 0.5), 2),
        "first_p99_ms": round(quantile(first, 0.99), 2),
        "wall_p50_ms": round(quantile(wall, 0.5), 1),
        "wall_p99_ms": round(quantile(wall, 0.99), 1),
    }


def told(entries: list[dict[str, Any]]) -> list[str]:
    rows = []
    for of in entries:
        client, service = of["client_cpu_ms"]["median"], of["service_cpu_ms"]["median"]
        service = service if of["backend"] == "go" else 0.0
        both = None if client is None else client + service
        rows.append(
            [
                f"{of['at_once']} at once, {of['backend']}",
                shown(client),
                shown(service) if of["backend"] == "go" else "-",
                shown(both),
                shown(of["first_p50_ms"], 1),
                shown(of["first_p99_ms"], 1),
                shown(of["wall_p50_ms"], 0),
                shown(of["wall_p99_ms"], 0),
                f"{of['failed']} of {of['fanouts'] * WIDTH}",
                shown(of["others_cores"]["median"]),
            ]
        )
    head = ["", "client CPU ms", "service", "both", "first p50", "p99", "wall p50", "p99"]
    return table([*head, "calls failed", "others"], rows)
