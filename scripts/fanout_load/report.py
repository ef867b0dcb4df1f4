"""The report to read, and what it says about the machine."""

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fanout_load import cost, ending, latency, paths, targets

_LATENCY = """\
An open loop sends so many single calls a second, whatever becomes of them, and counts from the
moment each was meant to be sent. Rounds ask every target in turn. "+p50" and "+p99" are of all
rounds' calls together, minus the direct call's; "rounds" are least / median / largest of the
differences of single rounds. Disturbed: others used more than 0.3 of a core in that round."""
_CHUNK = """\
Every stream gets 50 chunks a second, ten calls a fan-out. CPU is the service's alone (user and
system, from /proc), over a span in which all streams are open, divided by the chunks the upstream
wrote in it. Others: cores used by what has no part in the measurement."""
_CALL = """\
A closed loop of answers of one chunk. CPU is the service's alone."""
_MEMORY = """\
Ten calls a fan-out, two chunks a second on each stream. A call that misses a chunk is short.
Goroutines and files: at rest / open / 5 s after the last answer."""
_LEAVING = """\
Streams are open and have text; then their reader disconnects, or asks for a cancel, or the
deadline passes. The time is until the upstream has seen the last of them close."""
_PATHS = """\
Eight calls of 64 chunks (50 ms to the first, 10 ms between). "python" is LiteLLM in the asking
process (REX_FANOUT=python); "go" is GoClient and the service. CPU a fan-out in milliseconds. No
timeout ends a call early: LiteLLM needs longer than Rex usually allows."""


def machine(checkout: Path) -> dict[str, Any]:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": cpu,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": _git(checkout, "rev-parse", "--short=12", "HEAD"),
        "changed_since": bool(
            _git(checkout, "status", "--porcelain", "-uno", "--", "go", "orchestration")
        ),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _git(checkout: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def text(results: Mapping[str, Any]) -> str:
    """The results as a page of text."""
    about = results["machine"]
    changed = ", with changes not committed" if about["changed_since"] else ""
    hardware = f"{about['cpus']} CPUs ({about['cpu']}), {about['system']}"
    lines = [
        "The fan-out service under load",
        "",
        f"command   {results['command']}",
        f"when      {results['date']}, {results['seconds']:.0f} s",
        f"machine   {hardware}; everything runs on it",
        f"commit    {about['commit']}{changed}; contract {results['contract']}; {results['go']}",
    ]
    lines += [f"{name:<9} {about}" for name, about in results["peers"].items()]
    lines += [f"{name:<9} NOT MEASURED: {why}" for name, why in results["not_measured"].items()]
    lines += [f"{name:<9} {setting}" for name, setting in results["settings"].items()]
    if about["load_before"] > 0.3:
        lines.append(f"load      {about['load_before']} before the start: others were working too")
    sections = results["sections"]
    if found := sections.get("latency"):
        lines += _section("Added latency", _LATENCY, latency.told(found))
    if found := sections.get("chunks"):
        lines += _section("CPU a relayed chunk", _CHUNK, cost.chunks_told(found))
    for name, found in sections.get("calls", {}).items():
        lines += _section(f"CPU a call: {name}", _CALL, cost.calls_told(found))
    if found := sections.get("memory"):
        lines += _section("Open streams", _MEMORY, cost.memory_told(found))
    if found := sections.get("leaving"):
        lines += _section("Nobody reads any more", _LEAVING, ending.leaving_told(found))
    if found := sections.get("paths"):
        lines += _section("Python path and Go path", _PATHS, paths.told(found))
    if found := sections.get("growth"):
        lines += _section("Wider fan-outs, one at a time", _CALL, cost.calls_told(found["width"]))
        about_growth = "Fan-outs of eight calls, 16 chunks each, 50 ms to the first."
        lines += _section("More fan-outs at once", about_growth, cost.calls_told(found["at_once"]))
    if found := sections.get("storms"):
        lines += _section("An upstream that refuses", "", ending.storms_told(found))
    lines += _section("Against the targets", "", targets.told(sections))
    if results["problems"]:
        lines += _section("What failed", "", [f"- {problem}" for problem in results["problems"]])
    return "\n".join(lines) + "\n"


def _section(title: str, about: str, body: list[str]) -> list[str]:
    return ["", "", title, "=" * len(title), *([about, ""] if about else []), *body]
