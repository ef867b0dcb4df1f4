"""A run as the server would tell it, made by hand: a snapshot, the frames after it, and its end.

For looking at the live page, and testing it, without models, a database or a clock.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

RUN_ID = "0b6f0c1e-41f2-4c53-9a44-2f6f1f1f41f2"
QUESTION = (
    "Our team of six runs one Django monolith. Should we split it into microservices this year?"
)

ANSWERS = {
    "A": """Probably not this year. A team of six spends more on running several services than it \
gains from splitting them.

- **Deployments** multiply: every service needs its own pipeline, alerts and on-call notes.
- **Debugging** crosses the network, and a stack trace no longer tells the whole story.

Start with clear module boundaries inside the monolith. They cost little and make a later split \
possible.""",
    "B": """No, with one exception. A team of six spends more on running several services than it \
gains from splitting them. 🙂

The exception is a part with very different load, such as video encoding or search indexing. Move \
*that* behind a queue and keep the rest together.

```python
# one worker, same repository
@shared_task
def encode(video_id: int) -> None:
    Video.objects.get(pk=video_id).encode()
```

Expect the first service to take about three months.""",
    "C": """It depends on what hurts today.

| Symptom | Does splitting help? |
| --- | --- |
| Slow test suite | no, run it in parallel |
| Teams block each other | yes, with more than two teams |
| One part needs to scale | yes, for that part |

