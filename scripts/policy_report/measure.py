"""What a policy did to one run, in the terms of docs/glossary.md.

Cost is in price units: input 1, cached input 0.1, output 5 per token. Text counts as visible when
a reader sees it: a first draft and its continuations while they stream, edits and rewrites when
they are applied.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestration.domain import overlap as overlaps
from orchestration.domain.budget import CACHED, FRESH, OUTPUT
from orchestration.domain.document import Document
from orchestration.domain.extractive import ExtractiveSynthesizer, document_claims
from orchestration.domain.overlap import Claim
from orchestration.domain.policies import CHARS_PER_TOKEN, Policy
from orchestration.domain.synthesis import (
    Finalised,
    State,
    SynthesisDelta,
    SynthesisFinished,
    SynthesisStarted,
)
from orchestration.domain.virtual_clock import Trace, simulate
from policy_report.legs import Case, CaseSet


@dataclass(frozen=True, slots=True)
class Outcome:
    ttfs_s: float
    ttms_s: float
    ttf_s: float
    synthesis_units: float
    candidate_units: float
    flicker: int
    churn_tokens: float
    weight_at_final: float
    """Claims of all successful answers that the final states, each weighted by the number of
    answers that make it."""
    all_weight: float
    claims_at_final: int
    """The same, each counted once."""
    timeline: tuple[tuple[float, float], ...]
    """(time, claim weight of the visible text from then on)."""
    calls: int
    late: int
    cut: int
    patches: int
    rejected: int
    mode: str


def measure(case: Case, policy: Policy, cases: CaseSet) -> Outcome | None:
    """None when no answer of the run succeeded: nothing can be compared then."""
    claims = _claims(case)
    if not claims:
        return None
    writer = ExtractiveSynthesizer(
        case.question,
        cases.pace,
        seed=case.seed,
        patch_failure=cases.patch_failure,
        messages=cases.prompts.messages_for,
    )
    trace = simulate(policy, case.legs, writer, seed=f"report-{case.seed}")
    state = trace.state
    ttf_s = next(at_s for at_s, fact in trace.log if isinstance(fact, Finalised))
    first_s, multi_s = _first_visible(trace)
    timeline = _timeline(trace, claims)
    weight, count = _at_final(timeline, ttf_s)
    used = sum(
        FRESH * u.fresh_tokens + CACHED * u.cached_tokens + OUTPUT * _written(state, u.version)
        for u in writer.usage
    )
    return Outcome(
        ttfs_s=min(first_s, ttf_s),
        ttms_s=multi_s if multi_s is not None else ttf_s,
        ttf_s=ttf_s,
        synthesis_units=used,
        candidate_units=_candidate_units(case, state),
        flicker=_flicker(state),
        churn_tokens=_churn(state),
        weight_at_final=weight,
        all_weight=_weight(claims, frozenset(c.id for c in claims)),
        claims_at_final=count,
        timeline=tuple((at_s, weight) for at_s, weight, _ in timeline),
        calls=len(state.versions),
        late=sum(v.late for v in state.applied),
        cut=sum(call.kind == "stop.superseded" for call in state.calls.values()),
        patches=sum(v.kind == "patch" for v in state.versions),
        rejected=sum(v.state == "rejected" for v in state.versions),
        mode=state.final.mode if state.final else "none",
    )


def _claims(case: Case) -> tuple[Claim, ...]:
    """Claims of all answers that succeed when they are waited for: the yardstick of coverage."""
    whole = overlaps.Overlap()
    for leg in case.legs:
        if not leg.failure and leg.text.strip():
            whole = overlaps.feed(whole, leg.label, leg.text, complete=True)
    return whole.claims


def _weight(claims: tuple[Claim, ...], ids: frozenset[int]) -> float:
    return float(sum(len(claim.labels) for claim in claims if claim.id in ids))


def _first_visible(trace: Trace) -> tuple[float, float | None]:
    """Times of the first visible text, and of the first built on two answers or more."""
    first, multi = float("inf"), None
    begun: dict[int, SynthesisStarted] = {}
    for at_s, fact in trace.log:
        match fact:
            case SynthesisStarted():
                begun[fact.version] = fact
            case SynthesisDelta() if begun[fact.version].kind == "draft":
                first = min(first, at_s)
                if multi is None and len(begun[fact.version].sources) > 1:
                    multi = at_s
            case SynthesisFinished() if begun[fact.version].kind != "draft":
                version = trace.state.version(fact.version)
                if version and version.state == "applied" and version.changed:
                    first = min(first, at_s)
                    if multi is None and len(version.sources) > 1:
                        multi = at_s
            case _:
                pass
    return first, multi


def _timeline(trace: Trace, claims: tuple[Claim, ...]) -> tuple[tuple[float, float, int], ...]:
    """(time, weight, number) of the claims visible from then on."""
    texts = [
        (version.ended_s or 0.0, document_claims(claims, document))
        for version in trace.state.applied
        if (document := trace.state.documents.get(version.version))
    ]
    final = trace.state.final
    if final and final.mode == "single" and final.label:
        verbatim = overlaps.sentences(trace.state.calls[final.label].text)
        texts.append((final.at_s, overlaps.stated_by(claims, verbatim)))
    return tuple(sorted((at_s, _weight(claims, ids), len(ids)) for at_s, ids in texts))


def _at_final(timeline: tuple[tuple[float, float, int], ...], ttf_s: float) -> tuple[float, int]:
    until = [(weight, count) for at_s, weight, count in timeline if at_s <= ttf_s]
    return until[-1] if until else (0.0, 0)


def _written(state: State, version: int) -> float:
    """Output tokens: of a cancelled call those written until then."""
    found = state.version(version)
    return len(found.text) / CHARS_PER_TOKEN if found else 0.0


def _candidate_units(case: Case, state: State) -> float:
    prompt = FRESH * len(case.question) / CHARS_PER_TOKEN
    return sum(
        prompt + OUTPUT * len(state.calls[leg.label].text) / CHARS_PER_TOKEN for leg in case.legs
    )


def _flicker(state: State) -> int:
    """Times a reader saw text streaming that then went away."""
    gone = [v for v in state.versions if v.kind == "draft" and v.state != "applied" and v.text]
    replaced = bool(state.final and state.final.mode == "single" and state.documents)
    return len(gone) + replaced


def _churn(state: State) -> float:
    """Visible tokens that a later version changed or removed."""
    churned, shown = 0, Document()
    for version in state.applied:
        document = state.documents[version.version]
        now: Mapping[str, str] = {block.id: block.md for block in document.blocks}
        churned += sum(len(b.md) for b in shown.blocks if now.get(b.id) != b.md)
        shown = document
    return churned / CHARS_PER_TOKEN
