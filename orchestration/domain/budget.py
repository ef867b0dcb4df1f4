"""What the synthesizer costs, in relative units: estimates for the budget fuse, not for bills.

Unit: the price of one fresh input token. Cached input costs a tenth and output five times as much,
the usual ratios of today's price lists. Characters are turned into tokens by `CHARS_PER_TOKEN`.
"""

from orchestration.domain.policies import CHARS_PER_TOKEN, Policy
from orchestration.domain.synthesis_state import (
    StartSynthesis,
    State,
    SynthesisStarted,
    Version,
    lineage,
)

FRESH, CACHED, OUTPUT = 1.0, 0.1, 5.0
INSTRUCTION_CHARS = 2_000
"""Rules and question of one conversation, roughly."""
LEAST_ANSWER_CHARS = 1_600
"""Early in a run the answers are short because they are not written yet; the reference never takes
them for shorter than this, otherwise the fuse would blow on the first step."""


def units(*, fresh_chars: float, cached_chars: float, out_chars: float) -> float:
    return (FRESH * fresh_chars + CACHED * cached_chars + OUTPUT * out_chars) / CHARS_PER_TOKEN


def wait_all_units(state: State) -> float:
    """Cost of one synthesis over all answers as long as they are now: the reference."""
    lengths = [len(call.text) for call in state.calls.values()]
    longest = max([LEAST_ANSWER_CHARS, *lengths])
    fresh = INSTRUCTION_CHARS + max(sum(lengths), LEAST_ANSWER_CHARS)
    return units(fresh_chars=fresh, cached_chars=0, out_chars=1.2 * longest)


def spent_units(state: State) -> float:
    """Cost of every synthesizer call so far; one that failed or was cancelled is paid as well."""
    return sum(_units(state, version, out_chars=len(version.text)) for version in state.versions)


def affordable(policy: Policy, state: State, plan: StartSynthesis, *, reserve: bool) -> bool:
    """Whether the call leaves the run within `max_calls` and `max_cost_ratio`. With `reserve` it
    must also leave one call, and the cost of one whole synthesis, for the final."""
    calls, ratio = policy.max_calls, policy.max_cost_ratio
    if reserve:
        calls, ratio = calls - 1, ratio - 1
    if len(state.versions) >= calls:
        return False
    cost = spent_units(state) + _units(state, plan, out_chars=_expected_out(policy, state, plan))
    return cost <= ratio * wait_all_units(state)


def _units(
    state: State, call: Version | StartSynthesis | SynthesisStarted, out_chars: float
) -> float:
    chain = lineage(state.versions, call.base_version)
    shown = {s.label: s.chars for s in chain[-1].sources} if chain else {}
    fresh = sum(max(0, s.chars - shown.get(s.label, 0)) for s in call.sources)
    if not chain:
        fresh += INSTRUCTION_CHARS
    cached = sum(shown.values()) + sum(len(v.text) for v in chain)
    if chain:
        cached += INSTRUCTION_CHARS
    if call.kind == "patch":
        fresh += len(state.document.text)
    return units(fresh_chars=fresh, cached_chars=cached, out_chars=out_chars)


def _expected_out(policy: Policy, state: State, plan: StartSynthesis) -> float:
    if plan.kind == "patch" or plan.trigger == "chunks":
        return policy.chunk_chars
    return max([LEAST_ANSWER_CHARS, *(len(call.text) for call in state.calls.values())])
