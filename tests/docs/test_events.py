"""docs/events.md lists every field of every fact and of the snapshot: compared with real ones."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import pytest
from django.http import HttpRequest
from django.utils import timezone

from orchestration.domain import synthesis as domain
from orchestration.domain.errors import ErrorKind
from orchestration.domain.run import TRANSIENT, EventType
from orchestration.driving.bill import Terms
from orchestration.driving.journal import Journal
from orchestration.fanout import wire
from orchestration.live import LiveTails
from orchestration.models import Call, Run, Synthesis
from orchestration.problems import problem_body
from orchestration.queries import snapshot_of
from tests.docs.markdown import cells, page, ticked
from workspaces.models import Workspace

# Written by start_run, before there is a driver.
BY_OTHERS = {EventType.RUN_STARTED}

ANSWER = "Harbour lights warm the granite quay. Falcons nest above the velvet meadow each spring."
USAGE = wire.Usage(
    input_tokens=12, output_tokens=30, cached_tokens=0, reasoning_tokens=0, estimated=False
)
TIMING = wire.Timing(queued=0, admitted=0, connect=1, first_token=100, last_token=900)


class Played:
    """A journal to which runs are played; ``facts`` is what it would have written, in order."""

    def __init__(self, *labels: str) -> None:
        run_id, tails = uuid4(), LiveTails()
        tails.open(run_id)
        self.at_ms = 0
        self.facts: list[tuple[EventType, frozenset[str]]] = []
        self.journal = Journal(
            run_id=run_id,
            models={label: f"local/{label}" for label in labels},
            synthesizer="local/editor",
            price=None,
            terms=Terms(lambda model: None),
            tails=tails,
            head=1,
        )
        self.journal.fold(domain.RunStarted(labels, seed="seed", deadline_s=60.0), 0)

    def call(self, event: wire.Event) -> None:
        self.at_ms += 100
        self.journal.calls.take_in(event, self.at_ms)
        self.take()

    def synthesis(self, version: int, event: wire.Event) -> None:
        self.at_ms += 100
        self.journal.versions.take_in(version, event, self.at_ms)
        self.take()

    def command(self, command: domain.Command) -> None:
        self.journal.accept(command, self.at_ms)
        self.take()

    def stop(self) -> None:
        self.journal.stop(self.at_ms)
        self.take()

    def take(self) -> None:
        for event in self.journal.take().events:
            self.facts.append((event.type, frozenset(event.body)))


def an_answer(label: str) -> Iterator[wire.Event]:
    yield wire.Started(label, 1, attempt=1, reason="first", provider="local", model=label)
    yield wire.Chunk(call=label, at_ms=100, text=ANSWER)
    yield wire.Finished(
        call=label, at_ms=900, attempt=1, provider="local", model=label, finish_reason="stop",
        usage=USAGE, timing_ms=TIMING, cached_age_ms=None,
    )  # fmt: skip


def a_failed_attempt(label: str) -> Iterator[wire.Event]:
    yield wire.Started(label, 1, attempt=1, reason="first", provider="local", model=label)
    yield wire.AttemptFailed(
        call=label, at_ms=4, attempt=1, kind=ErrorKind.OVERLOADED, message="Busy.", retryable=True,
        status=503, retry_after_ms=None, wait_ms=200, usage=None, timing_ms=TIMING,
    )  # fmt: skip


def a_failure(label: str) -> wire.Failed:
    return wire.Failed(
        call=label, at_ms=5, attempt=1, kind=ErrorKind.CONNECTION,
        message="It could not be reached.", retryable=True, status=None, retry_after_ms=None,
        usage=None, timing_ms=TIMING,
    )  # fmt: skip


@pytest.fixture(scope="module")
def written() -> dict[EventType, set[frozenset[str]]]:
    """Two answers, a failed call, a version that is given up, one that is applied, a stop."""
    played = Played("A", "B", "C")
    for event in (*an_answer("A"), *an_answer("B")):
        played.call(event)
    played.command(domain.CancelCall("C", "stop.superseded"))
    for event in (*a_failed_attempt("C"), a_failure("C")):
        played.call(event)

    sources = (domain.Source("A", len(ANSWER)), domain.Source("B", len(ANSWER)))
    for version in (1, 2):
        played.command(domain.StartSynthesis(version, "draft", 0, sources, "all"))
        if version == 1:
            played.command(domain.CancelCall("v1", "stop.superseded"))
            played.synthesis(1, a_failure("v1"))
    for event in an_answer("v2"):
        played.synthesis(2, event)
    played.stop()
    played.command(domain.Finalise(2, "promote"))
    played.command(domain.FinishRun("degraded"))

    facts: dict[EventType, set[frozenset[str]]] = {}
    for kind, fields in played.facts:
        facts.setdefault(kind, set()).add(fields)
    return facts


def documented() -> dict[str, tuple[set[str], set[str]]]:
    """Fact → the fields that are always there, and those that may be missing."""
    events = page("docs/events.md")
    section = events.section("Facts")
    outcome = re.search(r"\*\*Outcome\*\* is ((?:`\w+`\s*)+)", section)
    assert outcome
    optional = set(ticked(outcome[1]))
    rows = [row.strip("|").split("|") for row in section.splitlines() if row.startswith("| `")]
    return {
        kind.strip().strip("`"): (set(ticked(fields)), optional if "outcome" in fields else set())
        for kind, _, fields in rows
    }


def test_the_played_run_writes_every_fact_a_driver_can_write(
    written: dict[EventType, set[frozenset[str]]],
) -> None:
    assert set(written) == set(EventType) - TRANSIENT - BY_OTHERS


@pytest.mark.parametrize("kind", sorted(set(EventType) - TRANSIENT - BY_OTHERS))
def test_the_documented_fields_of_a_fact_are_the_written_ones(
    kind: EventType, written: dict[EventType, set[frozenset[str]]]
) -> None:
    always, sometimes = documented()[kind.value]
    for fields in written[kind]:
        assert fields >= always
        assert fields <= always | sometimes


@pytest.fixture
def snapshot(db: None) -> dict[str, Any]:
    """A run whose draft is being written."""
    run = Run.objects.create(
        workspace=Workspace.objects.create(slug="alice", name="Alice's"),
        prompt="Why is the sky blue?",
        pipeline="synthesis",
        pipeline_version=1,
        settings={"policy": "balanced"},
        synthesizer="local/editor",
        deadline_s=60,
        status="running",
        created_at=timezone.now(),
    )
    Call.objects.create(run=run, label="A", model="local/brisk", provider="local")
    Synthesis.objects.create(
        run=run, version=1, base_version=0, kind="draft", trigger="chunks", started_ms=900
    )
    return snapshot_of(run)


def test_the_documented_fields_of_the_snapshot_are_the_real_ones(snapshot: dict[str, Any]) -> None:
    table = page("docs/events.md").section("The snapshot")
    documented = {name for cell in cells(table) for name in ticked(cell)}
    assert documented == set(snapshot)


@pytest.mark.parametrize(
    "part", ["pipeline", "totals", "calls[]", "synthesis", "live", "versions[]"]
)
def test_the_documented_fields_of_each_part_of_the_snapshot_are_the_real_ones(
    part: str, snapshot: dict[str, Any]
) -> None:
    text = page("docs/events.md").text
    listed = re.search(rf"^`{re.escape(part)}`: (.+?)\n\n", text, re.MULTILINE | re.DOTALL)
    assert listed
    where: Mapping[str, Any] = snapshot | snapshot["synthesis"]
    real = where[part.removesuffix("[]")]
    assert set(ticked(listed[1])) == set(real[0] if part.endswith("[]") else real)


def test_the_example_of_an_error_is_what_the_api_answers() -> None:
    example = json.loads(page("docs/events.md").code("json")[-1])
    real = problem_body(HttpRequest(), example["code"], field="prompt")
    assert example | {"request_id": ""} == real
