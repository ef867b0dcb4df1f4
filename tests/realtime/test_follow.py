"""Readers of a live run: every fact and every character once, whatever happens to the reader."""

import asyncio
import random
from typing import Any

import pytest

from orchestration.bridge import in_database
from orchestration.domain.run import EventType
from orchestration.fanout.scripted import ScriptedClient
from orchestration.follow import follow
from orchestration.models import Run
from orchestration.reader import Cursor, cursor_from
from tests.conftest import Person
from tests.runs import answers, drive, driven, late_answers, log_of, make_run, said

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]

EMOJI = said("Ein Zebra 🦓 läuft. " * 30, every_s=0.01, words=1)


class Reader:
    """A page: folds what it gets, and fails on anything doubled, missing or out of order."""

    def __init__(self) -> None:
        self.seq = 0
        self.types: list[str] = []
        self.texts: dict[str, str] = {}
        self.overlap: Any = None

    def take(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            match event["type"]:
                case EventType.CALL_CHUNK:
                    self._text(event["call"], event)
                case EventType.SYNTHESIS_DELTA:
                    self._text(f"v{event['version']}", event)
                case EventType.OVERLAP_UPDATED:
                    self.overlap = event["overlap"]
                case kind:
                    assert event["seq"] == self.seq + 1, "a fact was lost or doubled"
                    self.seq = event["seq"]
                    self.types.append(kind)

    def _text(self, stream: str, event: dict[str, Any]) -> None:
        assert event["offset"] == len(self.texts.get(stream, "")), "text was lost or doubled"
        self.texts[stream] = self.texts.get(stream, "") + event["text"]

    @property
    def have(self) -> dict[str, tuple[int, int]]:
        return {stream: (0, len(text)) for stream, text in self.texts.items()}


async def read_all(run: Run, reader: Reader, *, drop_after: Any = None) -> None:
    """Follow to the end, dropping the connection whenever ``drop_after()`` batches have come."""
    for _ in range(3000):
        fresh = await in_database(Run.objects.everywhere().get, pk=run.pk)
        cursor = await in_database(cursor_from, fresh, reader.seq, reader.have)
        left = drop_after() if drop_after else 10**9
        async for batch in follow(run.pk, cursor, heartbeat_s=5):
            reader.take(batch)
            left -= 1
            if left <= 0:
                break
        if reader.types[-1:] == ["run.finished"]:
            return
    raise AssertionError("the run never ended for this reader")


async def test_readers_that_watch_reconnect_or_come_late_all_see_the_same(alice: Person) -> None:
    run = await in_database(make_run, alice)
    client = ScriptedClient(answers(A=EMOJI), speed=1)
    dice = random.Random(7)
    steady, nervous, worse = Reader(), Reader(), Reader()

    driving = asyncio.create_task(drive(run, client))
    await asyncio.gather(
        read_all(run, steady),
        read_all(run, nervous, drop_after=lambda: 1),
        read_all(run, worse, drop_after=lambda: dice.randint(1, 4)),
    )
    ended = await driving
    late = Reader()
    late.take(await in_database(log_of, ended))

    assert steady.types == nervous.types == worse.types == late.types
    assert steady.texts == nervous.texts == worse.texts == late.texts
    stored = await in_database(lambda: dict(run.calls.values_list("label", "text")))
    assert {label: steady.texts[label] for label in stored} == stored
    assert steady.overlap == nervous.overlap == worse.overlap == late.overlap == ended.overlap
    assert "🦓" in steady.texts["A"]


async def test_text_comes_before_the_fact_that_ends_it(alice: Person) -> None:
    run = await driven(alice)

    ended: set[str] = set()
    for event in await in_database(log_of, run):
        if event["type"] == EventType.CALL_CHUNK:
            assert event["call"] not in ended
        if event["type"] in (EventType.CALL_FINISHED, EventType.CALL_FAILED):
            ended.add(event["call"])
    assert ended == {"A", "B", "C"}


async def test_edits_are_not_shown_as_text_while_they_are_written(alice: Person) -> None:
    run = await driven(alice, late_answers())

    events = await in_database(log_of, run)
    patches = {event["version"] for event in events if event.get("kind") == "patch"}
    shown = {event["version"] for event in events if event["type"] == EventType.SYNTHESIS_DELTA}
    assert patches
    assert not patches & shown


async def test_a_reader_that_knows_more_than_the_database_starts_over(alice: Person) -> None:
    run = await driven(alice)
    cursor = await in_database(cursor_from, run, run.last_seq + 50, {"A": (0, 10)})
    assert cursor == Cursor()


async def test_a_reader_at_the_end_is_done_at_once(alice: Person) -> None:
    run = await driven(alice)
    cursor = await in_database(cursor_from, run, run.last_seq, {})
    batches = [batch async for batch in follow(run.pk, cursor, heartbeat_s=5)]
    assert batches == []
