"""What a synthesis before the final would be: the next step of the staircase, a draft, an edit.

Also the novelty gate: what an answer would add to the document.
"""

from collections.abc import Iterable, Mapping
from typing import cast

from orchestration.domain import overlap as overlaps
from orchestration.domain.policies import Policy
from orchestration.domain.synthesis_state import (
    Call,
    CancelCall,
    Kind,
    Source,
    StartSynthesis,
    State,
    SynthesisStarted,
    Trigger,
    Version,
    considered,
    given,
    readable,
)

FEWEST_STEP_CHARS = 200
FIRST_PARAGRAPH_CHARS = 160
"""A paragraph shorter than this (a heading, "Sure, here it is:") does not start the staircase."""
LEAST_STEP_CHARS, MOST_STEP_CHARS = 1_100, 1_600
"""Length of one step: a shorter one spends its time on starting, a longer one delays the final.
Measured by scripts/synthesis_policy_report.py."""
LONGEST_DRAFT = 0.9
"""The staircase stops at this share of the longest answer: the rest is for the edits, which know
more."""


def start(
    state: State, kind: Kind, sources: tuple[Source, ...], trigger: str, *, late: bool = False
) -> StartSynthesis:
    base = 0 if kind == "rewrite" else state.document.version
    return StartSynthesis(
        len(state.versions) + 1, kind, base, sources, cast(Trigger, trigger), late
    )


def merge(base: Mapping[str, int], new: Mapping[str, int]) -> tuple[Source, ...]:
    """Both together, in the order they were first shown: the prompt only ever grows."""
    chars = dict(base)
    for label, count in new.items():
        chars[label] = max(count, chars.get(label, 0))
    return tuple(Source(label, count) for label, count in chars.items())


def plan_growth(policy: Policy, state: State, now: float) -> StartSynthesis | None:
    """The synthesis due before the final, if any. The lane must be free."""
    if len(live_calls(state)) < 2:
        # One answer needs no merging, whatever becomes of it.
        return None
    if policy.revise == "restart":
        return _restart(state)
    if policy.draft_from == "chunks" and (step := _step(policy, state)):
        return step
    if policy.draft_from == "first_answer" and not state.document.blocks and state.answers:
        ready = {call.label: len(call.text) for call in state.answers}
        return start(state, "draft", merge({}, ready), "new_answer")
    return _edit(policy, state, now)


# --- the staircase ------------------------------------------------------------------------------


def _step(policy: Policy, state: State) -> StartSynthesis | None:
    """The next part of the draft, once enough calls are ahead of it by a chunk."""
    lineage = state.lineage
    if len(lineage) >= policy.max_steps or not all(v.is_step for v in lineage):
        return None
    live = live_calls(state)
    length = len(state.document.text)
    ready = [call for call in live if _ahead(policy, state, call, length)]
    first_answer = not lineage and bool(state.answers)
    if not ready or (len(ready) < min(policy.start_calls, len(live)) and not first_answer):
        return None
    shown = given(state)
    fresh = {c.label: n for c in live if (n := readable(state, c.label)) > shown.get(c.label, 0)}
    if not lineage:
        reason = "chunks" if len(ready) >= min(policy.start_calls, len(live)) else "first_answer"
        return start(state, "draft", merge({}, fresh), reason)
    if length >= LONGEST_DRAFT * max(readable(state, call.label) for call in live):
        return None
    if not lineage[-1].changed and new_claims(state, fresh) < policy.min_new_claims:
        # The last step found nothing left to write, and nothing new has come since.
        return None
    return start(state, "draft", merge(shown, fresh), "chunks")


def live_calls(state: State) -> list[Call]:
    """Calls that have or may still have something to say."""
    return [c for c in state.calls.values() if c.status != "failed" or (c.cut and c.text)]


def step_chars(command: StartSynthesis | SynthesisStarted | Version, state: State) -> int:
    """About how much a step should write: as far as the second-longest of its sources is ahead of
    the draft, but never more than there is to write from. Follows from the sources alone, so that
    a prompt can be built again from the log."""
    base = state.documents.get(command.base_version)
    written = len(base.text) if base else 0
    shown = sorted((source.chars for source in command.sources), reverse=True)
    ahead = shown[min(1, len(shown) - 1)] - written
    least = min(LEAST_STEP_CHARS, max(sum(shown) - written, FEWEST_STEP_CHARS))
    return max(least, min(MOST_STEP_CHARS, ahead))


