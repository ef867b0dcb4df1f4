"""What a run may use before it has begun: at the least, as a rule, and at the most.

**The most is a bound.** A call's input is at most as many tokens as its text has bytes: byte-level
BPE (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", §2.2) starts from
the bytes and only ever merges, and SentencePiece with byte fallback (Kudo and Richardson 2018)
spells what it does not know as one token a byte. Some tokenizers normalise the text first (NFC,
NFKC), which can make it longer, and that is in the bound too. What a server's chat template puts
around the messages is in `REQUEST_OVERHEAD_TOKENS`. The output is at most the ``max_tokens`` that
is sent. A hidden prompt beyond that, or a provider that counts otherwise, is an overshoot.

**The synthesis has a pool.** How many drafts there will be nobody knows, but each is checked
against what is left of the pool before it is sent (`synthesis_call_bound`), so its size is no
question of safety. It must be large enough that the final passes its check after the steps before
it: a refused final leaves the run degraded. So it is the bound of the final, in bytes as its check
counts, and beside it what the steps use as a rule counts (`CHARS_PER_TOKEN`), all answers being as
long as they may be. A run has at most ``max_calls`` − 1 steps, and they read half of what the final
reads, on average, because the conversation grows. The fuse's ``max_cost_ratio`` is no help: it
takes cached tokens for a tenth, a quota takes them whole. On the stored answers of
results/policy/report.md, cut to answers that all reach their limit, 1 final in 30 would be refused;
with answers that do not, none comes near. `max_calls` bounds of the final would hold ten times
what runs ever use.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Final
from unicodedata import normalize

from orchestration.domain.budget import INSTRUCTION_CHARS
from orchestration.domain.cost import Price
from orchestration.domain.policies import CHARS_PER_TOKEN, Policy
from orchestration.domain.prompts import MAX_SOURCE_CHARS, PATCH_TOKENS

REQUEST_OVERHEAD_TOKENS: Final = 128
"""Marks of roles and turns, and the system message that some templates add to a request that has
none: up to about 75 tokens in the templates of open models. In longer conversations it is enough
too: each further turn brings sentences in plain English, of four bytes a token."""
SHORT_ANSWER_TOKENS: Final = 60
USUAL_ANSWER_TOKENS: Final = 600
"""Of a model that a workspace has not asked before."""
USUAL_STEPS: Final = 0.5
"""What is written besides the final costs as a rule half as much again: what
results/policy/report.md has for a provider without a prompt cache, rounded up."""
MERGED_CHARS_RATIO: Final = 1.2
"""Length of a synthesis as a multiple of the longest answer; as `domain.budget` takes it."""
SYNTHESIS: Final = "synthesis"
"""Name of the pool; calls go by their labels."""

_MOST_BYTES_A_CHAR: Final = 4
_TOKENS_A_PRICE_IS_FOR: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class PricedAt:
    """A price and where it is from: ``version`` is "litellm-1.106.2", "override-17" or "free"."""

    price: Price
    version: str

    def to_json(self) -> dict[str, Any]:
        """As ``price`` of a call's row has it."""
        return {
            "version": self.version,
            "input": self.price.input,
            "output": self.price.output,
            "cached_input": self.price.cached_input,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "PricedAt":
        price = Price(stored["input"], stored["output"], stored["cached_input"])
        return cls(price, stored["version"])


@dataclass(frozen=True, slots=True)
class Amount:
    """``tokens`` are input and output together; ``cost_micro_usd`` is None where a price is not
    known. What is free costs 0, and its tokens count."""

    tokens: int
    cost_micro_usd: int | None

    def __add__(self, other: "Amount") -> "Amount":
        costs = (self.cost_micro_usd, other.cost_micro_usd)
        known = [cost for cost in costs if cost is not None]
        # A sum without what is not known would be a wrong number.
        return Amount(self.tokens + other.tokens, sum(known) if len(known) == 2 else None)


@dataclass(frozen=True, slots=True)
class Ask:
    """A model as it will be asked. ``prompt_bound`` is the `token_bound` of all that is sent with
    each of its calls; ``max_tokens`` its longest answer; ``usual_tokens`` what its answers had of
    late, None where there were none. What ``uses_nothing`` is a recording that is played again, or
    a model that will not be asked."""

    name: str
    model: str
    priced_at: PricedAt | None
    prompt_bound: int
    max_tokens: int
    usual_tokens: int | None = None
    uses_nothing: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a run will ask. The synthesizer's ``prompt_bound`` is that of the question alone;
    ``synthesis_chars`` is the most its prompts may have (None: no limit of their own)."""

    calls: tuple[Ask, ...]
    synthesizer: Ask
    policy: Policy
    synthesis_chars: int | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One call of a run (``name`` is its label), or all drafts of its synthesis together."""

    name: str
    model: str
    priced_at: PricedAt | None
    low: Amount
    expected: Amount
    worst: Amount


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """``synthesis`` is None where none is written: of one call there is nothing to merge."""

    plan: Plan
    calls: tuple[Part, ...]
    synthesis: Part | None

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.calls if self.synthesis is None else (*self.calls, self.synthesis)

    @property
    def low(self) -> Amount:
        return sum((part.low for part in self.parts), Amount(0, 0))

    @property
    def expected(self) -> Amount:
        return sum((part.expected for part in self.parts), Amount(0, 0))

    @property
    def worst(self) -> Amount:
        return sum((part.worst for part in self.parts), Amount(0, 0))

    def narrowed(self, width: int) -> "RunEstimate":
        """The estimate for the first ``width`` calls alone, and the synthesis of their answers."""
        return estimate_run(replace(self.plan, calls=self.plan.calls[:width]))

    def holds(self) -> list[tuple[str, int, int]]:
        """(name, tokens, micro-dollars) to reserve for each part that can use something; no money
        where no price is known."""
        return [
            (part.name, part.worst.tokens, part.worst.cost_micro_usd or 0)
            for part in self.parts
            if part.worst.tokens
        ]


def token_bound(text: str) -> int:
    """The most tokens that ``text`` can be, to any tokenizer of the kinds named above. Raises
    UnicodeEncodeError for half of a surrogate pair.

    Character by character: a text of combining marks takes the whole of `normalize` many seconds.
    """
    return sum(count * _most_bytes(char) for char, count in Counter(text).items())


def _most_bytes(char: str) -> int:
    """NFC and NFKC take characters apart, sort the marks, and put together again what they can,
    which never makes more bytes. A Hangul syllable always comes back together."""
    if "가" <= char <= "힣":
        return len(char.encode())
    return max(len(char.encode()), len(normalize("NFKD", char).encode()))


def synthesis_call_bound(prompt_bytes: int, max_tokens: int, priced: PricedAt | None) -> Amount:
    """The most that one draft can use. ``prompt_bytes`` is the sum of the `token_bound` of its
    messages and of its response format as JSON; ``max_tokens`` is what is sent."""
    return _Tokens(prompt_bytes + REQUEST_OVERHEAD_TOKENS, max_tokens).amount(priced)


def estimate_run(plan: Plan) -> RunEstimate:
    """The estimate of a run; ``low`` ≤ ``expected`` ≤ ``worst`` in each part and each dimension."""
    several = len(plan.calls) > 1
    calls = tuple(_call(ask) for ask in plan.calls)
    return RunEstimate(plan, calls, _synthesis(plan) if several else None)


def _call(ask: Ask) -> Part:
    sent = _usual(ask.prompt_bound)
    most_sent = ask.prompt_bound + REQUEST_OVERHEAD_TOKENS
    return _part(
        ask,
        low=_Tokens(sent, _short_tokens(ask)).amount(ask.priced_at),
        expected=_Tokens(sent, _usual_tokens(ask)).amount(ask.priced_at),
        worst=_Tokens(most_sent, ask.max_tokens).amount(ask.priced_at),
    )


def _synthesis(plan: Plan) -> Part:
    writer, most_steps = plan.synthesizer, _most_steps(plan.policy)
    short = _whole(plan, [_short_tokens(ask) for ask in plan.calls])
    usual = _whole(plan, [_usual_tokens(ask) for ask in plan.calls])
    longest = _whole(plan, [ask.max_tokens for ask in plan.calls])
    # A synthesis that is written once has no steps unless it fails.
    usual_steps = 0 if _writes_once(plan.policy) else min(USUAL_STEPS, most_steps)
    return _part(
        writer,
        low=short.amount(writer.priced_at),
        expected=(usual + _step(plan, usual) * usual_steps).amount(writer.priced_at),
        worst=(_final_bound(plan) + _step(plan, longest) * most_steps).amount(writer.priced_at),
    )


def _most_steps(policy: Policy) -> float:
    """What is written besides the final, in steps that read all there is to read."""
    if _writes_once(policy):
        return policy.retries
    return (policy.max_calls - 1) / 2


def _writes_once(policy: Policy) -> bool:
    """Whether there is no second draft unless the first one failed."""
    return (policy.draft_from, policy.revise, policy.late) == ("quorum", "none", "ignore")


def _final_bound(plan: Plan) -> "_Tokens":
    quoted = CHARS_PER_TOKEN * sum(_quoted(ask.max_tokens) for ask in plan.calls)
    read = INSTRUCTION_CHARS + plan.synthesizer.prompt_bound + quoted
    if plan.synthesis_chars is not None:
        read = min(read, _MOST_BYTES_A_CHAR * plan.synthesis_chars)
    return _Tokens(read + REQUEST_OVERHEAD_TOKENS, plan.synthesizer.max_tokens)


def _whole(plan: Plan, answers: list[int]) -> "_Tokens":
    """As a rule, one synthesis of answers of so many tokens."""
    read = _usual(INSTRUCTION_CHARS + plan.synthesizer.prompt_bound) + sum(map(_quoted, answers))
    if plan.synthesis_chars is not None:
        read = min(read, _usual(plan.synthesis_chars))
    written = ceil(max(answers) * MERGED_CHARS_RATIO)
    return _Tokens(read, min(written, plan.synthesizer.max_tokens))


def _step(plan: Plan, whole: "_Tokens") -> "_Tokens":
    """A draft that reads as much, and writes no more than a step or an edit is allowed to."""
    if _writes_once(plan.policy):
        return whole
    return _Tokens(whole.read, min(whole.written, PATCH_TOKENS))


def _quoted(answer_tokens: int) -> int:
    """How much of an answer the synthesizer is shown."""
    return min(answer_tokens, MAX_SOURCE_CHARS // CHARS_PER_TOKEN)


def _usual(text_bytes: int) -> int:
    return -(-text_bytes // CHARS_PER_TOKEN)


def _usual_tokens(ask: Ask) -> int:
    usual = USUAL_ANSWER_TOKENS if ask.usual_tokens is None else ask.usual_tokens
    return min(usual, ask.max_tokens)


def _short_tokens(ask: Ask) -> int:
    return min(SHORT_ANSWER_TOKENS, _usual_tokens(ask))


def _part(ask: Ask, *, low: Amount, expected: Amount, worst: Amount) -> Part:
    if ask.uses_nothing:
        low = expected = worst = Amount(0, 0)
    return Part(ask.name, ask.model, ask.priced_at, low, expected, worst)


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Read and written, none of them served from a cache."""

    read: int
    written: int

    def __add__(self, other: "_Tokens") -> "_Tokens":
        return _Tokens(self.read + other.read, self.written + other.written)

    def __mul__(self, factor: float) -> "_Tokens":
        return _Tokens(ceil(self.read * factor), ceil(self.written * factor))

    def amount(self, priced: PricedAt | None) -> Amount:
        tokens = self.read + self.written
        if priced is None:
            return Amount(tokens, None)
        # Never below what `cost.cost_micro_usd` will say: a "discount" may be a surcharge.
        per_input = max(priced.price.input, priced.price.cached_input or 0)
        parts = self.read * per_input + self.written * priced.price.output
        return Amount(tokens, -(-parts // _TOKENS_A_PRICE_IS_FOR))
