"""``./rex bench isolation_timing``: whether the time of an answer tells what others have asked.

The whole of Rex (web, Go service, SQLite) before a scripted provider. In each round a prompt nobody
has asked is asked at home, then in any order: again at home (a hit), in another workspace (what an
attacker would try), and another new one in that workspace (a miss). Rank tests compare them.
Writes results/isolation_timing/.

    ./rex bench isolation_timing [--rounds 200] [--out results/isolation_timing]
"""

import argparse
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent
# A provider as quick as this shows a hit more weakly than a real one does: it flatters nobody.
FIRST_MS = 60
MODEL = f"keyed/ok?first_ms={FIRST_MS}&delay_ms=2&chunks=6"
KINDS = {
    "hit": "asked again at home",
    "miss": "a new prompt in the other workspace",
    "other": "the prompt of home in the other workspace",
    "first": "a new prompt at home",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """Two workspaces' clients of one Rex, and the address of its provider."""

    home: httpx.Client
    other: httpx.Client
    upstream: str

    def calls(self) -> int:
        rows = httpx.get(f"{self.upstream}/_/log").json()
        return sum(row["model"] == MODEL.partition("/")[2] for row in rows)


@contextmanager
def rex() -> Iterator[Asked]:
    sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
    os.environ.setdefault("REX_SECRET_KEY", "only-for-the-bench")
    from launcher.go_build import FAKE_PROVIDER, SERVICE, build
    from launcher.layout import Layout
    from tests.contract.conftest import running
    from tests.isolation.stack import service
    from tests.rexsite.rex_process import manage, rex_on

    layout = Layout(ROOT, ROOT / ".rex")
    build(layout, SERVICE, FAKE_PROVIDER)
    binaries = Path(layout.bin)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rex-timing-")))
        fake = [str(binaries / FAKE_PROVIDER), "--listen", "127.0.0.1:0", "--exit-on-stdin-eof"]
        said = stack.enter_context(running(fake, {}, "listening"))
        upstream = f"http://{said['listening']}"
        provider = {"REX_PROVIDER_KEYED_BASE_URL": f"{upstream}/v1"}
        env = provider | {"REX_FANOUT_LISTEN": "127.0.0.1:0"}
        fanout = stack.enter_context(service(binaries / SERVICE, folder / "service.log", env))
        database = f"sqlite:///{folder / 'rex.sqlite3'}"
        manage(folder, database, "migrate", "--verbosity", "0")
        settings = {
            "REX_DRIVE_RUNS_IN_WEB": "1",
            "REX_FANOUT_URL": fanout,
            "REX_LOG_LEVEL": "ERROR",
            "REX_DATABASE_TIMEOUT_S": "10",
        }
        server = stack.enter_context(rex_on(folder, database, **provider, **settings))
        made = manage(folder, database, "shell", "--verbosity", "0", "-c", _ANOTHER).split()[-1]
        other = httpx.Client(
            base_url=server.url, headers={"Authorization": f"Bearer {made}"}, timeout=60
        )
        yield Asked(server.api, stack.enter_context(other), upstream)


_ANOTHER = """
from workspaces.actions.issue_key import issue_key
from workspaces.models import Workspace
from django.db import transaction
with transaction.atomic():
    place = Workspace.objects.create(slug="other", name="Other", allow_unpriced=True)
    print(issue_key(workspace=place, name="timing"))
"""


def took_ms(client: httpx.Client, prompt: str) -> tuple[float, float]:
    """Milliseconds from the question until its first text, and until its end."""
    body = {"prompt": prompt, "models": [MODEL], "pipeline": "single"}
    begun = time.perf_counter()
    answer = client.post("/api/run", json=body)
    assert answer.status_code == 202, answer.text
    first = 0.0
    headers = {"Accept": "application/x-ndjson"}
    with client.stream("GET", answer.json()["events_url"], headers=headers) as lines:
        for line in lines.iter_lines():
            if not first and '"text"' in line:
                first = (time.perf_counter() - begun) * 1000
    whole = (time.perf_counter() - begun) * 1000
    return first or whole, whole


def measure(rounds: int, seed: int) -> dict[str, list[tuple[float, float]]]:
    order = random.Random(seed)
    taken: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with rex() as asked:
        for warming in range(5):
            took_ms(asked.home, f"warming {warming}")
            took_ms(asked.other, f"warming too {warming}")
        before = asked.calls()
        for number in range(rounds):
            prompt = f"Why is the sky blue on day {number}?"
            taken["first"].append(took_ms(asked.home, prompt))
            rest = [
                ("hit", asked.home, prompt),
                ("other", asked.other, prompt),
                ("miss", asked.other, f"Why is the sea green on day {number}?"),
            ]
            order.shuffle(rest)
            for kind, client, text in rest:
                taken[kind].append(took_ms(client, text))
        upstream = asked.calls() - before
    # What counts: one call for each new prompt and workspace, and none for a hit.
    assert upstream == 3 * rounds, f"{upstream} calls of {3 * rounds}"
    return taken


def rank_test(one: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Mann and Whitney's U with the normal approximation and its correction for ties: how often a
    value of ``one`` is above one of ``other`` (0.5: not told apart), and the two-sided p."""
    n, m = len(one), len(other)
    pooled = sorted([(value, 0) for value in one] + [(value, 1) for value in other])
    ranks, ties, at = 0.0, 0, 0
    while at < len(pooled):
        end = at
        while end < len(pooled) and pooled[end][0] == pooled[at][0]:
            end += 1
        middle = (at + 1 + end) / 2
        ranks += middle * sum(group == 0 for _, group in pooled[at:end])
        ties += (end - at) ** 3 - (end - at)
        at = end
    u = ranks - n * (n + 1) / 2
    total = n + m
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    z = (u - n * m / 2) / math.sqrt(variance) if variance else 0.0
    return {"above": round(u / (n * m), 4), "p": round(math.erfc(abs(z) / math.sqrt(2)), 4)}


def summary(taken: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    found: dict[str, Any] = {"rounds": len(taken["hit"])}
    for which, name in enumerate(("first_text", "whole")):
        times = {kind: [pair[which] for pair in taken[kind]] for kind in KINDS}
        found[name] = {
            "ms": {
                kind: {
                    "p5": round(statistics.quantiles(values, n=20)[0], 1),
                    "p50": round(statistics.median(values), 1),
                    "p95": round(statistics.quantiles(values, n=20)[-1], 1),
                }
                for kind, values in times.items()
            },
            "rank_tests": {
                "other against miss": rank_test(times["other"], times["miss"]),
                "other against hit": rank_test(times["other"], times["hit"]),
                "miss against hit": rank_test(times["miss"], times["hit"]),
            },
        }
    return found


def verdict(found: dict[str, Any]) -> str:
    tests = found["whole"]["rank_tests"]
    apart = {name: row["p"] < _TOLD_APART for name, row in tests.items()}
    if apart["other against miss"]:
        return "**it does not hold: they can be told apart.**"
    if not apart["other against hit"]:
        return "nothing is shown: not even a hit can be told from a miss."
    return "it holds."


_TOLD_APART = 0.01


def report(found: dict[str, Any]) -> str:
    lines = [
        "# Whether time tells what another workspace has asked",
        "",
        f"`./rex bench isolation_timing --rounds {found['rounds']}`: the whole of Rex before a",
        f"scripted provider whose first word takes {FIRST_MS} ms. The kinds are asked in turns, in",
        "an order drawn anew each round. What must hold: a prompt that another workspace has asked",
        "takes as long as one that nobody has asked, and only the own repetition is quicker.",
        f"Here: {verdict(found)}",
        "",
        "Besides, the provider's log is counted: each prompt reached it once for each workspace.",
    ]
    for name, words in (("first_text", "first text"), ("whole", "end of the run")):
        part = found[name]
        lines += ["", f"## Until the {words}", "", "| asked | p5 ms | p50 ms | p95 ms |"]
        lines += ["|---|---|---|---|"]
        lines += [
            f"| {KINDS[kind]} | {row['p5']} | {row['p50']} | {row['p95']} |"
            for kind, row in part["ms"].items()
        ]
        lines += ["", "| rank test | how often above | p |", "|---|---|---|"]
        lines += [
            f"| {pair} | {row['above']} | {row['p'] or 'below 0.0001'} |"
            for pair, row in part["rank_tests"].items()
        ]
    lines += [
        "",
        "*How often above* is the chance that a time of the first kind is longer than one of the",
        "second: 0.5 where they cannot be told apart, 1 where they always can.",
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "isolation_timing")
    arguments = parser.parse_args()
    taken = measure(arguments.rounds, arguments.seed)
    found = summary(taken)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "README.md").write_text(report(found), encoding="utf-8")
    samples = {kind: [[round(ms, 2) for ms in pair] for pair in taken[kind]] for kind in KINDS}
    written = json.dumps(found | {"samples_ms": samples})
    (arguments.out / "summary.json").write_text(written + "\n", encoding="utf-8")
    print(report(found))


if __name__ == "__main__":
    main()
