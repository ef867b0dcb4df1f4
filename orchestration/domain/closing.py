"""When the final begins, and when to look again."""

from dataclasses import dataclass
from typing import Literal

from orchestration.domain.policies import Policy
from orchestration.domain.synthesis_state import State

SHARE_OF_DEADLINE = 0.75
"""The final begins at this share of the run's own deadline at the latest: the rest is for writing
it. An answer that is complete after the deadline is no answer."""


@dataclass(frozen=True, slots=True)
class Close:
    at_s: float
    reason: Literal["all", "quorum", "deadline"]


def closing(policy: Policy, state: State) -> Close | None:
    """The moment the final begins, past or to come, as far as it can be known now.

    Once past it stays: calls only end, so an earlier reason can appear only while it is to come."""
    calls, answers = state.calls.values(), state.answers
    found: list[Close] = []
    if not state.open:
        found.append(Close(max(call.ended_s or 0.0 for call in calls), "all"))
    quorum = policy.quorum(len(state.calls))
    if len(answers) >= quorum:
        at_s = answers[quorum - 1].ended_s or 0.0
        found.append(Close(at_s + min(policy.grace_s, policy.grace_share * at_s), "quorum"))
    limits = [policy.deadline_s]
    if state.deadline_s is not None:
        limits.append(SHARE_OF_DEADLINE * state.deadline_s)
    if known := [limit for limit in limits if limit is not None]:
        if state.document.blocks:
            found.append(Close(min(known), "deadline"))
        elif answers:
            # Nothing can be shown before the first answer, however late it comes.
            found.append(Close(max(min(known), answers[0].ended_s or 0.0), "deadline"))
    return min(found, key=lambda close: close.at_s, default=None)


def wake_times(policy: Policy, state: State) -> list[float]:
    """Moments at which a decision may change by itself."""
    times: list[float] = []
    if state.deadline_s is not None:
        times.append(state.deadline_s)
    if state.answers:
        times.append((state.answers[-1].ended_s or 0.0) + policy.debounce_s)
    if state.final:
        times.append(state.final.at_s + policy.late_window_s)
    elif close := closing(policy, state):
        times.append(close.at_s)
    return times
