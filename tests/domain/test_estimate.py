"""What a run may use: bounds that hold, in an order that holds, for real tokenizers too."""

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from orchestration.domain.cost import FREE, Price, cost_micro_usd
from orchestration.domain.estimate import (
    REQUEST_OVERHEAD_TOKENS,
    Amount,
    Ask,
    Plan,
    PricedAt,
    RunEstimate,
    estimate_run,
    synthesis_call_bound,
    token_bound,
)
from orchestration.domain.policies import FOILS, PRESETS, from_mapping
from orchestration.domain.prompts import PATCH_TOKENS
from orchestration.fanout.wire import Usage

CHEAP = PricedAt(Price(1_000_000, 2_000_000, 100_000), "override-1")
TWICE = PricedAt(Price(2_000_000, 4_000_000), "override-2")
NOTHING = PricedAt(FREE, "free")


def ask(name: str, priced_at: PricedAt | None = CHEAP, **fields: object) -> Ask:
    return replace(Ask(name, f"lab/{name}", priced_at, 100, 1000), **fields)  # type: ignore[arg-type]


def plan(*calls: Ask, synthesizer: Ask | None = None, policy: str = "balanced") -> Plan:
    return Plan(calls, synthesizer or ask("synthesis"), PRESETS[policy])


# --- tokens --------------------------------------------------------------------------------------

Count = Callable[[str], int]


def tokenizers() -> Path:
    """The directory of the tokenizers that LiteLLM ships; LiteLLM itself is not imported."""
    spec = find_spec("litellm")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "litellm_core_utils/tokenizers"


def normalising() -> Count:
    """A tokenizer that brings its text into the form NFKC first."""
    own = Tokenizer.from_file(str(tokenizers() / "anthropic_tokenizer.json"))
    return lambda text: len(own.encode(text, add_special_tokens=False).ids)


@pytest.fixture(scope="module", params=["cl100k_base", "o200k_base", "anthropic"])
def count(request: pytest.FixtureRequest) -> Count:
    """Real tokenizers, whose files LiteLLM ships."""
    if request.param == "anthropic":
        return normalising()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(tokenizers()))
        encoding = tiktoken.get_encoding(request.param)
    return lambda text: len(encoding.encode(text, disallowed_special=()))


UTF8 = st.characters(exclude_categories=["Cs"])


@given(text=st.text(UTF8, max_size=200))
def test_no_text_is_more_tokens_than_its_bound(count: Count, text: str) -> None:
    assert count(text) <= token_bound(text)


@pytest.mark.parametrize("char", ["\ufdfa", "\U0001d160", "\u0958", "½", "가", "ế", "🧑‍🚒", "\x01"])
def test_the_bound_holds_for_characters_that_grow_or_are_spelled_out(
    count: Count, char: str
) -> None:
    assert count(char * 50) <= token_bound(char * 50)


def test_a_tokenizer_that_normalises_may_make_more_tokens_than_there_are_bytes() -> None:
    """Why the bound is not the number of bytes alone."""
    text = "\ufdfa" * 50
    assert len(text.encode()) < normalising()(text) <= token_bound(text)


