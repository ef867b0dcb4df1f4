"""docs/errors.md has a row for every kind and every code, saying what the code does."""

import re

import pytest

from orchestration.domain.errors import ERROR_ROWS, ErrorKind
from orchestration.domain.routing import ProviderNotConfigured, RoutingError, UnknownModel
from orchestration.problems import PROBLEMS
from tests.docs.markdown import cells, page, ticked

ERRORS = page("docs/errors.md")
KINDS = ERRORS.section("Kinds")
CODES = ERRORS.section("API codes")


def names(table: str) -> list[str]:
    return [ticked(cell)[0] for cell in cells(table)]


def test_every_kind_has_a_row_in_the_order_of_the_code() -> None:
    assert names(KINDS) == [kind.value for kind in ErrorKind]


def test_a_row_of_a_kind_says_what_the_table_in_the_code_says() -> None:
    said = list(zip(*(cells(KINDS, column) for column in range(1, 6)), strict=True))
    assert said == [
        (
            row.sentence,
            row.state,
            yes_or_no(row.retryable),
            yes_or_no(row.moves_breaker),
            str(row.http_status),
        )
        for row in ERROR_ROWS.values()
    ]


def yes_or_no(value: bool) -> str:
    return "yes" if value else "no"


def test_every_code_of_the_api_has_a_row_with_its_status_its_sentence_and_advice() -> None:
    rows = list(zip(names(CODES), cells(CODES, 1), cells(CODES, 2), strict=True))
    assert rows == [(code, str(each.status), each.detail) for code, each in PROBLEMS.items()]
    assert all(cells(CODES, 3))


def test_every_name_is_an_anchor_and_no_anchor_stands_twice() -> None:
    anchors = re.findall(r'<a id="([^"]+)"', ERRORS.text)
    assert sorted(anchors) == sorted({*ErrorKind, *PROBLEMS})


@pytest.mark.parametrize("error", [RoutingError, UnknownModel, ProviderNotConfigured])
def test_what_routing_raises_is_a_code_of_the_api(error: type[RoutingError]) -> None:
    assert error.code in PROBLEMS
