"""Record real answers of the embedded model with their real timing, for replays.

    python scripts/record_legs.py [--url http://127.0.0.1:8100/v1] [--out results/legs/local.jsonl]

Every question goes to the personas brisk, plain and thorough at once, as a run would send it. One
JSON object a line: {"id", "prompt", "legs": [{"label", "model", "chunks": [[t_s, text], …],
"end_s", "finish_reason"}], "editor": {"prompt_chars", "first_token_s", "chars", "chars_per_s"}}.
`editor` is one call of the synthesizer persona with the finished answers in its prompt, alone on
the machine: the pace the policy report gives the modelled synthesizer.

Starts scripts/local_model_server.py on a free port unless --url names a running server.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from orchestration.domain.routing import PERSONAS, Persona  # noqa: E402 - needs the path above

PERSONA_NAMES = ("brisk", "plain", "thorough")
LABELS = "ABC"
PIECE_CHARS = 24
"""Tokens are joined to pieces of about this size: smaller ones only make the file longer."""

QUESTIONS = (
    "How do I keep a sourdough starter alive when I travel for two weeks?",
    "Explain the difference between a process and a thread.",
    "What should I check before buying a used bicycle?",
    "Why is the sky blue and the sunset red?",
    "Write a polite e-mail that moves a meeting from Tuesday to Thursday.",
    "What are the main causes of the First World War?",
    "How does a refrigerator keep food cold?",
    "Give me a plan to learn to run five kilometres in eight weeks.",
    "What is the point of unit tests if the program already works?",
    "How can I reduce the heating bill of an old flat?",
    "Describe how rain forms.",
    "What is inflation, and who gains from it?",
    "How do vaccines teach the body to fight a disease?",
    "Suggest a three-day trip to Lisbon for someone who likes food.",
    "What is a database index and when does it hurt?",
    "How do I remove a coffee stain from a cotton shirt?",
    "Explain compound interest with an example.",
    "Which houseplants survive with little light and little water?",
    "How does public-key cryptography let strangers talk in secret?",
    "What makes a good apology?",
    "How are tides caused by the moon?",
    "Compare living in a city with living in the country.",
    "What happens in the body during an hour of sleep?",
    "How do I prepare for a job interview in one evening?",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="OpenAI-compatible base URL of a running server")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "legs" / "local.jsonl")
    parser.add_argument("--questions", type=int, default=len(QUESTIONS))
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = options.url or stack.enter_context(_server(options.model))
        rows = asyncio.run(_record(url, options.model, QUESTIONS[: options.questions]))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(rows)} runs recorded in {options.out}")
    return 0


@contextlib.contextmanager
def _server(model: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(ROOT / "scripts" / "local_model_server.py")]
    server = subprocess.Popen(
        [*command, "--model", model, "--port", str(port)],
        env={**os.environ, "REX_STATE_DIR": os.environ.get("REX_STATE_DIR", str(ROOT / ".rex"))},
    )
    try:
        _wait(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(timeout=10)


def _wait(url: str, server: "subprocess.Popen[bytes]", limit_s: float = 120.0) -> None:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if server.poll() is not None:
            raise SystemExit("The model server ended before it was ready.")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=2).status_code == 200:
                return
        time.sleep(0.3)
    raise SystemExit(f"The model server was not ready within {limit_s:.0f} s.")


async def _record(url: str, model: str, questions: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = []
    # The server closes idle connections after 5 s, just when the next question would reuse one.
    fresh = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=180, limits=fresh) as client:
        # The first call pays for loading; it would make the first run look slow.
        await _leg(client, url, model, PERSONAS["brisk"], "Say hello.")
        for number, question in enumerate(questions):
            legs = await asyncio.gather(
                *(_leg(client, url, model, PERSONAS[name], question) for name in PERSONA_NAMES)
            )
            for label, name, leg in zip(LABELS, PERSONA_NAMES, legs, strict=True):
                leg.update(label=label, model=f"local/{name}")
            editor = await _editor(client, url, model, question, legs)
            rows.append(
                {"id": f"local-{number:03d}", "prompt": question, "legs": legs, "editor": editor}
            )
            ends = ", ".join(f"{leg['end_s']:.1f}" for leg in legs)
            print(f"{number + 1}/{len(questions)}  ended after {ends} s", flush=True)
    return rows


async def _editor(
    client: httpx.AsyncClient, url: str, model: str, question: str, legs: list[dict[str, Any]]
) -> dict[str, Any]:
    answers = "\n\n".join("".join(text for _, text in leg["chunks"]) for leg in legs)
    prompt = f"{question}\n\nAnswers:\n{answers}\n\nMerge the answers into one."
    leg = await _leg(client, url, model, PERSONAS["editor"], prompt)
    chars = sum(len(text) for _, text in leg["chunks"])
    first_s = leg["chunks"][0][0] if leg["chunks"] else leg["end_s"]
    return {
        "prompt_chars": len(prompt),
        "first_token_s": first_s,
        "chars": chars,
        "chars_per_s": round(chars / max(leg["end_s"] - first_s, 0.001), 1),
    }


async def _leg(
    client: httpx.AsyncClient, url: str, model: str, persona: Persona, question: str
) -> dict[str, Any]:
    """One streamed call: text pieces with the second they were complete."""
    body = {
        "model": model,
        "stream": True,
        "messages": [
            {"role": "system", "content": persona.system},
            {"role": "user", "content": question},
        ],
        "temperature": persona.temperature,
        "seed": persona.seed,
        "max_tokens": persona.max_tokens,
    }
    chunks: list[list[Any]] = []
    reason = None
    started = time.monotonic()
    async with client.stream("POST", f"{url}/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            for choice in json.loads(line[6:]).get("choices", []):
                reason = choice.get("finish_reason") or reason
                if text := (choice.get("delta") or {}).get("content"):
                    _add(chunks, round(time.monotonic() - started, 3), text)
    return {
        "chunks": chunks,
        "end_s": round(time.monotonic() - started, 3),
        "finish_reason": reason,
    }


def _add(chunks: list[list[Any]], at_s: float, text: str) -> None:
    # The first token stays alone: its time is the time to first token.
    if len(chunks) > 1 and len(chunks[-1][1]) < PIECE_CHARS:
        chunks[-1] = [at_s, chunks[-1][1] + text]
    else:
        chunks.append([at_s, text])


if __name__ == "__main__":
    sys.exit(main())