def test_a_text_is_never_normalised_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand marks in the wrong order would take half a minute."""
    seen = []

    def noted(form: Literal["NFKD"], text: str) -> str:
        seen.append(text)
        return normalize(form, text)

    monkeypatch.setattr("orchestration.domain.estimate.normalize", noted)
    marks = "\u0315" * 50_000 + "\u0300" * 50_000
    assert token_bound(marks) == len(marks.encode())
    assert sorted(seen) == ["\u0300", "\u0315"]


def test_a_bound_of_plain_text_is_its_length_in_bytes() -> None:
    assert token_bound("") == 0
    assert token_bound("Why is the sky blue?") == 20
    assert token_bound("하늘은 왜 파란가요?") == len("하늘은 왜 파란가요?".encode())


@given(text=st.text(UTF8, max_size=50), form=st.sampled_from(["NFC", "NFKC"]))
def test_the_bound_covers_the_text_in_every_form_a_tokenizer_may_give_it(
    text: str, form: str
) -> None:
    assert len(normalize(form, text).encode()) <= token_bound(text)  # type: ignore[arg-type]


def test_putting_characters_together_never_makes_more_bytes() -> None:
    """What the bound takes for granted, for every character there is."""
    for point in range(sys.maxunicode + 1):
        char = chr(point)
        apart = normalize("NFD", char)
        if not 0xD800 <= point <= 0xDFFF and normalize("NFC", char) == char != apart:
            assert len(char.encode()) <= len(apart.encode()), hex(point)


def test_half_of_a_surrogate_pair_is_no_text() -> None:
    with pytest.raises(UnicodeEncodeError):
        token_bound("\ud800")


# --- order ---------------------------------------------------------------------------------------

PRICES = st.one_of(
    st.none(),
    st.builds(
        lambda *price: PricedAt(Price(*price), "override-1"),
        st.integers(0, 10**9),
        st.integers(0, 10**9),
        st.none() | st.integers(0, 10**9),
    ),
)


def asks(name: str) -> st.SearchStrategy[Ask]:
    return st.builds(
        Ask,
        name=st.just(name),
        model=st.just(f"lab/{name}"),
        priced_at=PRICES,
        prompt_bound=st.integers(0, 400_000),
        max_tokens=st.integers(1, 1_000_000),
        usual_tokens=st.none() | st.integers(1, 2_000_000),
        uses_nothing=st.booleans(),
    )


POLICIES = st.one_of(
    st.sampled_from([*PRESETS.values(), *FOILS.values()]),
    st.builds(
        lambda **fields: from_mapping(fields),
        max_calls=st.integers(1, 100),
        max_cost_ratio=st.floats(0.1, 1000),
        retries=st.integers(0, 5),
    ),
)
PLANS = st.builds(
    Plan,
    calls=st.integers(1, 8).flatmap(lambda n: st.tuples(*(asks("ABCDEFGH"[i]) for i in range(n)))),
    synthesizer=asks("synthesis"),
    policy=POLICIES,
    synthesis_chars=st.none() | st.integers(1, 100_000),
)


def covers(large: Amount, small: Amount) -> bool:
    costs = (large.cost_micro_usd, small.cost_micro_usd)
    return large.tokens >= small.tokens and (None in costs or costs[0] >= costs[1])  # type: ignore[operator]


@given(plan=PLANS)
def test_low_is_never_over_expected_and_expected_never_over_worst(plan: Plan) -> None:
    estimate = estimate_run(plan)
    amounts = [(part.low, part.expected, part.worst) for part in estimate.parts]
    for low, expected, worst in [*amounts, (estimate.low, estimate.expected, estimate.worst)]:
        assert covers(worst, expected)
        assert covers(expected, low)


@given(plan=PLANS)
def test_every_model_more_makes_the_estimate_larger_or_leaves_it(plan: Plan) -> None:
    estimate = estimate_run(plan)
    narrow = [estimate.narrowed(width) for width in range(1, len(plan.calls) + 1)]
    for less, more in pairwise(narrow):
        assert covers(more.worst, less.worst)
        assert [part.name for part in more.calls[:-1]] == [part.name for part in less.calls]
    assert narrow[-1] == estimate


@given(
    read=st.integers(0, 10**6),
    written=st.integers(0, 10**6),
    cached=st.integers(0, 10**6),
    priced=PRICES,
)
def test_no_use_within_a_bound_costs_more_than_it(
    read: int, written: int, cached: int, priced: PricedAt | None
) -> None:
    bound = synthesis_call_bound(read, written, priced)
    assert bound.tokens == read + REQUEST_OVERHEAD_TOKENS + written
    if priced is None:
        assert bound.cost_micro_usd is None
    else:
        used = Usage(read, written, min(cached, read), 0, estimated=False)
        assert bound.cost_micro_usd is not None
        assert cost_micro_usd(used, priced.price) <= bound.cost_micro_usd


# --- what is in it -------------------------------------------------------------------------------


def holds(estimate: RunEstimate) -> dict[str, tuple[int, int]]:
    return {name: (tokens, cost) for name, tokens, cost in estimate.holds()}


def test_a_call_holds_its_prompt_in_bytes_and_its_longest_answer() -> None:
    tokens = 100 + REQUEST_OVERHEAD_TOKENS + 1000
    cost = (100 + REQUEST_OVERHEAD_TOKENS) * 1 + 1000 * 2
    assert holds(estimate_run(plan(ask("A")))) == {"A": (tokens, cost)}


def test_one_answer_is_not_merged_so_it_has_no_pool() -> None:
    two = estimate_run(plan(ask("A"), ask("B")))
    assert set(holds(two)) == {"A", "B", "synthesis"}
    assert set(holds(two.narrowed(1))) == {"A"}


def test_the_pool_has_room_for_the_check_of_the_final_after_the_steps() -> None:
    """A final that the driver's own check refuses would leave long runs degraded."""
    answers, written, rules, question, bytes_a_token = 3, 5000, 2000, 100, 4
    calls = (ask(name, max_tokens=written) for name in "ABC")
    part = estimate_run(plan(*calls, synthesizer=ask("s", max_tokens=written))).synthesis
    assert part is not None
    bytes_read = rules + question + answers * written * bytes_a_token
    final = synthesis_call_bound(bytes_read, written, CHEAP)
    step = -(-(rules + question) // bytes_a_token) + answers * written + PATCH_TOKENS
    assert part.worst.tokens == final.tokens + math.ceil(4.5 * step)


def test_a_policy_that_writes_once_holds_its_one_synthesis_and_a_second_try() -> None:
    calls = (ask("A"), ask("B"))
    once, often = (estimate_run(plan(*calls, policy=name)) for name in ("wait_all", "balanced"))
    assert once.worst.tokens < often.worst.tokens
    assert once.expected.tokens < often.expected.tokens


def test_a_long_answer_is_quoted_to_its_first_24_000_characters() -> None:
    long, longer = (
        estimate_run(plan(*(ask(name, max_tokens=most) for name in "AB"))).synthesis
        for most in (6_000, 60_000)
    )
    assert long == longer


def test_a_small_synthesizer_is_held_by_what_it_can_read() -> None:
    large = plan(*(ask(name, max_tokens=8_000) for name in "ABC"))
    small = replace(large, synthesis_chars=4_000)
    parts = [estimate_run(each).synthesis for each in (small, large)]
    assert parts[0] is not None
    assert parts[1] is not None
    steps, final = 4.5 * (4_000 // 4 + 1000), 4 * 4_000 + REQUEST_OVERHEAD_TOKENS + 1000
    assert parts[0].worst.tokens == steps + final < parts[1].worst.tokens


def test_a_model_is_expected_to_say_what_it_said_of_late_and_no_more_than_it_can() -> None:
    fresh, terse, chatty = (
        estimate_run(plan(ask("A", usual_tokens=usual))).expected.tokens
        for usual in (None, 10, 5_000)
    )
    assert terse == 25 + 10
    assert fresh == 25 + 600
    assert chatty == 25 + 1000, "no answer is longer than its limit"


def test_what_is_free_costs_nothing_and_its_tokens_count() -> None:
    estimate = estimate_run(
        plan(ask("A", NOTHING), ask("B", NOTHING), synthesizer=ask("s", NOTHING))
    )
    assert estimate.worst.cost_micro_usd == 0
    assert estimate.low.tokens > 0


def test_what_is_played_again_uses_nothing_and_holds_nothing() -> None:
    played = [ask(name, NOTHING, uses_nothing=True) for name in ("A", "B", "synthesis")]
    estimate = estimate_run(plan(*played[:2], synthesizer=played[2]))
    assert estimate.worst == Amount(0, 0)
    assert estimate.holds() == []


def test_one_unknown_price_makes_the_sum_unknown_and_holds_no_money() -> None:
    estimate = estimate_run(plan(ask("A"), ask("B", None), ask("C", None)))
    assert (estimate.low.cost_micro_usd, estimate.worst.cost_micro_usd) == (None, None)
    assert holds(estimate)["B"] == (1100 + REQUEST_OVERHEAD_TOKENS, 0)
    assert holds(estimate)["A"][1] > 0


def test_the_dearer_model_costs_more_for_the_same() -> None:
    cheap, dear = (estimate_run(plan(ask("A", at))).worst.cost_micro_usd for at in (CHEAP, TWICE))
    assert cheap is not None
    assert dear == 2 * cheap


def test_a_price_is_the_same_when_it_comes_back_from_its_row() -> None:
    for priced in (CHEAP, TWICE, NOTHING):
        assert PricedAt.from_json(priced.to_json()) == priced
