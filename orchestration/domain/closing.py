"""When the final begins, and when to look again."""

from dataclasses import dataclass
from typing import Literal

from orchestration.domain.policies import Policy
from orchestration.domain.synthesis_state import Call, State

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
        found.append(Close(_quorum_and_grace(policy, state, answers[quorum - 1]), "quorum"))
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


def _quorum_and_grace(policy: Policy, state: State, last: Call) -> float:
    """When the calls that can still make it within the grace have ended, at most the whole grace
    after the quorum. `last` is the answer that completed the quorum.

    Judged by what each call had written when the quorum was reached, so that the moment is the
    same whenever it is asked for. What the others have written so far goes into the final as it
    is, so waiting for one that cannot finish buys little."""
    at_s = last.ended_s or 0.0
    grace_s = min(policy.grace_s, policy.grace_share * at_s)
    usual = usual_chars(state, at_s)
    close_s = at_s
    for call in state.calls.values():
        written = last.others.get(call.label, 0)
        if call.first_s is None or not written or (call.ended_s or at_s) < at_s:
            continue
        left_s = (usual - written) * max(at_s - call.first_s, 0.001) / written
        if call.label != last.label and left_s <= grace_s:
            close_s = max(close_s, min(at_s + grace_s, call.ended_s or at_s + grace_s))
    return close_s


def usual_chars(state: State, until_s: float) -> int:
    """Median length of the answers finished until then."""
    lengths = sorted(len(c.text) for c in state.answers if (c.ended_s or 0.0) <= until_s)
    return lengths[len(lengths) // 2] if lengths else 0


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
