"""A program that fails or hangs costs its own figure, not the measurements before it."""

import sys
from pathlib import Path
from typing import Any

import pytest

from fanout_load.bench import QUICK, Bench
from fanout_load_test import _options, _said


@pytest.fixture
def bench() -> Bench:
    nothing: Any = None
    return Bench(
        stack=nothing,
        generator=Path("fanoutload"),
        contract=2,
        extent=QUICK,
        upstream=nothing,
        proxy=nothing,
        services={},
        peers={},
        say=lambda _: None,
    )


def ran(bench: Bench, program: str) -> dict[str, Any] | None:
    return bench.run("the figure", [sys.executable, "-c", program], {"calls": 3})


def test_what_a_program_makes_of_its_orders_is_the_figure(bench: Bench) -> None:
    assert ran(bench, "print(input())") == {"calls": 3}
    assert bench.problems == []


def test_a_program_that_fails_is_a_problem_in_its_last_words(bench: Bench) -> None:
    assert ran(bench, "raise SystemExit('once\\nfanoutload: no upstream')") is None
    assert bench.problems == ["the figure: no upstream"]


def test_a_program_that_hangs_is_a_problem_too(bench: Bench) -> None:
    bench.patience_s = 0.2
    assert ran(bench, "import time; time.sleep(60)") is None
    assert bench.problems == ["the figure: no end within 0.2 s"]


@pytest.mark.parametrize(
    "given",
    [[], ["--quick"], ["--peers", "litellm", "portkey"], ["--quick", "--peers", "tensorzero"]],
)
def test_a_report_tells_the_options_it_was_made_with(given: list[str]) -> None:
    assert _said(_options(given)) == given
