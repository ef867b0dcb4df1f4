"""Policies are data: presets, and settings that are refused with the reason."""

from typing import Any

import pytest

from orchestration.domain.policies import PRESETS, Policy, PolicyError, from_mapping


def test_nothing_given_is_balanced() -> None:
    assert from_mapping({}) == PRESETS["balanced"] == Policy()


def test_settings_lie_on_top_of_a_preset() -> None:
    policy = from_mapping({"preset": "fast", "grace_s": 1, "deadline_s": None})
    assert policy.quorum_share == PRESETS["fast"].quorum_share
    assert (policy.grace_s, policy.deadline_s) == (1, None)
    assert policy.name == "fast+"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"preset": "hasty"}, "preset"),
        ({"preset": ["fast"]}, "preset"),
        ({"quorom": 0.5}, "quorom"),
        ({"quorum_share": 1.5}, "quorum_share"),
        ({"quorum_share": "0.5"}, "quorum_share"),
        ({"quorum_share": float("nan")}, "quorum_share"),
        ({"grace_s": True}, "grace_s"),
        ({"max_calls": 2.0}, "max_calls"),
        ({"max_calls": 0}, "max_calls"),
        ({"revise": "burn"}, "revise"),
        ({"late": None}, "late"),
        ({"name": ""}, "name"),
    ],
)
def test_a_setting_that_cannot_be_used_names_itself(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(PolicyError) as refused:
        from_mapping(settings)
    assert refused.value.field == field
    assert str(refused.value).startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("calls", "quorum"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (8, 5), (10, 6)]
)
def test_the_quorum_is_six_tenths_and_at_least_two(calls: int, quorum: int) -> None:
    assert PRESETS["balanced"].quorum(calls) == quorum


def test_wait_all_waits_for_all() -> None:
    assert [PRESETS["wait_all"].quorum(n) for n in (1, 2, 5, 100)] == [1, 2, 5, 100]
