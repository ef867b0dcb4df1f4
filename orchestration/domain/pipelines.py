"""Pipelines as data: which policy synthesizes, and how. A version, once used, is never edited."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Pipeline:
    """``policy`` names a preset of ``domain.policies``; ``None`` shows one answer as it is."""

    name: str
    version: int
    title: str
    description: str
    policy: str
    max_models: int | None = None


class UnknownPipeline(ValueError):
    """No pipeline of that name (and version). ``known`` lists what there is."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"There is no pipeline {name!r}.")
        self.known = known


DEFAULT_PIPELINE = "synthesis"

_ALL = (
    Pipeline(
        "synthesis",
        1,
        "Synthesis",
        "Starts writing after the first paragraphs, then revises as answers come in.",
        "balanced",
    ),
    Pipeline(
        "fast",
        1,
        "Fast",
        "Settles for fewer answers and does not wait for slow ones.",
        "fast",
    ),
    Pipeline(
        "thorough",
        1,
        "Thorough",
        "Revises early, but ends only when every answer is in.",
        "thorough",
    ),
    Pipeline(
        "wait-all",
        1,
        "Wait for all",
        "Writes once, after every answer. The control to compare the others with.",
        "wait_all",
    ),
    Pipeline(
        "single",
        1,
        "Single",
        "Asks one model and shows its answer as it is.",
        "balanced",
        max_models=1,
    ),
)
PIPELINES: Mapping[str, Pipeline] = MappingProxyType({each.name: each for each in _ALL})


def find_pipeline(name: str) -> Pipeline:
    """The pipeline called ``name`` or ``name@version``; raises UnknownPipeline."""
    bare, at, version = name.partition("@")
    found = PIPELINES.get(bare)
    if found is None or (at and version != str(found.version)):
        raise UnknownPipeline(name, tuple(PIPELINES))
    return found
