"""``./rex test``: everything the tests need, then the Go suite and the Python suite, and what is
about the database once more on PostgreSQL.

With pytest arguments only pytest runs, with them, and what the chosen tests need is looked for when
the first of them needs it. A suite that cannot run fails the whole, unless ``--without`` names it:
a suite left out in silence looks like one that passed.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher import (
    chromium,
    frontend,
    fuzz,
    go_build,
    litellm_proxy,
    postgres_server,
    prepare,
    redis_server,
)
from launcher.failure import Failed
from launcher.layout import Layout
from launcher.steps import run_tool, say

# Each optional suite with the pytest marker of the tests that need the same thing.
SUITES = {
    "browser": "browser",
    "go": "golang",
    "litellm": "litellm",
    "localmodel": "localmodel",
    "postgresql": "postgresql",
    "redis": "redis",
}
# What is looked for on this machine, and the variable in which its tests find it.
_PROGRAMS = (
    ("browser", "REX_CHROMIUM", chromium.find),
    ("redis", "REX_REDIS_SERVER", redis_server.find),
    ("postgresql", "REX_POSTGRES_BIN", postgres_server.find),
    ("litellm", "REX_LITELLM_PROXY", litellm_proxy.find),
)
# What runs on PostgreSQL too, for it runs otherwise there: locks, transactions, constraints.
_ON_POSTGRES = (
    *("tests/quotas", "tests/workspaces", "tests/actions", "tests/web"),
    # The race brings its stores along, PostgreSQL among them.
    "--ignore=tests/quotas/test_racing_creates.py",
)
# The Go package that starts a Redis for tests.
_STARTS_REDIS = "/internal/redistest"


@dataclass(frozen=True, slots=True)
class Result:
    """How a suite ended: its exit code and its own closing line."""

    name: str
    exit_code: int
    closing_line: str


def suite_names(text: str) -> frozenset[str]:
    """The value of ``--without``; an unknown name is an error, for it would leave nothing out."""
    names = frozenset(part.strip() for part in text.split(",") if part.strip())
    if unknown := names - SUITES.keys():
        known = ", ".join(SUITES)
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: the suites are {known}")
    return names


def test(layout: Layout, without: frozenset[str], arguments: Sequence[str]) -> int:
    """Runs the suites and prints each one's closing line. Exit code 1 when any failed."""
    prepare.for_testing(layout, with_go="go" not in without)
    env = test_environment(layout, os.environ)
    if "go" not in without:
        env["PATH"] = _with_path(env, go_build.go(layout).command.parent)
    env["PATH"] = _with_path(env, frontend.node(layout).command.parent)
    results: list[Result] = []
    left_out = ", ".join(sorted(without))
    for suite, variable, find in _PROGRAMS:
        if arguments:
            # Nothing is installed for tests that were not chosen.
            env |= {variable: os.environ[variable]} if variable in os.environ else {}
        elif suite not in without:
            try:
                env[variable] = str(find(layout))
            except Failed as failed:
                results.append(Result(suite, failed.exit_code, str(failed)))
                without |= {suite}
    if "go" not in without and not arguments:
        results.append(_go_suite(layout, env, with_redis="redis" not in without))
        results.append(_fuzz_suite(layout, env))
    results.append(_python_suite(layout, env, without, arguments))
    if "postgresql" not in without and not arguments:
        on_postgres = env | {"REX_TEST_DATABASE": "postgresql"}
        results.append(_python_suite(layout, on_postgres, without, _ON_POSTGRES, "postgresql"))
    say()
    for result in results:
        verdict = "passed" if result.exit_code == 0 else "FAILED"
        say(f"{verdict}  {result.name}: {result.closing_line}")
    if left_out:
        say(f"left out: {left_out}")
    return int(any(result.exit_code for result in results))


