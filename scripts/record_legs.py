"""Record real answers of the embedded models with their real timing, for replays.

    python scripts/record_legs.py [--set local|local-mixed] [--questions 24] [--out FILE]

Every question goes to all configurations of the set at once, as a run would send it. One JSON
object a line: {"id", "prompt", "legs": [{"label", "model", "chunks": [[t_s, text], …], "end_s",
"finish_reason"}], "editor": {"prompt_chars", "first_token_s", "chars", "chars_per_s"}}. `editor`
is one call of the synthesizer persona of the small model with the finished answers in its prompt,
when they have ended: the pace the policy report gives the modelled synthesizer. The file is
results/legs/<set>.jsonl unless --out names another.

Starts one scripts/local_model_server.py for each model, each on a free port. The larger model must
be installed: ./rex up --model qwen2.5-coder-1.5b.
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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from orchestration.domain.routing import PERSONAS, Persona  # noqa: E402 - needs the path above

LABELS = "ABCDEFGH"
PIECE_CHARS = 24
"""Tokens are joined to pieces of about this size: smaller ones only make the file longer."""

SMALL, LARGER = "smollm2-135m", "qwen2.5-coder-1.5b"


@dataclass(frozen=True, slots=True)
class Configuration:
    """One way to ask a model: `name` stands in the file, `model` is what its server is started
    with."""

    name: str
    model: str
    persona: Persona


_PERSONAS = tuple(
    Configuration(f"local/{name}", SMALL, PERSONAS[name]) for name in ("brisk", "plain", "thorough")
)
_LARGER = tuple(
    # The larger model needs more room than the small one to end by itself.
    Configuration(f"{LARGER}/{name}", LARGER, replace(PERSONAS[name], max_tokens=max_tokens))
    for name, max_tokens in (("plain", 300), ("thorough", 380))
)
SETS: Mapping[str, tuple[Configuration, ...]] = {
    "local": _PERSONAS,
    "local-mixed": (*_PERSONAS, *_LARGER),
}

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
    parser.add_argument("--set", choices=SETS, default="local")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--questions", type=int, default=len(QUESTIONS))
    options = parser.parse_args()
    asked = SETS[options.set]
    with contextlib.ExitStack() as stack:
        models = dict.fromkeys(configuration.model for configuration in asked)
        urls = {model: stack.enter_context(_server(model)) for model in models}
        rows = asyncio.run(_record(options.set, urls, QUESTIONS[: options.questions]))
    out = options.out or ROOT / "results" / "legs" / f"{options.set}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(rows)} runs recorded in {out}")
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


async def _record(
    name: str, urls: Mapping[str, str], questions: tuple[str, ...]
) -> list[dict[str, Any]]:
    rows = []
    asked, editor = SETS[name], Configuration("local/editor", SMALL, PERSONAS["editor"])
    # The server closes idle connections after 5 s, just when the next question would reuse one.
    fresh = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=180, limits=fresh) as client:
        # The first call pays for loading; it would make the first run look slow.
        for model in urls:
            greeting = Configuration("local/brisk", model, PERSONAS["brisk"])
            await _leg(client, urls, greeting, "Say hello.")
        for number, question in enumerate(questions):
            legs = await asyncio.gather(*(_leg(client, urls, each, question) for each in asked))
            for label, each, leg in zip(LABELS, asked, legs, strict=False):
                leg.update(label=label, model=each.name)
            row = {"id": f"{name}-{number:03d}", "prompt": question, "legs": legs}
            rows.append(row | {"editor": await _edited(client, urls, editor, question, legs)})
            ends = ", ".join(f"{leg['end_s']:.1f}" for leg in legs)
            print(f"{number + 1}/{len(questions)}  ended after {ends} s", flush=True)
    return rows


async def _edited(
    client: httpx.AsyncClient,
    urls: Mapping[str, str],
    editor: Configuration,
    question: str,
    legs: list[dict[str, Any]],
) -> dict[str, Any]:
    answers = "\n\n".join("".join(text for _, text in leg["chunks"]) for leg in legs)
    prompt = f"{question}\n\nAnswers:\n{answers}\n\nMerge the answers into one."
    leg = await _leg(client, urls, editor, prompt)
    chars = sum(len(text) for _, text in leg["chunks"])
    first_s = leg["chunks"][0][0] if leg["chunks"] else leg["end_s"]
    return {
        "prompt_chars": len(prompt),
        "first_token_s": first_s,
        "chars": chars,
        "chars_per_s": round(chars / max(leg["end_s"] - first_s, 0.001), 1),
    }


async def _leg(
    client: httpx.AsyncClient, urls: Mapping[str, str], asked: Configuration, question: str
) -> dict[str, Any]:
    """One streamed call: text pieces with the second they were complete."""
    persona, url = asked.persona, urls[asked.model]
    body = {
        "model": asked.model,
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
