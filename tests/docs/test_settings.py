"""docs/settings.md lists what can be set, neither more nor less, with the real defaults."""

import json

from rexsite.settings import BASE_DIR, STATE_DIR, env
from tests.docs.markdown import ROOT, cells, page

SETTINGS = page("docs/settings.md")


def test_every_setting_is_listed_in_order_with_what_it_takes_and_its_help() -> None:
    table = SETTINGS.section("Rex")
    listed = list(zip(cells(table), cells(table, 1), cells(table, 3), strict=True))
    assert listed == [(f"`{each.name}`", each.kind, each.help) for each in env.settings]


def test_every_default_is_the_real_one_seen_from_a_fresh_checkout() -> None:
    listed = [cell.strip("`") for cell in cells(SETTINGS.section("Rex"), 2)]
    real = [
        each.default.replace(str(STATE_DIR), ".rex").replace(f"{BASE_DIR}/", "") or "none"
        for each in env.settings
    ]
    assert listed == real


def test_every_built_in_provider_is_listed_with_its_variables_and_address() -> None:
    table = SETTINGS.section("Providers")
    rows = json.loads((ROOT / "go/fanout-service/api/providers.json").read_text())["providers"]
    for column, expected in (
        (0, [f"{row['title']}: `{row['name']}/…`" for row in rows]),
        (1, [key_of(row) for row in rows]),
        (2, [f"`{row['base_url_env']}`" for row in rows]),
        (3, [f"`{row['base_url']}`" if row["base_url"] else NO_ADDRESS for row in rows]),
    ):
        assert cells(table, column)[: len(rows)] == expected


NO_ADDRESS = "none: set one to use it"


def key_of(row: dict[str, str | bool | None]) -> str:
    if row["api_key_env"] is None:
        return "none"
    return f"`{row['api_key_env']}`" + ("" if row["key_required"] else " (optional)")
