"""After the final: amendments, and the end of a run, in time or before it."""

from collections import Counter

from orchestration.domain.budget import affordable
from orchestration.domain.policies import Policy
from orchestration.domain.synthesis_final import best_effort, common_kind
from orchestration.domain.synthesis_state import (
    CancelCall,
    Command,
    FinishRun,
    State,
    given,
)
from orchestration.domain.synthesis_steps import given_up, merge, pending, start, worth_a_call


def after_final(policy: Policy, state: State, now: float) -> tuple[Command, ...]:
    if state.final is None or state.running:
        return ()
    over = now >= state.final.at_s + policy.late_window_s or policy.late == "ignore"
    tried = _tried_late(policy, state)
    arrived = [call.label for call in state.answers if call.label not in tried]
    if policy.late == "amend" and worth_a_call(policy, state, arrived):
        due = max(call.ended_s or 0.0 for call in state.answers) + policy.debounce_s
        if now < due:
            return ()
        sources = merge(given(state) or _verbatim(state), pending(state, arrived))
        plan = start(state, "patch", sources, "new_claims", late=True)
        if affordable(policy, state, plan, reserve=False) and not given_up(policy, state):
            return (plan,)
    if state.open:
        left = [call for call in state.open if over and not call.cancelling]
        return tuple(CancelCall(call.label, "stop.superseded") for call in left)
    return (_finish(state),)


def _verbatim(state: State) -> dict[str, int]:
    """What an answer shown verbatim rests on."""
    if state.final is None or state.final.label is None:
        return {}
    return {state.final.label: len(state.calls[state.final.label].text)}


def _tried_late(policy: Policy, state: State) -> set[str]:
    """Labels whose amendment did not work out: a final is never rewritten for them."""
    tries: Counter[str] = Counter()
    for version in state.versions:
        if version.late and version.state in ("failed", "rejected"):
            weight = policy.retries + 1 if version.state == "rejected" else 1
            tries.update({source.label: weight for source in version.sources})
    return {label for label, count in tries.items() if count > policy.retries}


def halt(state: State, reason: str) -> tuple[Command, ...]:
    """End now: cancel everything, keep what exists."""
    ends: list[Command] = [
        CancelCall(call.label, reason) for call in state.open if not call.cancelling
    ]
    if running := state.running:
        if not running.cancelling:
            ends.append(CancelCall(f"v{running.version}", reason))
        return tuple(ends)
    if not state.final and (best := best_effort(state)):
        return (*ends, *best)
    if state.open:
        return tuple(ends)
    if not state.final:
        stopped = FinishRun("cancelled" if reason == "stop.user" else "failed", reason)
        return (*ends, stopped)
    if reason == "stop.user" and state.final.degraded:
        return (*ends, FinishRun("cancelled", reason))
    return (*ends, _finish(state))


def _finish(state: State) -> FinishRun:
    if state.final and state.final.degraded:
        return FinishRun("degraded", common_kind(state))
    return FinishRun("done")
