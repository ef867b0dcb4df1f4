"""Load the fan-out service and what it is compared with, and write what was measured.

    python scripts/fanout_load_test.py [--quick] [--only SECTION …] [--label service]
                                       [--peers litellm tensorzero portkey | none]
                                       [--checkout DIR]

Builds the programs, starts a scripted upstream, a bare reverse proxy, the service and the peers on
loopback, measures in interleaved rounds, and stops everything, also on Ctrl-C. Writes
results/fanout_load_<label>.json and .txt. The whole takes about 15 minutes, --quick less than 2.
--checkout measures another checkout of Rex, an older one for instance.
"""

import argparse
import json
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "scripts")]

from fanout_load import cost, ending, latency, paths, report  # noqa: E402 - needs the path above
from fanout_load.bench import FULL, MODELS, PROVIDER, QUICK, Bench  # noqa: E402
from fanout_load.figures import without_buckets  # noqa: E402
from fanout_load.peers import NOT_MEASURED, Peer, start_peers  # noqa: E402
from fanout_load.processes import Program, Stack  # noqa: E402
from launcher.failure import Failed  # noqa: E402
from launcher.go_build import LOAD_GENERATOR, SERVICE, build, go  # noqa: E402
from launcher.layout import Layout, layout_from  # noqa: E402

