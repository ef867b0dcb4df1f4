"""Asks fan-outs through one of Rex's own backends and prints what it cost, as JSON.

A program of its own, so that its CPU is its own: settings as JSON on standard input, Rex on the
path. LiteLLM's import and the first fan-out are not measured.
"""

import asyncio
import json
import os
import resource
import sys
import time
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import Any

from orchestration.fanout.client import ProviderClient
from orchestration.fanout.go import GoClient
from orchestration.fanout.inprocess import InProcessClient
from orchestration.fanout.providers import providers_of, read_endpoints
from orchestration.fanout.wire import CallRequest, Chunk, Failed, FanoutRequest, Message, Timeouts

# LiteLLM keeps an event loop so busy that the usual limits end calls, and a call that is given up
# costs less than one that is answered. Both paths get the time to answer all of them.
_PATIENT = Timeouts(connect=120_000, first_token=120_000, stall=120_000, total=120_000)


class Seen:
    """What the measured fan-outs got, in nanoseconds."""

    def __init__(self) -> None:
        self.first: Counter[int] = Counter()
        self.wall: Counter[int] = Counter()
        self.jobs = self.failed = self.characters = 0


async def main(spec: dict[str, Any]) -> dict[str, Any]:
    endpoints = read_endpoints(os.environ)
    client: ProviderClient
    if spec["backend"] == "go":
        client = GoClient(spec["url"], providers_of(endpoints))
    else:
        client = InProcessClient(endpoints)
    await client.ready()
    await _job(client, spec, "warm", Seen())
    seen, left = Seen(), iter(range(spec["count"]))
    own, service, beside = _own_cpu_s(), _cpu_s(spec["pids"]), _cpu_s(spec["beside"])
    begun, machine = time.monotonic(), _machine_cpu_s()

    async def work() -> None:
        for number in left:
            await _job(client, spec, f"path-{number}", seen)

    await asyncio.gather(*(work() for _ in range(spec["at_once"])))
    seconds = time.monotonic() - begun
    own, service = _own_cpu_s() - own, _cpu_s(spec["pids"]) - service
    beside = _cpu_s(spec["beside"]) - beside
    others = _machine_cpu_s() - machine - own - service - beside
    told = {
        "others_cores": max(0.0, others / seconds),
        "jobs": seen.jobs,
        "failed": seen.failed,
        "characters": seen.characters // max(1, seen.jobs),
        "client_cpu_s": own,
        "service_cpu_s": service,
        "first": {"buckets": sorted(seen.first.items())},
        "wall": {"buckets": sorted(seen.wall.items())},
    }
    await client.aclose()
    return told


async def _job(client: ProviderClient, spec: dict[str, Any], name: str, seen: Seen) -> None:
    request = FanoutRequest(
        id=name,
        deadline_ms=120_000,
        calls=tuple(
            CallRequest(
                id=str(number),
                provider=spec["provider"],
                model=spec["model"],
                messages=(Message("user", "Why is the sky blue?"),),
                timeouts_ms=_PATIENT,
            )
            for number in range(spec["width"])
        ),
    )
    begun = time.perf_counter_ns()
    waiting = {call.id for call in request.calls}
    async with aclosing(client.stream(request)) as events:
        async for event in events:
            if isinstance(event, Chunk):
                seen.characters += len(event.text)
                if event.call in waiting:
                    waiting.discard(event.call)
                    seen.first[time.perf_counter_ns() - begun] += 1
            elif isinstance(event, Failed):
                seen.failed += 1
    seen.wall[time.perf_counter_ns() - begun] += 1
    seen.jobs += 1


def _own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _cpu_s(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _machine_cpu_s() -> float:
    """Busy time of all CPUs: user, nice, system, irq, softirq."""
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()
    return sum(int(fields[at]) for at in (1, 2, 3, 6, 7)) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.load(sys.stdin)))))
