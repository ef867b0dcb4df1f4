"""What a call takes longer through each process between than straight to the upstream."""

from typing import Any

from fanout_load.bench import STREAMED, WHOLE, Bench
from fanout_load.figures import DISTURBED_CORES, merged, quantile, shown, spread, table

OURS, PROXY, DIRECT = "service", "proxy", "direct"


def latency(bench: Bench) -> list[dict[str, Any]]:
    """One entry a kind of call and rate, with every target's figures of the same rounds."""
    return [
        *(_at(bench, STREAMED, True, rate, s) for rate, s in bench.extent.streamed),
        *(_at(bench, WHOLE, False, rate, s) for rate, s in bench.extent.whole),
    ]


def _at(bench: Bench, model: str, stream: bool, rate: float, seconds: float) -> dict[str, Any]:
    rounds: dict[str, list[dict[str, Any]]] = {}
    for _ in range(bench.extent.rounds):
        # A round asks everyone in turn, so that a busy moment of the machine meets all alike.
        for name, target in _targets(bench, model).items():
            result = bench.measure(
                "rate",
                target=target,
                per_second=rate,
                seconds=seconds,
                stream=stream,
                warm=min(10, max(3, int(rate))),
            )
            if result is not None:
                rounds.setdefault(name, []).append(result)
    which = "first" if stream else "total"
    direct = rounds.get(DIRECT, [])
    figures = {name: _figures(of, direct, which) for name, of in rounds.items()}
    entry: dict[str, Any] = {
        "what": "time to first text" if stream else "whole answer",
        "stream": stream,
        "per_second": rate,
        "seconds_a_round": seconds,
        "targets": figures,
    }
    bench.say(f"    {entry['what']}, {rate:g}/s: " + _line(figures))
    return entry


def _targets(bench: Bench, model: str) -> dict[str, dict[str, Any]]:
    # The contract's first version has no answer in one piece.
    ours = {OURS: bench.ours(model)} if model == STREAMED or bench.contract > 1 else {}
    return {
        DIRECT: bench.direct(model),
        PROXY: bench.proxied(model),
        **ours,
        **{name: bench.peer(name, model) for name in bench.peers},
    }


def _figures(of: list[dict[str, Any]], direct: list[dict[str, Any]], which: str) -> dict[str, Any]:
    pairs = list(zip(of, direct, strict=False))
    together, straight = merged(of, which), merged(direct, which)
    calls = sum(one["sent"] for one in of)
    return {
        "calls": calls,
        "failed": sum(sum(one["failures"].values()) for one in of),
        "chunks": sum(one["chunks"] for one in of),
        "p50_ms": round(quantile(together, 0.5), 3),
        "p99_ms": round(quantile(together, 0.99), 3),
        "added_p50_ms": round(quantile(together, 0.5) - quantile(straight, 0.5), 3),
        "added_p99_ms": round(quantile(together, 0.99) - quantile(straight, 0.99), 3),
        "added_p50_rounds_ms": spread(a[which]["p50_ms"] - b[which]["p50_ms"] for a, b in pairs),
        "added_p99_rounds_ms": spread(a[which]["p99_ms"] - b[which]["p99_ms"] for a, b in pairs),
        "cpu_us_per_call": round(sum(one["usage"]["cpu_seconds"] for one in of) / calls * 1e6),
        "disturbed_rounds": sum(one["usage"]["others_cores"] > DISTURBED_CORES for one in of),
        "others_cores": spread(one["usage"]["others_cores"] for one in of),
    }


def _line(figures: dict[str, dict[str, Any]]) -> str:
    return ", ".join(
        f"{name} +{of['added_p50_ms']:.2f}/{of['added_p99_ms']:.2f}"
        for name, of in figures.items()
        if name != DIRECT
    )


def told(entries: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for entry in entries:
        title = f"{entry['what']}, {entry['per_second']:g} calls a second"
        lines += ["", f"{title}: milliseconds added to the direct call's", ""]
        rows = [
            [
                name,
                shown(of["p50_ms"]),
                shown(of["added_p50_ms"]),
                _range(of["added_p50_rounds_ms"]),
                shown(of["added_p99_ms"]),
                _range(of["added_p99_rounds_ms"]),
                str(of["cpu_us_per_call"]),
                f"{of['failed']} of {of['calls']}",
                f"{of['disturbed_rounds']} of {of['others_cores']['rounds']}",
            ]
            for name, of in entry["targets"].items()
        ]
        head = ["", "p50 itself", "+p50", "rounds", "+p99", "rounds", "CPU us/call"]
        lines += table([*head, "failed", "disturbed"], rows)
    return lines


def _range(of: dict[str, Any]) -> str:
    return f"{shown(of['min'])} / {shown(of['median'])} / {shown(of['max'])}"
