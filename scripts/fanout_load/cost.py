"""What the service costs: a chunk, a call, open streams, and how that grows."""

from typing import Any

from fanout_load.bench import Bench
from fanout_load.figures import shown, spread, table

_ONE_CHUNK = "paced?first_ms=0&chunks=1"
_CALLS_IN_FLIGHT = 50


def per_chunk(bench: Bench) -> list[dict[str, Any]]:
    """CPU of the service for each chunk relayed, 50 a second on so many streams."""
    extent = bench.extent
    found = []
    for streams in extent.chunk_streams:
        chunks = round((extent.chunk_s + 2.5) * 50)
        rounds = []
        for _ in range(extent.chunk_rounds):
            one = bench.measure(
                "hold",
                target=bench.ours(f"paced?first_ms=10&delay_ms=20&chunks={chunks}"),
                upstream=bench.upstream.url,
                streams=streams,
                width=10,
                per_second=streams / 10 / 0.8,
                seconds=extent.chunk_s,
                chunks=chunks,
                settle=0.5,
            )
            if one is not None:
                rounds.append(one)
        entry: dict[str, Any] = {
            "streams": streams,
            "chunks_per_s": spread(one["chunks_per_s"] for one in rounds),
            "cpu_us_per_chunk": spread(one["cpu_us_per_chunk"] for one in rounds),
            "cores": spread(
                one["steady"]["cpu_seconds"] / one["steady"]["seconds"] for one in rounds
            ),
            "lost": sum(one["short"] for one in rounds),
            "failures": [one["failures"] for one in rounds if one["failures"]],
            "others_cores": spread(one["steady"]["others_cores"] for one in rounds),
        }
        bench.say(
            f"    {streams} streams: {shown(entry['chunks_per_s']['median'], 0)} chunks/s, "
            f"{shown(entry['cpu_us_per_chunk']['median'])} us CPU a chunk"
        )
        found.append(entry)
    return found


def per_call(bench: Bench, service: str) -> list[dict[str, Any]]:
    """CPU of the service for each call, by the width of its fan-out, answers of one chunk."""
    return [
        _jobs(bench, service, width, max(1, _CALLS_IN_FLIGHT // width), bench.extent.cost_s)
        for width in bench.extent.widths
    ]


def growth(bench: Bench) -> dict[str, list[dict[str, Any]]]:
    """The same with wider fan-outs, and with more of them at once."""
    seconds = bench.extent.growth_s
    return {
        "width": [_jobs(bench, "service", w, 1, seconds) for w in bench.extent.growth_widths],
        "at_once": [
            _jobs(bench, "service", 8, n, seconds, "paced?first_ms=50&delay_ms=10&chunks=16")
            for n in bench.extent.growth_at_once
        ],
    }


def _jobs(
    bench: Bench, service: str, width: int, at_once: int, seconds: float, model: str = _ONE_CHUNK
) -> dict[str, Any]:
    rounds = []
    for _ in range(bench.extent.chunk_rounds):
        one = bench.measure(
            "jobs",
            target=bench.ours(model, service),
            width=width,
            at_once=at_once,
            seconds=seconds,
            warm=at_once,
        )
        if one is not None and one["jobs"]:
            rounds.append(one)
    entry: dict[str, Any] = {
        "width": width,
        "at_once": at_once,
        "model": model,
        "calls_per_s": spread(one["jobs"] * width / one["usage"]["seconds"] for one in rounds),
        "cpu_us_per_call": spread(
            one["usage"]["cpu_seconds"] / (one["jobs"] * width) * 1e6 for one in rounds
        ),
        "wall_p50_ms": spread(one["wall"]["p50_ms"] for one in rounds),
        "wall_p99_ms": spread(one["wall"]["p99_ms"] for one in rounds),
        "first_p50_ms": spread(one["first"]["p50_ms"] for one in rounds),
        "first_p99_ms": spread(one["first"]["p99_ms"] for one in rounds),
        "failed": sum(sum(one["failures"].values()) for one in rounds),
        "others_cores": spread(one["usage"]["others_cores"] for one in rounds),
    }
    bench.say(
        f"    {service}, width {width}, {at_once} at once: "
        f"{shown(entry['cpu_us_per_call']['median'], 1)} us CPU a call, "
        f"{shown(entry['calls_per_s']['median'], 0)} calls/s"
    )
    return entry


def memory(bench: Bench) -> list[dict[str, Any]]:
    """Resident memory with so many streams open, every chunk counted, and afterwards."""
    extent = bench.extent
    found = []
    for streams in extent.streams:
        opening = max(1.0, streams / 2_500)
        chunks = round((opening + extent.hold_s + 2) * 2)
        one = bench.measure(
            "hold",
            target=bench.ours(f"paced?first_ms=100&delay_ms=500&chunks={chunks}", "resting"),
            upstream=bench.upstream.url,
            streams=streams,
            width=10,
            per_second=streams / 10 / opening,
            seconds=extent.hold_s,
            chunks=chunks,
            settle=extent.settle_s,
        )
        if one is None:
            continue
        one["streams"] = streams
        found.append(one)
        bench.say(
            f"    {one['open']:,} streams: {shown(one['rss_peak_mib'], 0)} MiB, "
            f"{one['short']} short of a chunk, after 5 s {shown(one['rss_after_mib'], 0)} MiB"
        )
    return found


def chunks_told(entries: list[dict[str, Any]]) -> list[str]:
    rows = [
        [
            f"{of['streams']} streams",
            shown(of["chunks_per_s"]["median"], 0),
            *(shown(of["cpu_us_per_chunk"][which]) for which in ("min", "median", "max")),
            shown(of["cores"]["median"]),
            str(of["lost"]),
            shown(of["others_cores"]["median"]),
        ]
        for of in entries
    ]
    head = ["", "chunks/s", "us min", "us median", "us max", "cores", "calls short", "others"]
    return table(head, rows)


def calls_told(entries: list[dict[str, Any]]) -> list[str]:
    rows = [
        [
            f"width {of['width']}, {of['at_once']} at once",
            *(shown(of["cpu_us_per_call"][which], 1) for which in ("min", "median", "max")),
            shown(of["calls_per_s"]["median"], 0),
            shown(of["wall_p50_ms"]["median"]),
            shown(of["wall_p99_ms"]["median"]),
            shown(of["first_p99_ms"]["median"]),
            str(of["failed"]),
            shown(of["others_cores"]["median"]),
        ]
        for of in entries
    ]
    head = ["", "us/call min", "median", "max", "calls/s", "wall p50", "p99", "first p99"]
    return table([*head, "failed", "others"], rows)


def memory_told(entries: list[dict[str, Any]]) -> list[str]:
    rows = [
        [
            f"{of['streams']:,}",
            f"{of['open']:,}",
            shown(of["rss_rest_mib"], 1),
            shown(of["rss_peak_mib"], 1),
            shown((of["rss_peak_mib"] - of["rss_rest_mib"]) * 1024 / of["streams"], 1),
            shown(of["rss_after_mib"], 1),
            f"{of['chunks']:,}",
            str(of["short"]),
            ", ".join(f"{kind} {n}" for kind, n in sorted(of["failures"].items())) or "none",
            f"{of['goroutines_rest']} / {of['goroutines_peak']} / {of['goroutines_after']}",
            f"{of['files_rest']} / {of['files_peak']} / {of['files_after']}",
        ]
        for of in entries
    ]
    head = ["streams", "open", "MiB rest", "held", "KiB each", "5 s after", "chunks", "calls short"]
    return table([*head, "failures", "goroutines", "files"], rows)
