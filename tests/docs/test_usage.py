"""docs/usage.md lists the parameters and the fields there are."""

from django.urls import resolve

from orchestration.domain.spans import PERIODS
from orchestration.run_filter import PARAMETERS
from orchestration.usage_sums import Sums
from tests.docs.markdown import cells, page, ticked

USAGE = page("docs/usage.md")


def test_every_field_of_the_sums_is_listed() -> None:
    listed = [ticked(cell)[0] for cell in cells(USAGE.section("What counts"))]
    assert listed == list(Sums().as_json())


def test_every_parameter_is_listed() -> None:
    listed = [ticked(cell)[0] for cell in cells(USAGE.section("Asking for some runs"))]
    assert listed == list(PARAMETERS)


def test_the_periods_and_the_addresses_are_real() -> None:
    text = USAGE.section("The numbers as JSON and CSV")
    assert all(f"`{period}`" in text for period in PERIODS)
    for address in ("/usage/", "/usage.csv", "/runs.csv", "/api/usage", "/api/runs"):
        assert f"{address}`" in USAGE.text
        resolve(address)  # raises for what is nowhere
