"""The key under which an answer may be kept and found again (docs/adr/0010-cache-keys.md).

Two questions have the same key only where one's answer serves the other as well: everything that
changes what a model is asked is in it. What is left out, and why:

- ids of the run, its request and its call, and who in the workspace asked: names, no content;
- time limits, attempts and their waits: they decide whether there is an answer, not which, and only
  complete ones are kept;
- how an answer travels (coalescing, in one piece or streamed): its text is the same;
- the provider's key: another one reaches the same model, and the workspace keeps tenants apart.

Fallbacks and hedges let other models answer. Nobody uses them together with the cache, so they have
no place here yet.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

# Raised when the meaning of a field changes: old entries are then not found, and expire.
SCHEMA: Final = 2


@dataclass(frozen=True, slots=True)
class Question:
    """All an answer depends on.

    ``address`` is the provider's; two servers under one name may hold different models.
    ``messages`` and ``params`` are JSON values as they are sent, parameters that are not sent left
    out. ``candidate`` counts equal questions of one run from 0: whoever asks a model twice wants
    two answers. ``thoughts``: the reasoning is wanted too, and an answer that was kept without it
    does not serve. ``pipeline`` and ``pipeline_version`` are those of the run.
    """

    workspace: str
    pipeline: str
    pipeline_version: int
    provider: str
    address: str
    model: str
    messages: Sequence[Mapping[str, Any]]
    params: Mapping[str, Any]
    candidate: int = 0
    thoughts: bool = False


def cache_key(secret: bytes, question: Question) -> str:
    """64 hexadecimal digits. ``secret`` is the server's: without it nobody can tell from a key what
    was asked, nor make the key of a question.

    The canonical form is JSON with sorted names, so the order in which parameters are written down
    does not matter; numbers that are equal are written alike.
    """
    form = json.dumps(
        {"schema": SCHEMA, **_canonical(asdict(question))},
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
    )
    return hmac.new(secret, form.encode(), hashlib.sha256).hexdigest()


def _canonical(value: Any) -> Any:
    """``value`` with 1.0 as 1: which of the two a caller wrote changes no answer."""
    if isinstance(value, Mapping):
        return {name: _canonical(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
