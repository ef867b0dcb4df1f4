"""What the calls of this process say about the targets they ask, for operators.

There are no limits, queues and circuit breakers here; what is known is which models are asked with
which key, and which keys were refused.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from orchestration.fanout.target_state import TargetState

MAX_TARGETS = 500  # names of models come with requests

# Provider, model, and the key's place among the provider's.
_Name = tuple[str, str, str]


@dataclass(slots=True)
class _Standing:
    in_flight: int = 0
    asked_s: float = 0.0


class Asked:
    """Attempts in flight, and when each target was last asked. ``clock`` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[_Name, _Standing] = OrderedDict()

    @contextmanager
    def attempt(self, provider: str, model: str, key: str) -> Iterator[None]:
        """Counts an attempt for as long as it lasts."""
        name = (provider, model, key)
        standing = self._known.setdefault(name, _Standing())
        self._known.move_to_end(name)
        standing.asked_s = self._clock()
        standing.in_flight += 1
        if len(self._known) > MAX_TARGETS:
            self._known.popitem(last=False)
        try:
            yield
        finally:
            standing.in_flight -= 1

    def targets(self, refused_for_s: Callable[[str, str], float | None]) -> list[TargetState]:
        """Those that are known, the one asked last first. ``refused_for_s`` says for how long a
        key, by provider and place, is passed over; None when it is not."""
        now = self._clock()
        return [
            _state(name, standing, now, refused_for_s(name[0], name[2]))
            for name, standing in reversed(self._known.items())
        ]


def _state(
    name: _Name, standing: _Standing, now: float, refused_for_s: float | None
) -> TargetState:
    provider, model, key = name
    return TargetState(
        provider=provider,
        model=model,
        key=key,
        in_flight=standing.in_flight,
        limit=None,
        queued=0,
        breaker="closed",
        refused=refused_for_s is not None,
        resumes_ms=None if refused_for_s is None else int(refused_for_s * 1000),
        asked_ms=int((now - standing.asked_s) * 1000),
    )