PEERS = ("litellm", "tensorzero", "portkey", *NOT_MEASURED)
SECTIONS = ("latency", "chunks", "calls", "memory", "leaving", "paths", "growth", "storms")
# No limit may be what is measured; everything else is as it is by default.
LIMITS = {"REX_FANOUT_MAX_CONCURRENT": "100000"}
# The service before it had any of them.
FIRST_SETTINGS = {"service": "the first contract: logs (to a file), no limits, metrics or spans"}
SETTINGS = {
    "service": "limits, logs (to a file) and metrics on, spans off: its defaults",
    "spans": "the same with spans on, to a sink on this machine",
    "upstream": "the OpenAI format over plain HTTP/1.1; pieces of 6 characters",
}


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # A shell ignores it for what it starts in the background; stopping must work there too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        layout = layout_from(
            os.environ | ({"REX_STATE_DIR": options.state} if options.state else {})
        )
        results = run(layout, options)
    except Failed as failed:
        print(failed, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped; nothing was written.", file=sys.stderr)
        return 130
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"fanout_load_{options.label}"
    told = report.text(results)
    (options.out / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    (options.out / f"{name}.txt").write_text(told)
    print(told)
    return 1 if results["problems"] else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a little of everything, no peers")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--peers", nargs="+", choices=(*PEERS, "none"))
    parser.add_argument("--label", help="names the files; service, or quick with --quick")
    parser.add_argument("--out", type=Path, default=ROOT / "results")
    parser.add_argument("--checkout", type=Path, default=ROOT, metavar="DIR")
    parser.add_argument("--state", metavar="DIR", help="where programs and peers are kept")
    options = parser.parse_args(arguments)
    if options.label is None:
        # A little of everything is no reason to write over the whole.
        options.label = "quick" if options.quick else "service"
    if options.peers is None:
        options.peers = _peers(options.quick)
    return options


def _peers(quick: bool) -> list[str]:
    """The peers that are measured where none are named."""
    return ["none"] if quick else list(PEERS)


def run(layout: Layout, options: argparse.Namespace) -> dict[str, Any]:
    begun = time.monotonic()
    build(layout, LOAD_GENERATOR)
    binary, contract = _service(layout, options.checkout)
    about = report.machine(options.checkout)
    with Stack(layout.logs) as stack:
        upstream, proxy = _servers(layout, stack)
        peers: dict[str, Peer] = {}
        absent: dict[str, str] = {}
        if "latency" in options.only or "leaving" in options.only:
            wanted = [name for name in options.peers if name != "none"]
            peers, absent = start_peers(layout, stack, upstream.url, MODELS, wanted)
        bench = Bench(
            stack=stack,
            generator=layout.bin / LOAD_GENERATOR,
            contract=contract,
            extent=QUICK if options.quick else FULL,
            upstream=upstream,
            proxy=proxy,
            services=_services(stack, binary, upstream.url),
            peers=peers,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
        sections = _measure(bench, options)
        return {
            "command": shlex.join(["python", "scripts/fanout_load_test.py", *_said(options)]),
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "seconds": round(time.monotonic() - begun, 1),
            "machine": about,
            "contract": contract,
            "go": go(layout).version,
            "peers": {name: f"{peer.version}; {peer.settings}" for name, peer in peers.items()},
            "not_measured": absent,
            "settings": SETTINGS if contract > 1 else FIRST_SETTINGS,
            "sections": without_buckets(sections),
            "problems": bench.problems,
        }


def _said(options: argparse.Namespace) -> list[str]:
    """The options that decide what is measured, as they were given; no path of this machine."""
    said = ["--quick"] if options.quick else []
    if options.only != list(SECTIONS):
        said += ["--only", *options.only]
    if options.peers != _peers(options.quick):
        said += ["--peers", *options.peers]
    if options.checkout != ROOT:
        said += ["--checkout", "DIR"]
    return [*said, "--label", options.label] if options.label not in ("service", "quick") else said


def _service(layout: Layout, checkout: Path) -> tuple[Path, int]:
    """The service of ``checkout``, built, and the version of its contract."""
    head = (checkout / "go/fanout-service/CONTRACT.md").read_text().partition("\n")[0]
    version = re.search(r"version (\d+)", head)
    if not version:
        raise Failed("CONTRACT.md of the checkout does not begin with its version.")
    if checkout == ROOT:
        build(layout, SERVICE)
        return layout.bin / SERVICE, int(version[1])
    # Beside our own, with its own stamps.
    theirs = replace(layout, root=checkout, state=layout.state / "other-checkout")
    for folder in (theirs.bin, theirs.stamps, theirs.logs):
        folder.mkdir(parents=True, exist_ok=True)
    build(theirs, SERVICE)
    return theirs.bin / SERVICE, int(version[1])


def _servers(layout: Layout, stack: Stack) -> tuple[Program, Program]:
    generator = layout.bin / LOAD_GENERATOR
    watched = ["--exit-on-stdin-eof"]
    upstream = stack.announcing("upstream", [generator, "upstream", *watched], {}, "listening")
    command: list[str | Path] = [generator, "proxy", "--to", upstream.url, *watched]
    return upstream, stack.announcing("proxy", command, {}, "listening")


def _services(stack: Stack, binary: Path, upstream: str) -> dict[str, Program]:
    """The service once for each use that must not know what another did."""
    common = LIMITS | {
        "REX_FANOUT_LISTEN": "127.0.0.1:0",
        f"REX_PROVIDER_{PROVIDER.upper()}_BASE_URL": f"{upstream}/v1",
        "REX_CACHE_ENABLED": "0",
    }
    spans = {"OTEL_ENABLED": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": upstream}
    with_own = {
        "service": {},
        "spans": spans,
        "resting": {},
        "storm-retry_after": {},
        "storm-all_fail": {},
        "storm-all_fail_apart": {},
    }
    return {
        name: stack.announcing(name, [binary, "--exit-on-stdin-eof"], common | own, "address")
        for name, own in with_own.items()
    }


def _measure(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    measurements: dict[str, Callable[[], Any]] = {
        "latency": lambda: latency.latency(bench),
        "chunks": lambda: cost.per_chunk(bench),
        "calls": lambda: {
            about: cost.per_call(bench, service) for about, service in _configured(bench).items()
        },
        "memory": lambda: cost.memory(bench),
        "leaving": lambda: ending.leaving(bench),
        "paths": lambda: paths.paths(bench, options.checkout),
        "growth": lambda: cost.growth(bench),
        "storms": lambda: ending.storms(bench),
    }
    sections = {}
    for name in SECTIONS:
        if name in options.only:
            bench.say(f"  {name}")
            sections[name] = measurements[name]()
    return sections


def _configured(bench: Bench) -> dict[str, str]:
    """The services whose calls are measured, by what is switched on in them."""
    if bench.contract == 1:
        return {"logs alone": "service"}
    return {"limits, logs and metrics": "service", "limits, logs, metrics and spans": "spans"}


if __name__ == "__main__":
    sys.exit(main())
