"""Numbers of several rounds: added up, compared, and in words that fit a table."""

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

# A round in which others used more of the machine than this says little about us.
DISTURBED_CORES = 0.3


def quantile(buckets: Iterable[Sequence[int]], share: float) -> float:
    """Milliseconds that at least ``share`` of the counted durations do not exceed; nan for none.

    ``buckets`` are pairs of the largest nanoseconds and a count, of any number of rounds.
    """
    ordered = sorted((bucket[0], bucket[1]) for bucket in buckets)
    rank = max(1, math.ceil(share * sum(count for _, count in ordered)))
    for largest, count in ordered:
        rank -= count
        if rank <= 0:
            return largest / 1e6
    return math.nan


def merged(rounds: Iterable[dict[str, Any]], what: str) -> list[Sequence[int]]:
    """The buckets of the distribution ``what`` of all rounds."""
    return [bucket for one in rounds for bucket in one[what]["buckets"]]


def spread(values: Iterable[float | None]) -> dict[str, float | int | None]:
    """Least, median and largest of the rounds that have a value."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    if not known:
        return {"rounds": 0, "min": None, "median": None, "max": None}
    return {
        "rounds": len(known),
        "min": round(min(known), 4),
        "median": round(median(known), 4),
        "max": round(max(known), 4),
    }


def without_buckets(value: Any) -> Any:
    """A result without the counts behind its distributions: they are only for adding up."""
    if isinstance(value, dict):
        return {name: without_buckets(part) for name, part in value.items() if name != "buckets"}
    if isinstance(value, list):
        return [without_buckets(part) for part in value]
    return value


def shown(value: float | int | None, digits: int = 2) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:,.{digits}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines in columns: the first to the left, the others to the right."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    told = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return [told[0], "-" * len(told[0]), *told[1:]]
