"""The server's words and numbers, from the same table the live page's are tested with."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestration.templatetags import rex_format

TABLE: dict[str, list[list[Any]]] = json.loads(
    Path(__file__).with_name("words.json").read_text(encoding="utf-8")
)
STATES = {"q": "queued", "s": "streaming", "d": "done", "f": "failed", "c": "cancelled"}


def run_with(given: dict[str, Any]) -> dict[str, Any]:
    """The part of a snapshot that a sentence about its synthesis depends on."""
    versions = []
    if "shown" in given:
        versions.append({"version": 1, "state": "applied", "sources": given["shown"]})
    if "writing" in given:
        versions.append({"version": 2, "state": "running", "sources": given["writing"]})
    return {
        "status": given["status"],
        "degraded": given.get("degraded", False),
        "calls": [{"state": STATES[letter]} for letter in given["calls"]],
        "synthesis": {
            "state": given["state"],
            "version": 1 if "shown" in given else 0,
            "versions": versions,
            "blocks": [],
        },
    }


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [(name, given, expected) for name, cases in TABLE.items() for given, expected in cases],
)
def test_server_says_what_the_live_page_says(name: str, given: Any, expected: str) -> None:
    if name == "synthesis_sentence":
        given = run_with(given)
    assert getattr(rex_format, name)(given) == expected
