"""A start that cannot go on, in words: what failed, what the tool said, what to do."""

import errno
import re
from dataclasses import dataclass

_Causes = tuple[tuple[str, str], ...]

_OF_THE_MACHINE: _Causes = (
    (r"no space left on device|disk quota exceeded", "The disk is full. Free some space."),
    (
        r"permission denied|\beacces\b|read-only file system",
        "A directory is not writable for this user.",
    ),
)
_OF_INSTALLERS: _Causes = (
    (
        r"certificate verify failed|invalid peer certificate|unknownissuer|self.signed certificate",
        "A certificate was not trusted. Behind a company proxy, name its certificate in "
        "SSL_CERT_FILE (and NODE_EXTRA_CA_CERTS for npm).",
    ),
    (
        r"name resolution|name or service not known|dns error|failed to lookup address|"
        r"\b(enotfound|eai_again|enetunreach|econnrefused|etimedout)\b|no such host|"
        r"network is unreachable|connection (refused|timed out|reset)|"
        r"failed to establish a new connection|tcp connect error|error sending request|"
        r"i/o timeout",
        "A package index could not be reached. Check the network, and the proxy settings if there "
        "are any.",
    ),
    (
        r"no matching distribution|no wheels? with a matching|"
        r"wheel for the current platform|not a supported wheel on this platform|"
        r"\bebadplatform\b|unsupported platform",
        "A package has no build for this machine. Rex runs on Linux (x86-64, arm64) and macOS.",
    ),
    (
        r"do not match the hashes|hash mismatch|\beintegrity\b|checksum mismatch",
        "A downloaded file is not the one that was locked, and is not used. Try again later; if it "
        "persists, report it.",
    ),
)
DAMAGED_ENVIRONMENT = (
    "The Python environment is damaged. Delete .venv and run the same command again; if it "
    "persists, run .boot/uv/bin/uv cache clean before."
)
_OF_REX: _Causes = (
    (
        # A module of the checkout itself is not in the environment.
        r"(modulenotfounderror|importerror): (?!.*'(rexsite|orchestration|workspaces|evals)\b)",
        DAMAGED_ENVIRONMENT,
    ),
    (
        r"file is not a database|database disk image is malformed",
        "The database is damaged. Put a backup in its place, or move it away to start with an "
        "empty one: rex.sqlite3 with its -wal and -shm, in .rex (or REX_STATE_DIR).",
    ),
    (
        r"database \"[^\"]*\" does not exist",
        "Create the database that DATABASE_URL names; its tables are made at the next start.",
    ),
    (
        r"permission denied for (schema|table|sequence|database)",
        "The user of DATABASE_URL may not make or use tables there. Let it own the database.",
    ),
    (
        r"couldn't get a connection|database did not answer|no answer from the database",
        "Does the PostgreSQL of DATABASE_URL run, and are its address, user and password right?",
    ),
    (
        r"unable to open database file|readonly database",
        "The database cannot be opened for writing. Is its directory there, and this user's?",
    ),
)
# What Django says of settings it does not accept, after the class or the check that found it.
_WRONG_SETTING = re.compile(
    r"^(?:\S*: \(\w+\.[EC]\d+\)|(?:[\w.]+\.)?ImproperlyConfigured:|CommandError:) (.+)$",
    re.MULTILINE,
)
_PASSWORD_IN_URL = re.compile(r"(https?://)[^/\s@]+@")
_TAIL_LINES, _TAIL_CHARS = 15, 240


@dataclass(eq=False)
class Failed(Exception):
    """``what`` failed, ``detail`` as its tool told it (may be empty), ``advice`` on what to do.

    Not frozen: Python itself sets the traceback of an exception that passes a ``with`` block.
    """

    what: str
    detail: str = ""
    advice: str = ""
    exit_code: int = 1

    def __str__(self) -> str:
        detail = "\n".join(f"    {line}" for line in self.detail.splitlines())
        return "\n".join(part for part in (self.what, detail, self.advice) if part)


def without_passwords(text: str) -> str:
    """``text`` with the user part of every address removed: it often is a token."""
    return _PASSWORD_IN_URL.sub(r"\1", text)


def tail(output: str, lines: int = _TAIL_LINES) -> str:
    """The last lines of a tool's output that say anything, without passwords."""
    kept = [line.rstrip() for line in without_passwords(output).splitlines() if line.strip()]
    return "\n".join(_shortened(line) for line in kept[-lines:])


def _shortened(line: str) -> str:
    return line if len(line) <= _TAIL_CHARS else f"{line[:_TAIL_CHARS]} …"


def gist(output: str) -> str:
    """What a Python program died of: the end of its output, without the frames of a traceback."""
    _, marker, after = output.rpartition("Traceback (most recent call last):")
    said = [line for line in after.splitlines() if line.strip() and not line[0].isspace()]
    return tail("\n".join(said)) if marker and said else tail(output)


def wrong_settings(output: str) -> tuple[str, ...]:
    """What ``manage.py`` said of wrong settings, once each; empty where it is not that."""
    return tuple(dict.fromkeys(_WRONG_SETTING.findall(without_passwords(output))))


def advice_for(output: str) -> str:
    """What to do about an installer that ended with this output; empty where not recognised."""
    return _advice(output, _OF_THE_MACHINE + _OF_INSTALLERS)


def advice_on_crash(output: str) -> str:
    """What to do about a process of Rex that ended with this output; empty where not recognised."""
    return _advice(output, _OF_REX + _OF_THE_MACHINE)


def _advice(output: str, causes: _Causes) -> str:
    lowered = output.lower()
    return next((advice for pattern, advice in causes if re.search(pattern, lowered)), "")


def of_os_error(error: OSError) -> Failed:
    """The failure behind an error of the operating system that no step expected."""
    place = f" ({error.filename})" if error.filename else ""
    advice = {
        errno.ENOSPC: "The disk is full. Free some space and run the same command again.",
        errno.EDQUOT: "The disk quota is used up. Free some space and run the same command again.",
        errno.EACCES: "This user may not write there. Use a checkout of your own.",
        errno.EROFS: "The file system is read-only. Set REX_STATE_DIR, or use another checkout.",
    }.get(error.errno or 0, "")
    return Failed(f"{error.strerror or 'The system refused'}{place}.", advice=advice)
