"""Steps of the set-up: one line each, saying what is done, why it may take long, how long it took.

Everything is written to stderr: stdout belongs to the command (``ask`` prints an answer there).
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from launcher.failure import Failed, advice_for, tail, without_passwords
from launcher.layout import Layout


def say(line: str = "") -> None:
    """One line for the person at the terminal."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def step(what: str, why: str = "") -> Iterator[None]:
    """Prints ``what (why) …`` at once, and when it ends how long it took, or how it ended."""
    print(f"  {what}{f' ({why})' if why else ''} … ", end="", file=sys.stderr, flush=True)
    started = time.monotonic()
    try:
        yield
    except Exception:
        say("failed")
        raise
    except BaseException:
        # Not an error: a signal, which the person at the terminal sent.
        say("stopped")
        raise
    say(f"{time.monotonic() - started:.1f} s")


def run_tool(
    layout: Layout,
    what: str,
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """The output of a tool that must succeed, which also goes to ``logs/setup.log``.

    Raises Failed with the tail of the output and, where the cause is recognised, what to do.
    """
    arguments = [str(part) for part in command]
    try:
        done = subprocess.run(
            arguments,
            env=dict(env) if env is not None else None,
            cwd=cwd or layout.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        ours = Path(arguments[0]).is_relative_to(layout.tools)
        raise Failed(
            f"{what}: {arguments[0]} does not start ({error.strerror}).",
            advice=f"Delete {layout.tools} and run the same command again." if ours else "",
        ) from error
    keep_output(layout, [Path(arguments[0]).name, *arguments[1:]], done.stdout)
    if done.returncode:
        raise Failed(
            f"{what} failed (exit code {done.returncode}).",
            tail(done.stdout),
            advice_for(done.stdout) or "Run the same command again; what is already done is kept.",
        )
    return done.stdout


def keep_output(layout: Layout, command: Sequence[str], output: str) -> Path:
    """The path of ``logs/setup.log``, to which the command and what it said were added."""
    path = layout.logs / "setup.log"
    with path.open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n{without_passwords(output)}")
    return path


def tool_environment(layout: Layout, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a tool: nobody asks questions, and caches have a place.

    A user without a writable home would fail in every tool's cache: they get one in the state.
    """
    env = dict(environ)
    home = Path(env.get("HOME") or "/nonexistent")
    if not os.access(home, os.W_OK):
        home = layout.state / "home"
        home.mkdir(exist_ok=True)
        env["HOME"] = str(home)
    env.pop("PYTHONPATH", None)
    env.pop("PYTHONHOME", None)
    env.pop("VIRTUAL_ENV", None)
    return env
