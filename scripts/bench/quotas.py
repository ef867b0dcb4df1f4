"""``./rex bench quotas``: what an admission costs, and what a flood of refusals does to others.

On SQLite, on PostgreSQL, and on PostgreSQL with Redis, eight processes ask for as long as the run
says. Of one workspace all quotas have room; of another the slots are taken, so that all it asks is
refused, FLOOD_PER_S times a second; the question is what that does to the first. Writes
results/quotas/.

    ./rex bench quotas [--seconds 5] [--out results/quotas]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PROCESSES = 8
FLOOD_PER_S = 105
ENOUGH = 10**12

SET_UP = """
import django; django.setup()
from workspaces.actions.issue_key import issue_key
from workspaces.domain.quotas import Dimension
from workspaces.models import Quota, Workspace
for name, limit in (("calm", {enough}), ("flooded", 0)):
    home = Workspace.objects.create(slug=name, name=name)
    for dimension in Dimension:
        value = limit if dimension is Dimension.CONCURRENT_RUNS else {enough}
        Quota.objects.create(workspace=home, dimension=dimension, limit=value)
    print(issue_key(workspace=home, name="bench"))
"""


def worker(key: str, seconds: float, every_s: float) -> None:
    """Ask with ``key`` until the time is over, every so often (0: as fast as it goes); prints
    [[milliseconds, admitted], …]."""
    import django

    django.setup()

    from orchestration.actions.start_run import RunRequest, start_run
    from workspaces.access import actor_from_key
    from workspaces.actions.reserve import QuotaExceeded

    asked = RunRequest(prompt="Why is the sky blue?", models=("local/brisk",) * 4)
    actor = actor_from_key(key)
    assert actor is not None
    print("ready", flush=True)
    sys.stdin.readline()
    taken: list[tuple[float, bool]] = []
    due = time.monotonic()
    end = due + seconds
    while time.monotonic() < end:
        time.sleep(max(0.0, due - time.monotonic()))
        due += every_s
        begun = time.perf_counter()
        try:
            start_run(actor=actor, request=asked)
            admitted = True
        except QuotaExceeded:
            admitted = False
        taken.append((round((time.perf_counter() - begun) * 1000, 3), admitted))
    print(json.dumps(taken), flush=True)


def race(env: dict[str, str], paces: list[tuple[str, float]], seconds: float) -> list[list[Any]]:
    """What each worker took, at once; ``paces`` are their keys and the seconds a request."""
    command = [sys.executable, __file__, "--worker"]
    workers = [
        subprocess.Popen(
            [*command, key, "--seconds", str(seconds), "--every", str(every_s)],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for key, every_s in paces
    ]
    for each in workers:
        assert each.stdout is not None
        assert each.stdout.readline().strip() == "ready"
    for each in workers:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    return [json.loads(each.communicate()[0].strip()) for each in workers]


def summary(taken: list[list[Any]], seconds: float) -> dict[str, float]:
    times = sorted(ms for each in taken for ms, _ in each)
    return {
        "per_s": round(len(times) / seconds, 1),
        "p50_ms": round(statistics.median(times), 2),
        "p99_ms": round(times[int(len(times) * 0.99) - 1], 2) if times else 0.0,
    }


@contextmanager
def places() -> Iterator[Iterator[tuple[str, dict[str, str]]]]:
    """(name, environment) of each store, servers running."""
    sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
    from tests import postgres_server, redis_server

    # The programs that make tables need one too.
    os.environ.setdefault("REX_SECRET_KEY", "only-for-the-bench")
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rex-bench-"))
        env = {name: value for name, value in os.environ.items() if not name.startswith("REX_")}
        env |= {
            "REX_SECRET_KEY": "only-for-the-bench",
            "REX_STATE_DIR": folder,
            "REX_LOG_LEVEL": "ERROR",
            "DJANGO_SETTINGS_MODULE": "rexsite.settings",
            "DATABASE_URL": f"sqlite:///{folder}/rex.sqlite3",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "scripts")]),
        }
        postgres = stack.enter_context(postgres_server.running())
        redis = stack.enter_context(redis_server.running())

        def each() -> Iterator[tuple[str, dict[str, str]]]:
            migrate = [sys.executable, "manage.py", "migrate", "--no-input", "--verbosity", "0"]
            subprocess.run(migrate, cwd=ROOT, env=env, check=True)
            yield "SQLite", env
            yield "PostgreSQL", env | {"DATABASE_URL": postgres.create_database()}
            both = {"DATABASE_URL": postgres.create_database(), "REX_REDIS_URL": redis.url}
            yield "PostgreSQL and Redis", env | both

        yield each()


def measure(seconds: float) -> dict[str, Any]:
    results: dict[str, Any] = {}
    with places() as stores:
        for name, env in stores:
            keys = subprocess.run(
                [sys.executable, "-c", SET_UP.format(enough=ENOUGH)],
                cwd=ROOT, env=env, check=True, capture_output=True, text=True,
            ).stdout.split()  # fmt: skip
            calm, flooded = keys
            alone = race(env, [(calm, 0)], seconds)
            racing = race(env, [(calm, 0)] * PROCESSES, seconds)
            flood = [(flooded, (PROCESSES - 1) / FLOOD_PER_S)] * (PROCESSES - 1)
            mixed = race(env, [(calm, 0), *flood], seconds)
            results[name] = {
                "one process": summary(alone, seconds),
                f"{PROCESSES} processes": summary(racing, seconds),
                "beside a flood": summary(mixed[:1], seconds),
                "the flood's refusals": summary(mixed[1:], seconds),
            }
            assert not any(admitted for each in mixed[1:] for _, admitted in each)
    return results


def table(results: dict[str, Any], seconds: float) -> str:
    lines = [
        "# What quotas cost",
        "",
        f"`./rex bench quotas --seconds {seconds:g}`: a request for four models, with a quota in",
        f"every dimension; up to {PROCESSES} processes at once on {os.cpu_count()} cores, with the",
        "database on the same machine. A request is what `start_run` does: check, estimate,",
        f"reserve, write. The flood asks {FLOOD_PER_S} times a second, or as often as it is",
        "answered.",
        "",
        "| store | what | a second | p50 ms | p99 ms |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {store} | {what} | {row['per_s']} | {row['p50_ms']} | {row['p99_ms']} |"
        for store, rows in results.items()
        for what, row in rows.items()
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "quotas")
    parser.add_argument("--every", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.seconds, arguments.every)
        return
    results = measure(arguments.seconds)
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = table(results, arguments.seconds)
    (arguments.out / "README.md").write_text(text, encoding="utf-8")
    (arguments.out / "summary.json").write_text(json.dumps(results, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