def test_environment(layout: Layout, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a suite: no keys of real providers, so that no test can spend money."""
    foreign = ("_API_KEY", "_API_KEY_FILE", "_BASE_URL")
    env = {
        name: value
        for name, value in environ.items()
        if not name.endswith(foreign) and not name.startswith(("REX_", "DJANGO_"))
    }
    return env | {"REX_SECRET_KEY": "only-for-tests", "REX_STATE_DIR": str(layout.state)}


def _with_path(env: Mapping[str, str], folder: Path) -> str:
    parts = env.get("PATH", "").split(os.pathsep)
    return env.get("PATH", "") if str(folder) in parts else os.pathsep.join([str(folder), *parts])


def _go_suite(layout: Layout, env: Mapping[str, str], *, with_redis: bool) -> Result:
    tool = go_build.go(layout)
    command = [str(tool.command), "test"]
    if shutil.which("cc") or shutil.which("gcc") or shutil.which("clang"):
        command.append("-race")
    else:
        say("NO C COMPILER: the Go tests run without the race detector.")
    go_env = dict(env) | {
        name: tool.env[name] for name in ("GOTOOLCHAIN", "GOROOT") if name in tool.env
    }
    go_env["CGO_ENABLED"] = "1" if "-race" in command else "0"
    chosen = ["./..."] if with_redis else packages_without_redis(layout, tool, go_env)
    packages: list[str] = []

    def note(line: str) -> None:
        if line.startswith(("ok ", "ok\t", "FAIL\t", "--- FAIL")):
            packages.append(line)

    code = _run([*command, *chosen], go_env, layout.go_service, note)
    failed = [line for line in packages if "FAIL" in line.split()[:2]]
    passed = sum(line.startswith("ok") for line in packages)
    return Result("go", code, "; ".join(failed) if failed else f"{passed} packages passed")


def _fuzz_suite(layout: Layout, env: Mapping[str, str]) -> Result:
    tool = go_build.go(layout)
    go_env = dict(env) | {
        name: tool.env[name] for name in ("GOTOOLCHAIN", "GOROOT") if name in tool.env
    }
    found = list(fuzz.targets(layout.go_service))
    failed = [
        f"{target.name} of {target.package}"
        for target in found
        if _run([str(tool.command), *target.arguments()], go_env, layout.go_service, lambda _: None)
    ]
    told = f"{len(found)} targets, {fuzz.SHORT} each, found nothing"
    return Result("fuzz", int(bool(failed) or not found), "; ".join(failed) or told)


def packages_without_redis(layout: Layout, tool: go_build.Go, env: Mapping[str, str]) -> list[str]:
    """The Go packages whose tests start no Redis."""
    imports = '{{.ImportPath}} {{join .TestImports " "}} {{join .XTestImports " "}}'
    listing = [str(tool.command), "list", "-f", imports, "./..."]
    rows = run_tool(layout, "go list", listing, env=env, cwd=layout.go_service).splitlines()
    return [row.split()[0] for row in rows if _STARTS_REDIS not in row]


def _python_suite(
    layout: Layout,
    env: Mapping[str, str],
    without: frozenset[str],
    arguments: Sequence[str],
    name: str = "pytest",
) -> Result:
    command = [str(layout.python), "-m", "pytest"]
    if without:
        command += ["-m", " and ".join(f"not {SUITES[name]}" for name in sorted(without))]
    if sys.stdout.isatty():
        command.append("--color=yes")
    last = [""]

    def note(line: str) -> None:
        last[0] = line.strip() or last[0]

    code = _run([*command, *arguments], env, layout.root, note)
    return Result(name, code, last[0])


def _run(
    command: Sequence[str], env: Mapping[str, str], cwd: Path, note: Callable[[str], None]
) -> int:
    """The exit code of a runner; its output is passed on as it comes, and each line to ``note``."""
    say(f"\n$ {' '.join([Path(command[0]).name, *command[1:]])}")
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            note(line)
    return process.returncode
