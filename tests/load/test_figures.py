"""Figures of several rounds are added up right, and a target missed is called missed."""

import math
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fanout_load.figures import merged, quantile, shown, spread, table, without_buckets
from fanout_load.targets import verdicts

_BUCKETS = st.lists(st.tuples(st.integers(1, 10**9), st.integers(1, 50)), min_size=1)


@given(_BUCKETS, st.floats(0, 1))
def test_a_quantile_covers_its_share_and_no_smaller_duration_does(
    buckets: list[tuple[int, int]], share: float
) -> None:
    found = quantile(buckets, share)
    total = sum(count for _, count in buckets)
    at_most = sum(count for largest, count in buckets if largest / 1e6 <= found)
    below = sum(count for largest, count in buckets if largest / 1e6 < found)
    assert at_most >= share * total - 1e-6
    assert below < max(1, math.ceil(share * total))


@given(_BUCKETS, _BUCKETS)
def test_rounds_added_up_have_every_duration_of_each(
    one: list[tuple[int, int]], other: list[tuple[int, int]]
) -> None:
    rounds = [{"first": {"buckets": one}}, {"first": {"buckets": other}}]
    assert Counter(map(tuple, merged(rounds, "first"))) == Counter([*one, *other])


def test_without_a_figure_a_table_has_a_dash_and_a_spread_no_round() -> None:
    assert shown(None) == shown(quantile([], 0.5)) == "-"
    assert spread([None, math.nan]) == {"rounds": 0, "min": None, "median": None, "max": None}
    assert spread([3.0, None, 1.0, 2.0]) == {"rounds": 3, "min": 1.0, "median": 2.0, "max": 3.0}


def test_columns_of_a_table_line_up() -> None:
    lines = table(["", "a"], [["first", "1"], ["x", "10,000"]])
    assert lines == ["            a", "-------------", "first       1", "x      10,000"]


def test_what_is_written_has_no_counts_behind_its_distributions() -> None:
    result = {"rounds": [{"first": {"p50_ms": 1.0, "buckets": [[1, 1]]}}]}
    assert without_buckets(result) == {"rounds": [{"first": {"p50_ms": 1.0}}]}


def _added(p50: float, p99: float, disturbed: int = 0) -> dict[str, Any]:
    return {
        "added_p50_rounds_ms": spread([p50]),
        "added_p99_rounds_ms": spread([p99]),
        "disturbed_rounds": disturbed,
        "others_cores": spread([1.0]),
    }


def _latency(service: tuple[float, float], disturbed: int = 0) -> list[dict[str, Any]]:
    targets = {
        "direct": _added(0, 0),
        "proxy": _added(0.4, 0.8),
        "service": _added(*service, disturbed),
        "tensorzero": _added(1.0, 0.9),
        "portkey": _added(28, 30),
    }
    return [{"stream": True, "per_second": 20, "targets": targets}]


def test_the_service_is_held_to_the_bare_proxy_and_to_the_best_gateway() -> None:
    near = list(verdicts({"latency": _latency((0.45, 0.95))}))
    assert [str(verdict).rpartition(": ")[2] for verdict in near] == [
        "reached",  # 0.45 of 0.5
        "reached",  # and of TensorZero's 1.0
        "reached",  # 0.95 of 1.0
        "MISSED",  # TensorZero's p99 is 0.9
    ]
    far = list(verdicts({"latency": _latency((0.6, 3.0))}))
    assert [str(verdict).rpartition(": ")[2] for verdict in far] == [
        "MISSED",
        "reached",
        "MISSED",
        "MISSED",
    ]


def test_a_hundredth_call_among_other_programs_decides_nothing() -> None:
    found = [str(verdict) for verdict in verdicts({"latency": _latency((0.45, -9.0), 1)})]
    assert ["UNDECIDED" in line for line in found] == [False, False, True, True]


def test_both_sides_of_the_go_path_count_against_the_python_path() -> None:
    def entry(backend: str, client: float, service: float) -> dict[str, Any]:
        return {
            "backend": backend,
            "at_once": 64,
            "client_cpu_ms": spread([client]),
            "service_cpu_ms": spread([service]),
            "first_p99_ms": 60.0,
            "others_cores": spread([0.1]),
        }

    found = {"paths": [entry("go", 4, 5), entry("python", 300, 7)]}
    assert [verdict.measured for verdict in verdicts(found)] == [9, 3, 60.0]
    alone = {"paths": [entry("go", 4, 5)]}
    assert "not measured" in [str(verdict) for verdict in verdicts(alone)][1]


def test_a_call_that_stays_open_is_missed_though_its_round_has_no_time() -> None:
    def told(closed: list[int], times: list[float | None]) -> list[str]:
        entry = {"target": "service", "how": "cancel", "calls": 5, "opened": [5, 5]}
        entry |= {"closed": closed, "last_ms": spread(times)}
        return [str(verdict).rpartition(": ")[2] for verdict in verdicts({"leaving": [entry]})]

    assert told([5, 5], [7.0, 8.0]) == ["reached", "reached"]
    assert told([5, 4], [7.0, None]) == ["reached", "MISSED"]
    assert told([0, 0], [None, None]) == ["not measured", "MISSED"]


def test_every_request_inside_a_retry_after_is_one_too_many() -> None:
    found = {
        "storms": {
            "retry_after": {"seen": {"inside": 1}},
            "all_fail": {"calls": 100, "amplification": 1.29},
        }
    }
    inside, again = verdicts(found)
    assert str(inside).endswith("MISSED")
    assert str(again).endswith("reached")  # 1.2 and a floor of 10 for 100 calls
