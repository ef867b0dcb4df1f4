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

from collections import Counter

from orchestration.domain.budget import affordable
from orchestration.domain.closing import Close, closing, usual_chars, wake_times
from orchestration.domain.output_checks import loop_start
from orchestration.domain.policies import Policy
from orchestration.domain.synthesis_fold import apply
from orchestration.domain.synthesis_state import (
    Call,
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
    Mode,
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
    late_gate,
    merge,
    new_claims,
    pending,
    plan_growth,
    start,
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

HOPELESS = frozenset({"auth", "invalid_request", "budget.run", "quota.exceeded"})
"""Failures of the synthesizer that a second attempt meets again."""


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
        return _halt(state, "stop.user")
    if state.deadline_s is not None and now >= state.deadline_s:
        return _halt(state, "deadline")
    if state.final:
        return _after_final(policy, state, now)
    close = closing(policy, state)
    if close is None or now < close.at_s:
        return _grow(policy, state, now, close)
    return _close(policy, state, close)


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
    if policy.revise == "restart" and (cut := _outdated(state)):
        return cut
    if state.running or _given_up(policy, state):
        return ()
    last = state.versions[-1] if state.versions else None
    if last and last.state == "rejected":
        plan = _rewrite(state, "patch_rejected")
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


def _outdated(state: State) -> tuple[Command, ...]:
    """Cancel the running synthesis when an answer has finished since (the `restart` foil)."""
    running = state.running
    if running is None or running.cancelling:
        return ()
    within = {source.label for source in running.sources}
    if all(call.label in within for call in state.answers):
        return ()
    return (CancelCall(f"v{running.version}", "stop.superseded"),)


def _rewrite(state: State, trigger: str) -> StartSynthesis:
    return start(state, "rewrite", merge({}, _material(state)), trigger)


def _material(state: State) -> dict[str, int]:
    """What a text from the sources rests on: answers, and what others wrote while they were asked.
    Text of a call that failed is left out: it was cut at a point nobody chose."""
    return {
        label: chars
        for label, call in state.calls.items()
        if (call.status != "failed" or call.cut) and (chars := readable(state, label))
    }


# --- the final ----------------------------------------------------------------------------------


def _close(policy: Policy, state: State, close: Close) -> tuple[Command, ...]:
    cuts = _stragglers(policy, state, close)
    if policy.revise == "restart" and (outdated := _outdated(state)):
        return (*cuts, *outdated)
    if state.running:
        return cuts
    if not state.open and not state.answers and not _cut_text(policy, state):
        return (FinishRun("failed", _common_kind(state)),)
    if single := _single(policy, state):
        return (*cuts, single)
    if _given_up(policy, state):
        return (*cuts, *(_best_effort(state) or _nothing(state)))
    plan = _last_synthesis(policy, state, close)
    if plan is None:
        return (*cuts, _promotion(policy, state))
    if not affordable(policy, state, plan, reserve=False):
        return (*cuts, *(_best_effort(state) or _nothing(state)))
    return (*cuts, plan)


def _last_synthesis(policy: Policy, state: State, close: Close) -> StartSynthesis | None:
    """The synthesis that is still missing before the final, if any."""
    material = _material(state)
    if not state.document.blocks:
        return start(state, "draft", merge({}, material), close.reason)
    last = state.versions[-1]
    if last.state == "rejected":
        return _rewrite(state, "patch_rejected")
    made_by = state.lineage[-1]
    if made_by.started_s >= close.at_s and not made_by.is_step:
        return None
    patches = sum(version.kind == "patch" for version in state.lineage)
    if (
        _tainted(state)
        or policy.final == "rewrite"
        or patches >= policy.rewrite_after_patches
        or (policy.revise == "restart" and any(c.label not in given(state) for c in state.answers))
    ):
        return _rewrite(state, close.reason)
    if policy.revise == "patch" and worth_a_call(policy, state, material):
        # A draft that only ever grew can be finished in the same way, which costs less and cannot
        # fail to apply. To take something back takes an edit.
        grown = all(v.is_step for v in state.lineage) and not disputes(state, material)
        sources = merge(given(state), pending(state, material))
        return start(state, "draft" if grown else "patch", sources, close.reason)
    return None


def _tainted(state: State) -> bool:
    return any(
        state.calls[label].status == "failed" and not state.calls[label].cut
        for label in given(state)
    )


def _single(policy: Policy, state: State) -> Finalise | None:
    """The only answer there is, verbatim; degraded when more than one was asked for."""
    if len(state.answers) != 1:
        return None
    only = state.answers[0]
    if any(label != only.label for label in _cut_text(policy, state)):
        return None
    return Finalise(None, "single", only.label, degraded=len(state.calls) > 1)


def _cut_text(policy: Policy, state: State) -> list[str]:
    """Calls without an end of their own that still have something to say: at least a chunk."""
    return [
        call.label
        for call in state.calls.values()
        if (call.status == "open" or call.cut) and readable(state, call.label) >= policy.chunk_chars
    ]


def _promotion(policy: Policy, state: State) -> Finalise:
    short = len(state.answers) < policy.quorum(len(state.calls))
    made_by = state.lineage[-1]
    mode: Mode = "rewrite" if made_by.kind == "rewrite" else "promote"
    return Finalise(state.document.version, mode, degraded=short)


def _best_effort(state: State) -> tuple[Finalise, ...]:
    """An answer without another call: the last good document, else the answer that states most of
    what others state too (the longer one of equals)."""
    if state.document.blocks and not (_tainted(state) and state.answers):
        return (Finalise(state.document.version, "promote", degraded=True),)
    if not state.answers:
        return ()
    shared: Counter[str] = Counter()
    for claim in state.overlap.claims:
        if len(claim.labels) > 1:
            shared.update(claim.labels)
    best = max(
        state.answers,
        # An answer that loops is the longest and says everything twice.
        key=lambda call: (loop_start(call.text) is None, shared[call.label], len(call.text)),
    )
    return (Finalise(None, "single", best.label, degraded=len(state.calls) > 1),)


def _nothing(state: State) -> tuple[FinishRun, ...]:
    """There is nothing to show, and once every call has ended nothing will come."""
    if state.open:
        return ()
    return (FinishRun("failed", _common_kind(state) or "bad_upstream_response"),)


def _given_up(policy: Policy, state: State) -> bool:
    """The synthesizer failed too often in a row, or in a way that will not change."""
    failures = 0
    for version in reversed(state.versions):
        if version.state != "failed":
            break
        if not (version.reason or "").startswith("stop."):
            failures += 1
            if version.reason in HOPELESS:
                return True
    return failures > policy.retries


def _stragglers(policy: Policy, state: State, close: Close) -> tuple[CancelCall, ...]:
    """Calls not worth waiting for. Judged once, when the last synthesis takes up what they have
    written: later the rest of a call would look smaller and smaller until it is cut at its end."""
    if policy.late == "ignore":
        cut = list(state.open)
    elif state.running or any(v.started_s >= close.at_s for v in state.versions):
        cut = []
    else:
        cut = [c for c in state.open if not _may_amend(policy, state, c)]
    return tuple(CancelCall(c.label, "stop.superseded") for c in cut if not c.cancelling)


def _may_amend(policy: Policy, state: State, call: Call) -> bool:
    """Marginal value of waiting for a call: whether its speed lets it end within the late window,
    and whether the rest of it, if it goes on as it began, brings enough for an amendment. A call
    that has hardly begun may still surprise."""
    usual = usual_chars(state, state.now_s)
    if call.first_s is None or len(call.text) < policy.chunk_chars or not usual:
        return True
    left = max(usual - len(call.text), 0)
    if left > len(call.text) / max(state.now_s - call.first_s, 0.001) * policy.late_window_s:
        return False
    own = sum(claim.labels == {call.label} for claim in state.overlap.claims)
    expected = own * left / max(len(call.text), 1)
    return expected >= late_gate(policy, state)


# --- after the final, and when everything must end ----------------------------------------------


def _after_final(policy: Policy, state: State, now: float) -> tuple[Command, ...]:
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
        if affordable(policy, state, plan, reserve=False) and not _given_up(policy, state):
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


def _halt(state: State, reason: str) -> tuple[Command, ...]:
    """End now: cancel everything, keep what exists."""
    ends: list[Command] = [
        CancelCall(call.label, reason) for call in state.open if not call.cancelling
    ]
    if running := state.running:
        if not running.cancelling:
            ends.append(CancelCall(f"v{running.version}", reason))
        return tuple(ends)
    if not state.final and (best := _best_effort(state)):
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
        return FinishRun("degraded", _common_kind(state))
    return FinishRun("done")


def _common_kind(state: State) -> str | None:
    """The error kind most calls failed with; None when none failed on its own."""
    kinds = Counter(call.kind for call in state.calls.values() if call.kind and not call.cut)
    return kinds.most_common(1)[0][0] if kinds else None
