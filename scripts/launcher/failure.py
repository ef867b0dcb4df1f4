"""A start that cannot go on, in words: what failed, what the tool said, what to do."""

import errno
import re
from dataclasses import dataclass

_CAUSES: tuple[tuple[str, str], ...] = (
    (r"no space left on device|disk quota exceeded", "The disk is full. Free some space."),
    (
        r"certificate verify failed|invalid peer certificate|unknownissuer|self.signed certificate",
        "A certificate was not trusted. Behind a company proxy, name its certificate in "
        "SSL_CERT_FILE (and NODE_EXTRA_CA_CERTS for npm).",
    ),
    (
        r"name resolution|name or service not known|dns error|failed to lookup address|enotfound|"
        r"eai_again|no such host|network is unreachable|enetunreach|connection refused|"
        r"econnrefused|"
        r"failed to establish a new connection|tcp connect error|error sending request|"
        r"connection timed out|etimedout|i/o timeout|connection reset",
        "A package index could not be reached. Check the network, and the proxy settings if there "
        "are any.",
    ),
    (
        r"no matching distribution|no wheels? with a matching|"
        r"wheel for the current platform|not a supported wheel on this platform|"
        r"ebadplatform|unsupported platform",
        "A package has no build for this machine. Rex runs on Linux (x86-64, arm64) and macOS.",
    ),
    (
        r"do not match the hashes|hash mismatch|eintegrity|checksum mismatch",
        "A downloaded file is not the one that was locked, and is not used. Try again later; if it "
        "persists, report it.",
    ),
    (
        r"permission denied|eacces|read-only file system",
        "A directory is not writable for this user.",
    ),
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


def advice_for(output: str) -> str:
    """What to do about a tool that ended with this output; empty where nothing is recognised."""
    lowered = output.lower()
    return next((advice for pattern, advice in _CAUSES if re.search(pattern, lowered)), "")


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
