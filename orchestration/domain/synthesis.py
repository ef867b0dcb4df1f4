"""Incremental synthesis: what to do next, decided again after every fact.

    state = apply(state, fact, now)                 # fold; ignores repeats
    for command in decide(policy, state, now):      # pure; () when there is nothing to do
        state = apply(state, consequence(command), now)
        execute(command)                            # later facts come from here
    wait for the next fact, or until next_wake_s(policy, state) and then apply Tick()

`now` is seconds on the run's clock. `consequence` is the fact a command establishes at once; with
it applied, `decide` at the same `now` yields nothing further, so commands are never issued twice
and replaying a log gives the same commands.

What the executor owes: every StartSynthesis ends in SynthesisFinished(whole text) or
SynthesisFailed(kind); CancelCall("A") ends in CallFailed("A", reason) unless the call was faster,
CancelCall("v3") likewise for the synthesis. After a fact, `state.version(n).state` says whether a
finished synthesis was applied, rejected (edits that do not fit) or failed (empty, or it repeated
the fence). The answer is `answer_text(state)`; it is final once `state.final` is set, and
`state.amended` once a late answer changed it. Prompts: `prompts.messages_for`.

The rules (`policies.Policy` holds their figures):
 1. Staircase: the draft grows in steps, each from what the answers have streamed meanwhile.
 2. When nobody writes, or from the quorum on, later material becomes one edit of the draft,
    if it brings enough new claims or a dispute. Otherwise the answer counts as covered.
 3. Quorum and grace, every call ended, or the deadline begin the final: promote the draft, after
    one last step (or an edit, to settle a dispute) when something is missing; rewrite from the
    sources after several edits, after an edit that did not fit, or when an answer that failed
    since is part of the draft.
 4. Calls still running then are cut when they have added nothing or are too slow; the others may
    amend the final for a while.
 5. One surviving answer is shown verbatim. A failing synthesizer is tried again, then the last
    good document or the best answer stands, marked degraded.
"""

from orchestration.domain.budget import affordable
from orchestration.domain.closing import Close, closing, wake_times
from orchestration.domain.policies import Policy
from orchestration.domain.synthesis_ends import after_final, halt
from orchestration.domain.synthesis_final import close_run
from orchestration.domain.synthesis_fold import apply
from orchestration.domain.synthesis_state import (
    CallChunk,
    CallFailed,
    CallFinished,
    CallStarted,
    CancelCall,
    CancelRequested,
    Command,
    Fact,
    Finalise,
    Finalised,
    FinishRun,
    RunFinished,
    RunStarted,
    Source,
    StartSynthesis,
    State,
    StopRequested,
    SynthesisDelta,
    SynthesisFailed,
    SynthesisFinished,
    SynthesisStarted,
    Tick,
    considered,
    given,
    readable,
)
from orchestration.domain.synthesis_steps import (
    disputes,
    given_up,
    new_claims,
    outdated,
    plan_growth,
    rewrite,
    worth_a_call,
)

__all__ = [
    "CallChunk", "CallFailed", "CallFinished", "CallStarted", "CancelCall", "CancelRequested",
    "Command", "Fact", "Finalise", "Finalised", "FinishRun", "RunFinished", "RunStarted", "Source",
    "StartSynthesis", "State", "StopRequested", "SynthesisDelta", "SynthesisFailed",
    "SynthesisFinished", "SynthesisStarted", "Tick", "answer_text", "apply", "closing",
    "consequence", "considered", "coverage", "decide", "disputes", "given", "new_claims",
    "next_wake_s", "readable",
]  # fmt: skip


def decide(policy: Policy, state: State, now: float) -> tuple[Command, ...]:
    """The commands due at `now`, in the order to execute them, until nothing more is due."""
    due: list[Command] = []
    while commands := _due(policy, state, now):
        due += commands
        for command in commands:
            state = apply(state, consequence(command), now)
    return tuple(due)


def _due(policy: Policy, state: State, now: float) -> tuple[Command, ...]:
    if not state.calls or state.finished:
        return ()
    if state.stop_requested:
        return halt(state, "stop.user")
    if state.deadline_s is not None and now >= state.deadline_s:
        return halt(state, "deadline")
    if state.final:
        return after_final(policy, state, now)
    close = closing(policy, state)
    if close is None or now < close.at_s:
        return _grow(policy, state, now, close)
    return close_run(policy, state, close)


def next_wake_s(policy: Policy, state: State) -> float | None:
    """When to decide again though nothing happens; None when only a fact can change anything."""
    if not state.calls or state.finished:
        return None
    later = [t for t in wake_times(policy, state) if t > state.now_s]
    return min(later, default=None)


def consequence(command: Command) -> Fact:
    """The fact that is true as soon as the command is accepted."""
    match command:
        case StartSynthesis():
            return SynthesisStarted(
                command.version,
                command.kind,
                command.base_version,
                command.sources,
                command.trigger,
                command.late,
            )
        case CancelCall():
            return CancelRequested(command.label, command.reason)
        case Finalise():
            return Finalised(command.version, command.mode, command.label, command.degraded)
        case FinishRun():
            return RunFinished(command.status, command.reason)


def answer_text(state: State) -> str | None:
    """The synthesized text so far, or the final; None while there is none."""
    return state.document.text or None


def coverage(policy: Policy, state: State) -> dict[str, str]:
    """Per call: merged (all of it went into the text), covered (it added nothing, so no call was
    spent), partly (shown in part), pending, or none (no answer)."""
    shown, weighed = given(state), considered(state)
    result = {}
    for label, call in state.calls.items():
        if state.final and state.final.mode == "single" and label == state.final.label:
            result[label] = "merged"
        elif call.status == "failed" and not shown.get(label):
            result[label] = "none"
        elif call.status == "finished" and shown.get(label, 0) >= len(call.text):
            result[label] = "merged"
        elif call.status == "finished" and state.document.blocks:
            missing = not worth_a_call(policy, state, [label])
            result[label] = "covered" if missing else "pending"
        else:
            result[label] = "partly" if shown.get(label) or weighed.get(label) else "pending"
    return result


# --- before the final ---------------------------------------------------------------------------


def _grow(policy: Policy, state: State, now: float, close: Close | None) -> tuple[Command, ...]:
    if policy.revise == "restart" and (cut := outdated(state)):
        return cut
    if state.running or given_up(policy, state):
        return ()
    last = state.versions[-1] if state.versions else None
    if last and last.state == "rejected":
        plan = rewrite(state, "patch_rejected")
    else:
        found = plan_growth(policy, state, now)
        if found is None or (close and _too_late(state, close, now)):
            return ()
        plan = found
    return (plan,) if affordable(policy, state, plan, reserve=True) else ()


def _too_late(state: State, close: Close, now: float) -> bool:
    """Whether a synthesis begun now would delay the final by more than it saves it: judged by the
    last one, at least half of it must be done when the final begins. What it would have said goes
    into the final's own edit."""
    if not state.applied:
        return False
    last = state.applied[-1]
    took_s = (last.ended_s or last.started_s) - last.started_s
    return now + took_s / 2 > close.at_s
