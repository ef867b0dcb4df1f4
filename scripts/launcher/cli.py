"""The commands of ``./rex`` and their arguments."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from launcher import bench, checks, locks, prepare, run_record, suites, up
from launcher.ask import options as ask_options
from launcher.failure import DAMAGED_ENVIRONMENT, Failed, of_os_error
from launcher.layout import Layout, layout_from
from launcher.ports import free_port
from launcher.stack import environment
from launcher.steps import say
from launcher.supervise import Stopped
from launcher.weights import DEFAULT_MODEL

_EPILOG = """environment:
  REX_STATE_DIR   where database, keys and logs are kept (.rex in the checkout)
  OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY, …   providers; see docs/settings.md
"""


def main(arguments: Sequence[str]) -> int:
    """The exit code of the command. What cannot be done is said in words, without a traceback."""
    parser, commands = _parser()
    name = arguments[0] if arguments else ""
    if arguments and not name.startswith("-") and name not in commands:
        say(f"rex: There is no command {name}. Known: {', '.join(commands)}.")
        return 2
    options, rest = parser.parse_known_args(arguments)
    if rest and not getattr(options, "takes_rest", False):
        commands.get(name, parser).error(f"unknown arguments: {' '.join(rest)}")
    if options.run is None:
        parser.print_help()
        return 0
    try:
        code: int = options.run(layout_from(os.environ), options, rest)
        return code
    except Failed as failed:
        say(f"\nrex: {failed}")
        return failed.exit_code
    except BrokenPipeError:
        # Whoever read our output has what they wanted; the flush at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        say(f"\nrex: {of_os_error(error)}")
        return 1
    except KeyboardInterrupt:
        say("\nStopped. What is already done is kept.")
        return 130
    except Stopped as stopped:
        say("\nStopped. What is already done is kept.")
        return stopped.exit_code


def _parser() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """The parser of all, and each command's own."""
    parser = argparse.ArgumentParser(
        prog="./rex",
        description="Ask several language models at once; read one answer that begins early.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="")

    def command(
        name: str, help: str, run: Run, takes_rest: bool = False
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=help, description=help, add_help=name != "manage", allow_abbrev=False
        )
        added.set_defaults(run=run, takes_rest=takes_rest)
        return added

    up.add_arguments(command("up", "set up and start everything; Ctrl-C stops it", _up))
    ask_options.add_arguments(command("ask", "ask a question here in the terminal", _ask))
    testing = command("test", "run all tests, or those the pytest arguments choose", _test, True)
    testing.add_argument(
        "--without",
        type=suites.suite_names,
        default=frozenset(),
        metavar="SUITES",
        help=f"leave suites out, comma-separated: {', '.join(suites.SUITES)}",
    )
    command("check", "run every checker", lambda layout, *_: checks.check(layout))
    benching = command("bench", "run a benchmark; without a name, list them", _bench, True)
    benching.add_argument("name", nargs="?", default="")
    locking = command("lock", "write the locks of requirements/ anew", _lock)
    locking.add_argument("--upgrade", action="store_true", help="take the newest versions")
    command("manage", "run manage.py with the arguments that follow", _manage, True)
    command("help", "show this help", lambda *_: _help(parser))
    return parser, commands.choices


Run = Callable[[Layout, argparse.Namespace, list[str]], int]


def _help(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return 0


def _up(layout: Layout, options: argparse.Namespace, _rest: list[str]) -> int:
    return up.up(layout, options)


def _ask(layout: Layout, options: argparse.Namespace, _rest: list[str]) -> int:
    if Path(sys.prefix) == layout.venv:
        # Only here: what it imports is installed.
        try:
            from launcher.ask.command import ask
        except ImportError as error:
            raise Failed(f"ask cannot start: {error}.", advice=DAMAGED_ENVIRONMENT) from error

        return ask(layout, options)
    ask_options.validate(options)
    if run_record.running(layout) is None:
        prepare.for_running(layout, DEFAULT_MODEL)
    return os.execv(
        layout.python, [str(layout.python), "-B", str(Path(__file__).parent), *sys.argv[1:]]
    )


def _test(layout: Layout, options: argparse.Namespace, rest: list[str]) -> int:
    return suites.test(layout, options.without, rest)


def _bench(layout: Layout, options: argparse.Namespace, rest: list[str]) -> int:
    return bench.bench(layout, options.name, rest)


def _lock(layout: Layout, options: argparse.Namespace, _rest: list[str]) -> int:
    locks.lock(layout, options.upgrade)
    return 0


def _manage(layout: Layout, _options: argparse.Namespace, rest: list[str]) -> int:
    prepare.for_managing(layout)
    running = run_record.running(layout)
    ports = running.ports if running else {"fanout": free_port(8099), "model": free_port(8100)}
    model = running.model if running else DEFAULT_MODEL
    env = environment(layout, os.environ, ports, "127.0.0.1", model)
    os.chdir(layout.root)
    return os.execve(layout.python, [str(layout.python), "manage.py", *rest], env)
