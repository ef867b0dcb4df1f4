"""One text as it grows: what arrived when, and what of it is stored already."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Flow:
    """``pacing`` is [[at_ms on the run's clock, end offset in code points, seq, ordinal], …]: the
    piece came behind the fact ``seq``, as the run's piece number ``ordinal``.

    ``begin_ms`` and ``first_ms`` are on the fan-out's own clock, which knows nothing of delays on
    our side; the two clocks are never mixed. ``begin_ms`` is when the first attempt began: what a
    reader waits for is the answer, not an attempt. ``spent`` sums up the attempts that have ended.
    """

    parts: list[str] = field(default_factory=list)
    length: int = 0
    pacing: list[list[int]] = field(default_factory=list)
    begin_ms: int | None = None
    first_ms: int | None = None
    stored: int = 0
    rev: int = 0
    spent: dict[str, Any] = field(default_factory=dict)

    def begin(self, at_ms: int) -> None:
        """An attempt begins."""
        if self.begin_ms is None:
            self.begin_ms = at_ms

    def start_over(self) -> None:
        """What was said is void; the next piece is the first again."""
        self.parts, self.length, self.stored, self.pacing = [], 0, 0, []
        self.first_ms = None
        self.rev += 1

    def add(self, text: str, at_ms: int, behind_seq: int, ordinal: int) -> int:
        """Append ``text`` and return the offset it begins at."""
        offset = self.length
        self.parts.append(text)
        self.length += len(text)
        self.pacing.append([at_ms, self.length, behind_seq, ordinal])
        return offset

    def text(self) -> str:
        if len(self.parts) > 1:
            self.parts = ["".join(self.parts)]
        return self.parts[0] if self.parts else ""

    def first_token_ms(self) -> int | None:
        return None if self.first_ms is None else self.since_begin(self.first_ms)

    def since_begin(self, at_ms: int) -> int:
        return max(0, at_ms - (self.begin_ms or 0))