Start with clear module boundaries inside the monolith. Expect the first service to take about six \
weeks.""",
}
MODELS = {"A": "local/brisk", "B": "local/plain", "C": "local/thorough"}

AGREED: list[dict[str, Any]] = [
    {
        "text": "A team of six spends more on running several services than it gains from "
        "splitting them.",
        "labels": ["A", "B"],
    },
    {"text": "Start with clear module boundaries inside the monolith.", "labels": ["A", "C"]},
]
DISPUTED: list[dict[str, Any]] = [
    {
        "variants": [
            {"label": "B", "text": "Expect the first service to take about three months."},
            {"label": "C", "text": "Expect the first service to take about six weeks."},
        ]
    }
]
OVERLAP = {
    "agreed": AGREED,
    "disputed": DISPUTED,
    "totals": {"agreed": len(AGREED), "disputed": len(DISPUTED)},
    "single": {"A": 2, "B": 3, "C": 4},
}
BLOCKS: dict[int, list[dict[str, Any]]] = {
    1: [
        {
            "id": "b1",
            "md": "**Not this year.** A team of six spends more on running several services than "
            "it gains from splitting them: every service needs its own pipeline, alerts and "
            "on-call notes.",
            "sources": ["A", "B"],
            "disputes": [],
            "status": "agreed",
        },
        {
            "id": "b2",
            "md": "Start with clear module boundaries inside the monolith. They cost little and "
            "make a later split possible.",
            "sources": ["A"],
            "disputes": [],
            "status": "single",
        },
    ]
}
BLOCKS[2] = [
    *deepcopy(BLOCKS[1]),
    {
        "id": "b3",
        "md": "There is **one exception**: a part with very different load, such as video encoding "
        "or search indexing. Move that behind a queue and keep the rest together.\n\n"
        "```python\n@shared_task\ndef encode(video_id: int) -> None:\n"
        "    Video.objects.get(pk=video_id).encode()\n```",
        "sources": ["B"],
        "disputes": [],
        "status": "single",
    },
]
BLOCKS[3] = [
    *deepcopy(BLOCKS[2]),
    {
        "id": "b4",
        "md": "How long the first service takes is open: estimates run from six weeks to three "
        "months.",
        "sources": ["B"],
        "disputes": ["C"],
        "status": "disputed",
    },
]
BLOCKS[3][1]["sources"] = ["A", "C"]
BLOCKS[3][1]["status"] = "agreed"


def start() -> dict[str, Any]:
    """The snapshot of the run when it has just been accepted (seq 1)."""
    return {
        "id": RUN_ID,
        "url": f"/runs/{RUN_ID}/",
        "seq": 1,
        "status": "queued",
        "reason": None,
        "message": "",
        "prompt": QUESTION,
        "pipeline": {"name": "synthesis", "version": 1, "policy": "balanced"},
        "created_at": "2026-11-23T12:00:00.000Z",
        "started_at": None,
        "ended_at": None,
        "now": "2026-11-23T12:00:00.100Z",
        "deadline_s": 180,
        "answer": None,
        "answer_state": "none",
        "degraded": False,
        "totals": {
            "duration_ms": None,
            "input_tokens": 0,
            "output_tokens": 0,
            "cost_micro_usd": 0,
            "ttfs_ms": None,
            "ttms_ms": None,
            "ttf_ms": None,
        },
        "calls": [
            {
                "label": label,
                "model": MODELS[label],
                "title": MODELS[label],
                "provider": "local",
                "state": "queued",
                "reason": None,
                "message": "",
                "attempt": 1,
                "stopping": False,
                "started_ms": None,
                "first_token_ms": None,
                "duration_ms": None,
                "tokens_per_s": None,
                "input_tokens": 0,
                "output_tokens": 0,
                "usage_estimated": False,
                "cost_micro_usd": None,
                "finish_reason": None,
                "rev": 0,
                "text": "",
            }
            for label in ANSWERS
        ],
        "synthesis": {
            "state": "waiting",
            "version": 0,
            "final_version": None,
            "model": "local/editor",
            "title": "local/editor",
            "blocks": [],
            "live": None,
            "versions": [],
        },
        "overlap": None,
    }


@dataclass(slots=True)
class Script:
    """Frames in order; ``marks`` names how many frames lead to a moment worth looking at."""

    frames: list[list[dict[str, Any]]] = field(default_factory=list)
    marks: dict[str, int] = field(default_factory=dict)
    seq: int = 1
    sent: dict[str, int] = field(default_factory=dict)

    def mark(self, name: str) -> None:
        self.marks[name] = len(self.frames)

    def fact(self, event_type: str, at_ms: int, /, **fields: Any) -> None:
        self.seq += 1
        at = f"2026-11-23T12:00:{at_ms // 1000:02d}.{at_ms % 1000:03d}Z"
        self.frames.append(
            [{"seq": self.seq, "type": event_type, "at": at, "at_ms": at_ms, **fields}]
        )

    def text(self, label: str, upto: int | None = None) -> None:
        """The next characters of an answer, up to ``upto`` (all of it when None)."""
        start, whole = self.sent.get(label, 0), ANSWERS[label]
        piece = whole[start:upto]
        self.sent[label] = start + len(piece)
        self.transient("call.chunk", call=label, rev=0, offset=start, text=piece)

    def delta(self, version: int, offset: int, text: str) -> None:
        self.transient("synthesis.delta", version=version, rev=0, offset=offset, text=text)

    def transient(self, kind: str, **fields: Any) -> None:
        self.frames.append([{"seq": self.seq, "type": kind, **fields}])

    def started(self, version: int, at_ms: int, kind: str, sources: list[str]) -> None:
        self.fact(
            "synthesis.started",
            at_ms,
            version=version,
            kind=kind,
            base_version=version - 1,
            sources=sources,
            trigger="chunks",
            model="local/editor",
            late=False,
        )

    def revised(
        self, version: int, at_ms: int, kind: str, sources: list[str], changed: list[str]
    ) -> None:
        self.fact(
            "synthesis.revised",
            at_ms,
            version=version,
            kind=kind,
            base_version=version - 1,
            sources=sources,
            blocks=BLOCKS[version],
            changed=changed,
            late=False,
            input_tokens=420,
            output_tokens=96,
            cost_micro_usd=1260,
            first_token_ms=310,
            duration_ms=1500,
        )

    def finished(self, label: str, at_ms: int, first_token_ms: int, tokens: int) -> None:
        self.fact(
            "call.finished",
            at_ms,
            call=label,
            finish_reason="stop",
            input_tokens=64,
            output_tokens=tokens,
            cached_tokens=0,
            usage_estimated=False,
            cost_micro_usd=tokens * 12,
            first_token_ms=first_token_ms,
            duration_ms=at_ms - 40,
            tokens_per_s=round(tokens * 1000 / (at_ms - 40 - first_token_ms), 1),
            chars=len(ANSWERS[label]),
        )


def script(*, failing: bool = False) -> Script:
    """The whole run. With ``failing``, C runs out of time after half its answer."""
    run = Script()
    for label in ANSWERS:
        run.fact("call.started", 40, call=label, model=MODELS[label], attempt=1)
    run.mark("thinking")
    for label, first in (("A", 410), ("B", 690), ("C", 1120)):
        run.fact("call.first_token", first, call=label, first_token_ms=first - 40)
        run.text(label, 40)
    run.text("A", 170)
    run.text("B", 140)
    run.transient(
        "overlap.updated",
        overlap=OVERLAP
        | {
            "agreed": AGREED[:1],
            "disputed": [],
            "totals": {"agreed": 1, "disputed": 0},
        },
    )
    run.mark("overlap")
    run.started(1, 1900, "draft", ["A", "B"])
    draft = "\n\n".join(block["md"] for block in BLOCKS[1])
    run.delta(1, 0, draft[:90])
    run.text("A", 330)
    run.delta(1, 90, draft[90:200])
    run.text("C", 120)
    run.mark("drafting")
    run.delta(1, 200, draft[200:])
    run.revised(1, 3400, "draft", ["A", "B"], ["b1", "b2"])
    run.text("A")
    run.finished("A", 3600, 370, 110)
    run.text("B", 420)
    run.mark("draft")
    run.started(2, 4300, "patch", ["A", "B"])
    run.text("C", 300)
    run.revised(2, 5400, "patch", ["A", "B"], ["b3"])
    run.mark("patched")
    run.text("B")
    run.finished("B", 6100, 650, 150)
    overlap = OVERLAP
    run.transient("overlap.updated", overlap=overlap)
    run.started(3, 6900, "rewrite", ["A", "B", "C"])
    run.delta(3, 0, draft[:120])
    run.mark("rewriting")
    if failing:
        message = "The model stopped sending text. Ask again, or use another model."
        run.fact(
            "call.failed",
            7800,
            call="C",
            state="timeout",
            kind="timeout.stall",
            message=message,
            retryable=True,
            input_tokens=64,
            output_tokens=80,
            usage_estimated=True,
            cost_micro_usd=960,
            first_token_ms=1080,
            duration_ms=7760,
            chars=300,
        )
    else:
        run.text("C")
        run.finished("C", 7800, 1080, 170)
    whole = "\n\n".join(block["md"] for block in BLOCKS[3])
    run.delta(3, 120, whole[120:])
    run.revised(3, 8600, "rewrite", ["A", "B", "C"], ["b2", "b4"])
    run.fact(
        "synthesis.final",
        8600,
        version=3,
        mode="rewrite",
        degraded=failing,
        sources=["A", "B", "C"],
        sha256="0" * 64,
    )
    run.fact(
        "run.finished",
        8650,
        status="degraded" if failing else "done",
        reason=None,
        answer_sha256="0" * 64,
        cost_micro_usd=8940,
        input_tokens=1452,
        output_tokens=718,
        ttfs_ms=2210,
        ttms_ms=2210,
        ttf_ms=8600,
        duration_ms=8650,
    )
    run.mark("end")
    return run


def finished(*, failing: bool = False) -> dict[str, Any]:
    """The snapshot after the end, written out by hand rather than folded."""
    snapshot = start()
    told = script(failing=failing)
    snapshot |= {
        "seq": told.seq,
        "status": "degraded" if failing else "done",
        "ended_at": "2026-11-23T12:00:08.650Z",
        "now": "2026-11-23T12:01:00.000Z",
        "answer": "\n\n".join(block["md"] for block in BLOCKS[3]),
        "answer_state": "final",
        "degraded": failing,
        "totals": {
            "duration_ms": 8650,
            "input_tokens": 1452,
            "output_tokens": 718,
            "cost_micro_usd": 8940,
            "ttfs_ms": 2210,
            "ttms_ms": 2210,
            "ttf_ms": 8600,
        },
        "overlap": OVERLAP,
    }
    ends = {"A": (3600, 370, 110), "B": (6100, 650, 150), "C": (7800, 1080, 170)}
    for call in snapshot["calls"]:
        at_ms, first, tokens = ends[call["label"]]
        call |= {
            "state": "done",
            "text": ANSWERS[call["label"]],
            "started_ms": 40,
            "first_token_ms": first,
            "duration_ms": at_ms - 40,
            "tokens_per_s": round(tokens * 1000 / (at_ms - 40 - first), 1),
            "input_tokens": 64,
            "output_tokens": tokens,
            "cost_micro_usd": tokens * 12,
            "finish_reason": "stop",
        }
    if failing:
        snapshot["calls"][2] |= {
            "state": "timeout",
            "reason": "timeout.stall",
            "message": "The model stopped sending text. Ask again, or use another model.",
            "text": ANSWERS["C"][:300],
            "output_tokens": 80,
            "usage_estimated": True,
            "cost_micro_usd": 960,
            "tokens_per_s": None,
            "finish_reason": None,
        }
    kinds = {1: ("draft", 1900), 2: ("patch", 4300), 3: ("rewrite", 6900)}
    sources = {1: ["A", "B"], 2: ["A", "B"], 3: ["A", "B", "C"]}
    snapshot["synthesis"] |= {
        "state": "final",
        "version": 3,
        "final_version": 3,
        "blocks": BLOCKS[3],
        "versions": [
            {
                "version": version,
                "kind": kind,
                "trigger": "chunks",
                "sources": sources[version],
                "late": False,
                "state": "applied",
                "reason": None,
                "started_ms": started_ms,
                "first_token_ms": 310,
                "duration_ms": 1500,
                "input_tokens": 420,
                "output_tokens": 96,
                "cost_micro_usd": 1260,
                "blocks": BLOCKS[version],
            }
            for version, (kind, started_ms) in kinds.items()
        ],
    }
    return snapshot
