"""The arguments of ``ask``. Standard library only: wrong arguments are told before any set-up."""

import argparse
import sys
from pathlib import Path

from launcher.failure import Failed

DISPLAYS = ("rich", "plain", "none")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("question", nargs="?", help="what to ask (or --file)")
    parser.add_argument("--file", metavar="PATH", help="read the question from a file; - is stdin")
    parser.add_argument("--pipeline", metavar="NAME", help="how to answer (synthesis)")
    parser.add_argument("--models", metavar="A,B", help="models to ask, comma-separated")
    parser.add_argument("--fresh", action="store_true", help="ask again what the cache knows")
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "--json", action="store_true", help="print the whole run as one JSON object"
    )
    output.add_argument(
        "--ndjson", action="store_true", help="print the run's events as they happen"
    )
    parser.add_argument("--display", choices=DISPLAYS, help="progress on stderr (by the terminal)")
    parser.add_argument("--quiet", action="store_true", help="no progress: --display none")


def validate(options: argparse.Namespace) -> None:
    """Raises Failed (exit code 2) unless there is exactly one question, and all of it is text."""
    if options.question is None and options.file is None:
        raise _usage('Give a question: ./rex ask "…", or --file PATH, or --file - for stdin.')
    if options.question is not None and options.file is not None:
        raise _usage("Give one of the two: a question, or --file.")
    if options.question is not None and not options.question.strip():
        raise _usage("The question is empty.")
    if options.file not in (None, "-"):
        _validate_file(Path(options.file))
    if options.models is not None and not _names(options.models):
        raise _usage("--models names no model. Name some, comma-separated, or leave it out.")
    sent = {"The question": options.question, "--models": options.models}
    for name, value in (sent | {"--pipeline": options.pipeline}).items():
        # Bytes of an argument that are not UTF-8 arrive as lone surrogates.
        if value is not None and any("\ud800" <= char <= "\udfff" for char in value):
            raise _usage(f"{name} is not UTF-8.")


def _validate_file(path: Path) -> None:
    if path.is_dir():
        raise _usage(f"{path} is a directory; --file takes a file.")
    # Not is_file(): a pipe, as the shell's <(…) gives, is as good.
    if not path.exists():
        raise _usage(f"There is no file {path}.")


def _names(models: str) -> list[str]:
    return [name.strip() for name in models.split(",") if name.strip()]


def question_of(options: argparse.Namespace) -> str:
    """The question, read once. Raises Failed (exit code 2) where it is empty or not UTF-8."""
    validate(options)
    if options.file is None:
        return str(options.question)
    raw = sys.stdin.buffer.read() if options.file == "-" else Path(options.file).read_bytes()
    try:
        question = raw.decode()
    except UnicodeDecodeError as error:
        raise _usage(f"The question is not UTF-8 (byte {error.start}).") from error
    if not question.strip():
        raise _usage("The question is empty.")
    return question


def body_of(options: argparse.Namespace, question: str) -> dict[str, object]:
    """The body of ``POST /api/run``; what was not given is left for the server to choose."""
    body: dict[str, object] = {"prompt": question}
    if options.pipeline:
        body["pipeline"] = options.pipeline
    if options.models:
        body["models"] = _names(options.models)
    if options.fresh:
        body["cache"] = "refresh"
    return body


def display_of(options: argparse.Namespace) -> str:
    """rich on a terminal, plain lines elsewhere, nothing when told so."""
    if options.quiet:
        return "none"
    return options.display or ("rich" if sys.stderr.isatty() else "plain")


def _usage(sentence: str) -> Failed:
    return Failed(sentence, exit_code=2)
