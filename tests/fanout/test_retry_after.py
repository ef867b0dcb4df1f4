"""How long a provider asks to wait, as the service reads it (provider/retryafter_test.go)."""

from datetime import UTC, datetime

import pytest

from orchestration.fanout.upstream_errors import retry_after_ms

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "value", "wait_ms"),
    [
        ("retry-after", "0.25", 250),
        ("retry-after-ms", "1500", 1500),
        ("retry-after", "Mon, 23 Nov 2026 12:00:07 GMT", 7000),
        ("retry-after", "86400", 86_400_000),
        ("retry-after", "86401", None),
        ("retry-after", "1e300", None),
        ("retry-after-ms", "1e12", None),
        ("retry-after", "Wed, 24 Nov 2027 12:00:00 GMT", None),
        ("retry-after", "-5", None),
        ("retry-after", "soon", None),
    ],
)
def test_a_wait_is_read_in_every_form_and_nonsense_is_not_told(
    name: str, value: str, wait_ms: int | None
) -> None:
    assert retry_after_ms({name: value}, NOON) == wait_ms
