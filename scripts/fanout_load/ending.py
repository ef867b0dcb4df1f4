"""What is asked of an upstream that nobody needs any more, or that asks to be left alone."""

from typing import Any
from uuid import uuid4

from fanout_load.bench import LONG, Bench
from fanout_load.figures import shown, spread, table


def leaving(bench: Bench) -> list[dict[str, Any]]:
    """How long after the end of interest the upstream saw the last of so many calls closed."""
    found = [
        _leave(bench, "service", how, bench.ours(LONG), 100)
        for how in ("disconnect", "cancel", "deadline")
    ]
    found.append(_leave(bench, "proxy", "disconnect", bench.proxied(LONG), 1))
    found += [
        _leave(bench, name, "disconnect", bench.peer(name, LONG), 1, of_peer=True)
        for name in bench.peers
    ]
    return found


def _leave(
    bench: Bench, name: str, how: str, target: dict[str, Any], width: int, of_peer: bool = False
) -> dict[str, Any]:
    found = []
    # Not every peer can open as many before the first ones end.
    calls = bench.extent.leaving_calls // (5 if of_peer else 1)
    for _ in range(1 if of_peer else bench.extent.chunk_rounds):
        one = bench.measure(
            "leave",
            target=target,
            upstream=bench.upstream.url,
            calls=calls,
            width=min(width, calls),
            how=how,
            deadline_ms=1500,
        )
        if one is not None:
            found.append(one)
    entry: dict[str, Any] = {
        "target": name,
        "how": how,
        "calls": calls,
        "opened": [one["opened"] for one in found],
        "closed": [one["closed"] for one in found],
        "last_ms": spread(one["last_ms"] for one in found),
    }
    bench.say(f"    {name}, {how}: {shown(entry['last_ms']['median'], 1)} ms, {entry['closed']}")
    return entry


def leaving_told(entries: list[dict[str, Any]]) -> list[str]:
    rows = [
        [
            f"{of['target']}, {of['how']}",
            *(shown(of["last_ms"][which], 1) for which in ("min", "median", "max")),
            ", ".join(
                f"{closed} of {opened}"
                for closed, opened in zip(of["closed"], of["opened"], strict=True)
            )
            or "not measured",
        ]
        for of in entries
    ]
    return table(["", "ms min", "median", "max", "closed within 8 s"], rows)


def storms(bench: Bench) -> dict[str, Any]:
    """Requests inside a Retry-After, and requests for each call while everything fails."""
    fanouts, width = bench.extent.storm_fanouts, 5
    found: dict[str, Any] = {}
    for name, model, spread_ms, apart in (
        ("retry_after", "storm?retry_after_s=2", 1500, False),
        ("all_fail", "down?", 4000, False),
        ("all_fail_apart", "down?", 4000, True),
    ):
        found[name] = bench.measure(
            "storm",
            # A name nobody asked before: the upstream remembers by it. And a service that has not
            # learnt yet that its upstream fails.
            target=bench.ours(f"{model}&id={uuid4().hex[:8]}", f"storm-{name}"),
            upstream=bench.upstream.url,
            fanouts=fanouts,
            width=width,
            attempts=3,
            spread_ms=spread_ms,
            apart=apart,
        )
    storm, down = found["retry_after"], found["all_fail_apart"]
    if storm and down:
        bench.say(
            f"    inside Retry-After: {storm['seen']['inside']} of {storm['calls']} calls, "
            f"answered {storm['answered']}; all fail: {down['amplification']:.2f} requests a call"
        )
    return found


def storms_told(found: dict[str, Any]) -> list[str]:
    storm = found.get("retry_after")
    lines = []
    if storm:
        lines.append(
            f"429 with Retry-After 2 s: of {storm['calls']} calls, 3 attempts each, the upstream "
            f"saw {storm['seen']['inside']} requests inside the time it had asked for and "
            f"{storm['seen']['requests']} in all; {storm['answered']} calls were answered. "
            f"Failures: {_failures(storm)}."
        )
    for name, which in (("all_fail", "of one model"), ("all_fail_apart", "each fan-out's own")):
        down = found.get(name)
        if not down:
            continue
        lines.append(
            f"503 for everything, {which}: {down['calls']} calls, 3 attempts each, led to "
            f"{down['seen']['requests']} requests, {down['amplification']:.2f} a call. "
            f"Failures: {_failures(down)}."
        )
    return lines


def _failures(one: dict[str, Any]) -> str:
    return ", ".join(f"{kind} {n}" for kind, n in sorted(one["failures"].items())) or "none"
