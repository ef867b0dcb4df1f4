"""Pipelines as data: each leads to a policy that exists, and unknown ones are named as such."""

import dataclasses

import pytest

from orchestration.domain.pipelines import (
    DEFAULT_PIPELINE,
    PIPELINES,
    UnknownPipeline,
    find_pipeline,
)
from orchestration.domain.policies import PRESETS, from_mapping

EVERY_PIPELINE = pytest.mark.parametrize("name", sorted(PIPELINES))


@EVERY_PIPELINE
def test_a_pipeline_is_found_by_name_and_by_name_and_version(name: str) -> None:
    pipeline = find_pipeline(name)
    assert pipeline is PIPELINES[name]
    assert find_pipeline(f"{name}@{pipeline.version}") is pipeline


@EVERY_PIPELINE
def test_a_pipelines_policy_is_a_preset_that_can_be_read_back_from_a_stored_run(name: str) -> None:
    policy = PIPELINES[name].policy
    assert policy in PRESETS
    assert from_mapping({"preset": policy}) == PRESETS[policy]


@EVERY_PIPELINE
def test_a_pipeline_is_described_for_people_and_cannot_be_changed(name: str) -> None:
    pipeline = PIPELINES[name]
    assert pipeline.title
    assert pipeline.description.endswith(".")
    with pytest.raises(dataclasses.FrozenInstanceError):
        pipeline.policy = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        PIPELINES["other"] = pipeline  # type: ignore[index]


def test_the_default_and_the_control_are_there() -> None:
    assert PIPELINES[DEFAULT_PIPELINE].policy == "balanced"
    assert PIPELINES["wait-all"].policy == "wait_all"
    assert PIPELINES["single"].max_models == 1


@pytest.mark.parametrize(
    "name",
    ["", "nope", "Synthesis", "synthesis@", "synthesis@0", "synthesis@99", "synthesis@1@1",
     "synthesis@01", "@1", "synthesis ", "\x00"],
)  # fmt: skip
def test_any_other_name_is_unknown_and_the_error_lists_what_there_is(name: str) -> None:
    with pytest.raises(UnknownPipeline) as unknown:
        find_pipeline(name)
    assert unknown.value.known == tuple(PIPELINES)
