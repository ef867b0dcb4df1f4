"""Making runs and driving them with scripted models, in real time but faster than life."""

import asyncio
from typing import Any

from django.utils import timezone

from orchestration.actions.claim_runs import claim_runs
from orchestration.actions.drive_run import drive_run
from orchestration.actions.start_run import RunRequest, start_run
from orchestration.bridge import in_database
from orchestration.fanout.client import ProviderClient
from orchestration.fanout.scripted import Script, ScriptedClient, Scripts
from orchestration.models import ModelPrice, Run, RunEvent
from orchestration.reader import Cursor, read_events
from tests.conftest import Person

THREE = ("local/brisk", "local/plain", "local/thorough")

A_TEXT = (
    "Lists in Python are mutable sequences of objects. Tuples are immutable sequences. "
    "Appending to a list takes constant time on average."
)
B_TEXT = (
    "A Python list is a mutable sequence of objects. Tuples are immutable sequences, so they "
    "can be dictionary keys. The default recursion limit is 1000."
)
C_TEXT = (
    "Lists can be changed in place while tuples cannot. Sorting a list takes n log n "
    "comparisons. Dictionaries keep their insertion order since version 3.7."
)


def said(text: str, *, every_s: float = 0.02, words: int = 3, ending: Any = None) -> Script:
    """A script that says ``text`` a few words at a time."""
    pieces = text.split(" ")
    chunks = [" ".join(pieces[at : at + words]) + " " for at in range(0, len(pieces), words)]
    chunks[-1] = chunks[-1].rstrip()
    script = Script([(every_s, chunk) for chunk in chunks])
    return script if ending is None else Script(script.pieces, ending)


def answers(**special: Any) -> Scripts:
    """Scripts of the three models, and a synthesizer that writes two paragraphs, then edits."""
    draft = said("Lists are mutable and tuples are immutable. [A][B]\n\nThe rest follows. [A]")
    return {
        "A": said(A_TEXT),
        "B": said(B_TEXT, every_s=0.04),
        "C": said(C_TEXT, every_s=0.06),
        "*": draft,
        **special,
    }


LATE_TEXT = (
    "Reference counting frees most objects at once. A cycle collector finds groups that keep each "
    "other alive. Small integers are cached by the interpreter. Strings that look like identifiers "
    "are interned automatically. Slots save the dictionary of every instance."
)


def late_answers() -> Scripts:
    """Scripts in which C says nothing until the others are merged, and then has news."""
    # A call that has said nothing yet may still surprise, so it is waited for.
    return answers(C=Script([(1.5, LATE_TEXT)]), **{"*": _drafts_then_edits})


def _drafts_then_edits(call: Any) -> Script:
    """A synthesizer that drafts prose, and edits with one appended sentence."""
    if not call.params.response_format:
        return said("Lists are mutable and tuples are immutable sequences of objects. [A][B]")
    schema = call.params.response_format["json_schema"]["schema"]
    base = schema["properties"]["base_version"]["const"]
    edit = (
        f'{{"base_version": {base}, "ops": [{{"op": "insert_after", "block": "b1", '
        '"md": "A late point about the garbage collector.", "sources": []}]}'
    )
    return Script([(0.01, edit)])


def priced(*models: str, input: int = 10**6, output: int = 10**6) -> None:
    """From now on ``models`` (all the tests' ones) cost so many micro-dollars a million tokens."""
    for model in models or (*THREE, "local/editor"):
        ModelPrice.objects.create(model=model, input=input, output=output)


def make_run(person: Person, **fields: Any) -> Run:
    asked = {"prompt": "How do lists and tuples differ?", "models": THREE}
    given: dict[str, Any] = fields if "replay_of" in fields else {**asked, **fields}
    return start_run(actor=person.actor, request=RunRequest(**given), request_id="test-request")


async def drive(run: Run, client: ProviderClient) -> Run:
    """Claim the run as a worker would, drive it to its end, and give back its row."""
    claimed = await in_database(claim_runs, owner="test", limit=1, now=timezone.now())
    assert [run_id for run_id, _ in claimed] == [run.pk]
    await drive_run(run_id=run.pk, fence=claimed[0][1], client=client)
    return await in_database(Run.objects.everywhere().get, pk=run.pk)


async def driven(person: Person, scripts: Scripts | None = None, **fields: Any) -> Run:
    """A run that has been driven to its end, by scripts at twice their speed."""
    run = await in_database(make_run, person, **fields)
    return await drive(run, ScriptedClient(scripts or answers(), speed=2))


def log_of(run: Run) -> list[dict[str, Any]]:
    """Every event a reader gets who comes after the end, text included."""
    cursor = Cursor()
    events: list[dict[str, Any]] = []
    while not cursor.done:
        batch = read_events(run.pk, cursor)
        assert batch, "a log without an end"
        events += batch
    return events


def types_of(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


async def until_log(run: Run, seen: Any) -> None:
    """Wait until the stored log satisfies ``seen``; bounded, so that a hang is a failure."""

    def events() -> list[dict[str, Any]]:
        rows = RunEvent.objects.filter(run=run).order_by("seq")
        return [{"seq": row.seq, "type": row.type, **row.body} for row in rows]

    for _ in range(200):
        if seen(await in_database(events)):
            return
        await asyncio.sleep(0.03)
    raise AssertionError("it never came")
