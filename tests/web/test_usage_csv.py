"""Runs and use as CSV: what the page adds up to, and nothing a spreadsheet would run."""

import csv
import io
from collections import Counter
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import AsyncClient

from orchestration.bridge import in_database
from orchestration.models import Run
from orchestration.run_list import PAGE_SIZE
from orchestration.usage_csv import RUN_COLUMNS, USAGE_COLUMNS
from tests.conftest import Person
from tests.used_runs import NOON, cached, call, draft, failed, unpriced, used_run

# The pieces are read on database threads of their own, which see only what is committed.
pytestmark = pytest.mark.django_db(transaction=True)

DAYS = {"from": "2026-11-17", "to": "2026-11-23"}
SECRETS = ("How do lists", "an answer nobody else may read")
FORMULAS = (
    '=HYPERLINK("http://evil.example","x")',
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\tx",
    "\r=1",
    'a "quoted", name\nin two lines',
)


def make_runs(person: Person) -> None:
    home = person.workspace
    used_run(home, call(text=SECRETS[1]), cached(), drafts=(draft(text=SECRETS[1]),))
    used_run(home, unpriced(), failed(), status="degraded", at=NOON - timedelta(days=3))
    used_run(home, cached(price=None), pipeline="wait-all", started_by="bob")
    for n, formula in enumerate(FORMULAS):
        used_run(home, call(f"{formula}/m", cost_micro_usd=n), started_by=formula)


async def fetched(person: Person, address: str, **asked: str) -> tuple[Any, bytes]:
    client = AsyncClient()
    await in_database(client.force_login, person.user)
    response: Any = await client.get(address, asked)
    assert response.status_code == 200
    return response, b"".join([piece async for piece in response.streaming_content])


def read(body: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(body.decode(), newline=""), strict=True))


def summed(rows: list[dict[str, str]]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for row in rows:
        for name in ("calls", "drafts", "cached", "input_tokens", "output_tokens", "unpriced"):
            sums[name] += int(row[name])
        sums["cost_micro_usd"] += int(Decimal(row["cost_usd"] or 0) * 1_000_000)
        sums["saved_micro_usd"] += int(Decimal(row["saved_usd"] or 0) * 1_000_000)
    return sums


async def test_both_files_add_up_to_the_page(alice: Person) -> None:
    await in_database(make_runs, alice)
    told = (await in_database(alice.api().get, "/api/usage", DAYS)).json()["totals"]
    for address in ("/usage.csv", "/runs.csv"):
        _, body = await fetched(alice, address, **DAYS)
        sums = summed(read(body))
        assert sums["calls"] == 12
        assert {name: told[name] or 0 for name in sums} == dict(sums)


async def test_a_filter_holds_for_the_files_too(alice: Person) -> None:
    await in_database(make_runs, alice)
    for address in ("/usage.csv", "/runs.csv"):
        _, body = await fetched(alice, address, **DAYS, cached="1")
        rows = read(body)
        assert {row["member"] for row in rows} == {"alice", "bob"}
        sums = summed(rows)
        assert (sums["calls"], sums["cached"], sums["saved_micro_usd"]) == (2, 2, 1_400)
        assert sorted(row["saved_usd"] for row in rows) == ["", "0.001400"]


async def test_no_cell_is_a_formula_and_names_come_back_whole(alice: Person) -> None:
    await in_database(make_runs, alice)
    for address in ("/usage.csv", "/runs.csv"):
        _, body = await fetched(alice, address, **DAYS)
        rows = read(body)
        cells = [cell for row in rows for cell in row.values()]
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
        members = {row["member"].removeprefix("'") for row in rows}
        assert members == {"alice", "bob", *FORMULAS}


async def test_the_files_hold_no_prompt_and_no_answer(alice: Person) -> None:
    await in_database(make_runs, alice)
    for address in ("/usage.csv", "/runs.csv"):
        _, body = await fetched(alice, address, **DAYS)
        assert b"openai/small" in body or b"synthesis" in body
        for secret in SECRETS:
            assert secret.encode() not in body


async def test_the_files_are_csv_as_rfc_4180_has_it(alice: Person) -> None:
    await in_database(make_runs, alice)
    for address, name, columns in (
        ("/usage.csv", "rex-usage.csv", USAGE_COLUMNS),
        ("/runs.csv", "rex-runs.csv", RUN_COLUMNS),
    ):
        response, body = await fetched(alice, address, **DAYS)
        assert response["Content-Type"] == "text/csv; charset=utf-8"
        assert response["Content-Disposition"] == f'attachment; filename="{name}"'
        assert response["Cache-Control"] == "no-store"
        assert body.startswith(",".join(columns).encode() + b"\r\n")
        assert body.endswith(b"\r\n")
        assert len(read(body)) == len(list(csv.reader(io.StringIO(body.decode(), newline="")))) - 1
        assert all(None not in row and None not in row.values() for row in read(body))


async def test_every_run_of_a_long_list_is_in_the_file_once(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestration.usage_csv.RUNS_AT_A_TIME", PAGE_SIZE)

    def make() -> set[str]:
        return {
            str(used_run(alice.workspace, call(), at=NOON - timedelta(minutes=n // 2)).pk)
            for n in range(2 * PAGE_SIZE + 1)
        }

    made = await in_database(make)
    _, body = await fetched(alice, "/runs.csv")
    ids = [row["id"] for row in read(body)]
    assert len(ids) == len(made)
    assert set(ids) == made


async def test_nobody_elses_runs_are_in_the_files(alice: Person, charlie: Person) -> None:
    await in_database(make_runs, alice)
    for address in ("/usage.csv", "/runs.csv"):
        _, body = await fetched(charlie, address, **DAYS)
        assert read(body) == []
    assert await in_database(Run.objects.everywhere().count) == 10


async def test_a_question_for_the_headers_reads_no_runs(alice: Person) -> None:
    await in_database(make_runs, alice)
    client = AsyncClient()
    await in_database(client.force_login, alice.user)
    for address in ("/usage.csv", "/runs.csv"):
        response: Any = await client.head(address)
        assert (response.status_code, response.content) == (200, b"")
        assert response["Content-Type"] == "text/csv; charset=utf-8"


@pytest.mark.parametrize("asked", [{"from": "yesterday"}, {"cached": "yes"}, {"model": "\x00"}])
def test_a_file_of_something_else_than_was_asked_is_refused(
    alice: Person, asked: dict[str, str]
) -> None:
    browser = alice.browser()
    for address in ("/usage.csv", "/runs.csv"):
        assert browser.head(address, DAYS).status_code == 200
        assert browser.head(address, asked).status_code == 400
        refused = browser.get(address, asked)
        assert refused.status_code == 400
        assert " takes " in refused.content.decode(), "and why"
