"""The final: what is still missing, who is not waited for, and what stands when all else fails."""

from collections import Counter

from orchestration.domain.budget import affordable
from orchestration.domain.closing import Close, usual_chars
from orchestration.domain.output_checks import loop_start
from orchestration.domain.policies import Policy
from orchestration.domain.synthesis_state import (
    Call,
    CancelCall,
    Command,
    Finalise,
    FinishRun,
    Mode,
    StartSynthesis,
    State,
    given,
    readable,
)
from orchestration.domain.synthesis_steps import (
    disputes,
    given_up,
    late_gate,
    live_calls,
    material_of,
    merge,
    outdated,
    pending,
    rewrite,
    start,
    worth_a_call,
)


def close_run(policy: Policy, state: State, close: Close) -> tuple[Command, ...]:
    cuts = _stragglers(policy, state, close)
    if policy.revise == "restart" and (cut := outdated(state)):
        return (*cuts, *cut)
    if state.running:
        return cuts
    if not state.open and not state.answers and not _cut_text(policy, state):
        # None failed on its own: each was stopped by its reader before it said anything.
        return (FinishRun("failed", common_kind(state) or "stop.user"),)
    if single := _single(policy, state):
        return (*cuts, single)
    if given_up(policy, state):
        return (*cuts, *(best_effort(state) or _nothing(state)))
    plan = _last_synthesis(policy, state, close)
    if plan is None:
        return (*cuts, _promotion(policy, state))
    if not affordable(policy, state, plan, reserve=False):
        return (*cuts, *(best_effort(state) or _nothing(state)))
    return (*cuts, plan)


def _last_synthesis(policy: Policy, state: State, close: Close) -> StartSynthesis | None:
    """The synthesis that is still missing before the final, if any."""
    material = material_of(state)
    if not state.document.blocks:
        return start(state, "draft", merge({}, material), close.reason)
    last = state.versions[-1]
    if last.state == "rejected":
        return rewrite(state, "patch_rejected")
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
        return rewrite(state, close.reason)
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
    """The only answer there is, verbatim; degraded when more than one was asked for, or when it
    was stopped before its end."""
    live = live_calls(state)
    if len(live) == 1 and live[0].cut:
        return Finalise(None, "single", live[0].label, degraded=True)
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


def best_effort(state: State) -> tuple[Finalise, ...]:
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
    return (FinishRun("failed", common_kind(state) or "bad_upstream_response"),)


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


def common_kind(state: State) -> str | None:
    """The error kind most calls failed with; None when none failed on its own."""
    kinds = Counter(call.kind for call in state.calls.values() if call.kind and not call.cut)
    return kinds.most_common(1)[0][0] if kinds else None