def _ahead(policy: Policy, state: State, call: Call, length: int) -> bool:
    if call.status == "finished":
        return True
    read = readable(state, call.label)
    if read >= length + policy.chunk_chars:
        return True
    return not length and call.text.find("\n\n", FIRST_PARAGRAPH_CHARS, read) >= 0


# --- edits --------------------------------------------------------------------------------------


def _edit(policy: Policy, state: State, now: float) -> StartSynthesis | None:
    """Later answers as one edit of the draft: while nobody writes, and only for news."""
    if policy.revise != "patch" or not state.document.blocks or not state.answers:
        return None
    if policy.draft_from == "chunks" and any(call.text for call in state.open):
        return None
    if now < (state.answers[-1].ended_s or 0.0) + policy.debounce_s:
        return None
    # What a step left out of an answer it was shown waits for the final's edit.
    shown = given(state)
    news = [call.label for call in state.answers if shown.get(call.label, 0) < len(call.text)]
    if not worth_a_call(policy, state, news):
        return None
    trigger = "dispute" if disputes(state, news) else "new_claims"
    return start(state, "patch", merge(shown, pending(state, news)), trigger)


def _restart(state: State) -> StartSynthesis | None:
    shown = given(state)
    if not state.answers or all(call.label in shown for call in state.answers):
        return None
    kind: Kind = "rewrite" if state.document.blocks else "draft"
    ready = {call.label: len(call.text) for call in state.answers}
    return start(state, kind, merge({}, ready), "new_answer")


def pending(state: State, labels: Iterable[str]) -> dict[str, int]:
    """What of these answers the synthesizer has not yet been free to use, as far as readable."""
    weighed = considered(state)
    return {k: n for k in labels if (n := readable(state, k)) > weighed.get(k, 0)}


def worth_a_call(policy: Policy, state: State, labels: Iterable[str]) -> bool:
    """The novelty gate: enough new claims, or a dispute. After the final it is narrower."""
    waiting = pending(state, labels)
    if not waiting:
        return False
    enough = late_gate(policy, state) if state.final else policy.min_new_claims
    return new_claims(state, waiting) >= enough or bool(disputes(state, waiting))


def late_gate(policy: Policy, state: State) -> float:
    """New claims that an amendment of the final needs."""
    return max(policy.min_new_claims, policy.late_min_share * len(state.written))


def new_claims(state: State, labels: Iterable[str]) -> int:
    """Claims of these answers that the document does not state and that no synthesizer call was
    free to use before: what was left out on purpose is not news."""
    wanted, weighed = set(labels), considered(state)
    return sum(
        claim.id not in state.stated
        and any(s.label in wanted for s in claim.sentences)
        and not any(s.end <= weighed.get(s.label, 0) for s in claim.sentences)
        for claim in state.overlap.claims
    )


def disputes(state: State, labels: Iterable[str]) -> int:
    """Sentences of these answers, not weighed before, that contradict the document."""
    wanted, weighed = set(labels), considered(state)
    return sum(
        any(overlaps.contradict(s, written) for written in state.written)
        for claim in state.overlap.claims
        if claim.id in state.stated
        for s in claim.sentences
        if s.label in wanted and s.end > weighed.get(s.label, 0)
    )


# --- the lane ----------------------------------------------------------------------------------

HOPELESS = frozenset({"auth", "invalid_request", "budget.run", "quota.exceeded"})
"""Failures of the synthesizer that a second attempt meets again."""


def outdated(state: State) -> tuple[CancelCall, ...]:
    """Cancel the running synthesis when an answer has finished since (the `restart` foil)."""
    running = state.running
    if running is None or running.cancelling:
        return ()
    within = {source.label for source in running.sources}
    if all(call.label in within for call in state.answers):
        return ()
    return (CancelCall(f"v{running.version}", "stop.superseded"),)


def rewrite(state: State, trigger: str) -> StartSynthesis:
    return start(state, "rewrite", merge({}, material_of(state)), trigger)


def material_of(state: State) -> dict[str, int]:
    """What a text from the sources rests on: answers, and what others wrote while they were asked.
    Text of a call that failed is left out: it was cut at a point nobody chose."""
    return {
        label: chars
        for label, call in state.calls.items()
        if (call.status != "failed" or call.cut) and (chars := readable(state, label))
    }


def given_up(policy: Policy, state: State) -> bool:
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
