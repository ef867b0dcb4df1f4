"""What the service is to reach, and whether the figures of a run do."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fanout_load.figures import DISTURBED_CORES, shown

_NOT_GATEWAYS = ("direct", "proxy", "service")
# Less than this between two medians is the machine's noise, not a difference.
_NOISE_MS = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """A figure that must be at most ``limit``. ``measured`` is None where there is no figure."""

    what: str
    unit: str
    limit: float
    measured: float | None
    # Why the figure decides nothing, "" where it does.
    doubt: str = ""

    def __str__(self) -> str:
        if self.measured is None:
            word = "not measured"
        elif self.doubt:
            word = f"UNDECIDED, {self.doubt}"
        else:
            word = "reached" if self.measured <= self.limit else "MISSED"
        return (
            f"- {self.what}: {shown(self.measured)}, at most {shown(self.limit)}"
            f" {self.unit}: {word}".replace(" :", ":")
        )


def told(sections: Mapping[str, Any]) -> list[str]:
    return [str(verdict) for verdict in verdicts(sections)]


def verdicts(sections: Mapping[str, Any]) -> Iterator[Verdict]:
    for entry in sections.get("latency", []):
        if entry["stream"]:
            yield from _added(entry)
    for entry in sections.get("chunks", []):
        if entry["streams"] >= 1_000:
            what = f"CPU a chunk at {shown(entry['chunks_per_s']['median'], 0)} chunks/s"
            yield Verdict(what, "us", 12, entry["cpu_us_per_chunk"]["median"])
    for name, entries in sections.get("calls", {}).items():
        for entry in entries:
            if entry["width"] >= 10:
                what = f"CPU a call at width {entry['width']}, {name}"
                yield Verdict(what, "us", 100, entry["cpu_us_per_call"]["median"])
    for entry in sections.get("memory", []):
        if entry["streams"] >= 10_000:
            what = f"memory of {entry['streams']:,} streams"
            held = entry["open"] >= entry["streams"]
            doubt = "" if held else f"only {entry['open']:,} were held"
            yield Verdict(what, "MiB", 450, entry["rss_peak_mib"], doubt)
            yield Verdict("calls short of a chunk among them", "", 0, entry["short"])
    for entry in sections.get("leaving", []):
        if entry["target"] == "service":
            what = f"{entry['calls']} calls closed after {entry['how']}"
            yield Verdict(what, "ms", 100, entry["last_ms"]["max"])
            # A round that leaves one open has no such time, and would go unseen above.
            opened, closed = sum(entry["opened"]), sum(entry["closed"])
            left = opened - closed if opened else None
            yield Verdict("those that stayed open", "", 0, left)
    yield from _paths(sections.get("paths", []))
    yield from _storms(sections.get("storms", {}))


def _added(entry: dict[str, Any]) -> Iterator[Verdict]:
    """Medians of the rounds' differences: a busy moment spoils a round, not the figure."""
    of = entry["targets"]
    if "service" not in of or "proxy" not in of:
        return
    for which in ("p50", "p99"):

        def added(name: str, which: str = which) -> float:
            return float(of[name][f"added_{which}_rounds_ms"]["median"])

        what = f"added to the first text at {entry['per_second']:g}/s, {which}"
        limit = max(1.25 * added("proxy"), _NOISE_MS)
        # A median call hardly notices other programs; the hundredth call is theirs alone.
        doubt = _disturbed(of) if which == "p99" else ""
        yield Verdict(what, "ms, 1.25 x the bare proxy", limit, added("service"), doubt)
        gateways = [(added(name), name) for name in of if name not in _NOT_GATEWAYS]
        if gateways:
            best, name = min(gateways)
            unit = f"ms, the best gateway ({name})"
            yield Verdict(f"the same, {which}", unit, best, added("service"), doubt)


def _disturbed(of: dict[str, Any]) -> str:
    """Why a 99th percentile says nothing: others were busy in most rounds."""
    rounds = of["service"]["others_cores"]["rounds"]
    disturbed = max(of[name]["disturbed_rounds"] for name in ("service", "proxy"))
    if 2 * disturbed <= rounds:
        return ""
    return f"others were at work in {disturbed} of {rounds} rounds"


def _paths(entries: list[dict[str, Any]]) -> Iterator[Verdict]:
    at_64 = {entry["backend"]: entry for entry in entries if entry["at_once"] == 64}
    if "go" not in at_64 or at_64["go"]["client_cpu_ms"]["median"] is None:
        return
    go = at_64["go"]
    both = go["client_cpu_ms"]["median"] + go["service_cpu_ms"]["median"]
    yield Verdict("CPU of 8 x 64 chunks, 64 at once, Python and Go", "ms", 10, both)
    litellm = at_64.get("python", {}).get("client_cpu_ms", {}).get("median")
    share = both / litellm * 100 if litellm else None
    yield Verdict("the same, of the LiteLLM path", "%", 4, share)
    busy = (go["others_cores"]["median"] or 0) > DISTURBED_CORES
    doubt = "others were at work" if busy else ""
    yield Verdict("first text p99 of them", "ms", 65, go["first_p99_ms"], doubt)


def _storms(found: dict[str, Any]) -> Iterator[Verdict]:
    if storm := found.get("retry_after"):
        yield Verdict("requests inside a Retry-After", "", 0, storm["seen"]["inside"])
    for name, of in (("all_fail", "one model"), ("all_fail_apart", "each fan-out's own model")):
        if not (down := found.get(name)):
            continue
        # A tenth more, and a floor of 5 in each 10 s, of which the run may touch two.
        limit = 1.2 + 10 / down["calls"]
        what = f"requests a call when all fail, {of}"
        yield Verdict(what, "", limit, down["amplification"])
