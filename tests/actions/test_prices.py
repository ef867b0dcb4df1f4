"""What models cost, whoever says so; and what a run is estimated to use by it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from orchestration.actions.claim_runs import claim_runs
from orchestration.actions.plan_run import RunRequest, plan_run
from orchestration.actions.start_run import estimate_plan, start_run
from orchestration.bridge import in_database
from orchestration.domain.cost import FREE, Price
from orchestration.domain.estimate import Amount, PricedAt, RunEstimate
from orchestration.domain.pipelines import PIPELINES
from orchestration.driving.load import load_run
from orchestration.driving.requests import calls_request
from orchestration.estimates import estimate_for
from orchestration.fanout import providers
from orchestration.fanout.output_limits import output_limit_of
from orchestration.fanout.prices import table_version
from orchestration.fanout.recorded import RecordedClient
from orchestration.fanout.scripted import ScriptedClient
from orchestration.fanout.select import resolve_model
from orchestration.models import Call, ModelPrice, Synthesis
from orchestration.price_book import prices_of
from orchestration.recordings import load_recording
from tests.conftest import Person
from tests.runs import answers, drive, make_run
from workspaces.models import Lease, Workspace

pytestmark = pytest.mark.django_db(transaction=True)

GPT, CLAUDE, LAB = "openai/gpt-4o", "anthropic/claude-sonnet-4-5", "lab/own-model"
FREE_OF_CHARGE = PricedAt(FREE, "free")


@pytest.fixture(autouse=True)
def configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """OpenAI, Anthropic, and a server that nobody has prices of."""
    monkeypatch.setenv("OPENAI_API_KEY", "only-for-tests")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "only-for-tests")
    monkeypatch.setenv("REX_PROVIDER_LAB_BASE_URL", "http://127.0.0.1:9/v1")
    providers.endpoints.cache_clear()
    yield
    providers.endpoints.cache_clear()


def said(model: str, *price: int | None) -> ModelPrice:
    given = dict(zip(("input", "output", "cached_input"), price, strict=False))
    return ModelPrice.objects.create(model=model, **given)


def price_now(model: str) -> PricedAt | None:
    return prices_of([model])[model]


# --- prices --------------------------------------------------------------------------------------


def test_the_table_tells_what_nobody_here_did_and_which_table_it_is() -> None:
    found = price_now(GPT)
    assert found is not None
    assert found.version == table_version()
    assert found.version.startswith("litellm-1.")
    assert found.price.input > 0


def test_the_newest_word_of_an_operator_counts_until_the_model_is_given_back() -> None:
    by_the_table = price_now(GPT)
    said(GPT, 1, 2)
    newest = said(GPT, 10, 20, 5)
    assert price_now(GPT) == PricedAt(Price(10, 20, 5), f"override-{newest.pk}")
    said(GPT, None, None)
    assert price_now(GPT) == by_the_table
    assert ModelPrice.objects.count() == 3, "what was said before stays"


def test_half_a_price_is_none() -> None:
    said(LAB, 10, None)
    assert price_now(LAB) is None


def test_a_word_on_one_model_says_nothing_of_another() -> None:
    before = price_now(CLAUDE)
    said(GPT, 1, 2)
    assert price_now(CLAUDE) == before


def test_own_machines_are_free_unless_an_operator_says_what_they_cost() -> None:
    assert price_now("local/brisk") == FREE_OF_CHARGE
    own = said("local/brisk", 7, 8)
    assert price_now("local/brisk") == PricedAt(Price(7, 8), f"override-{own.pk}")


def test_a_replay_is_free_whatever_anybody_says() -> None:
    said("recorded/0b0a/A", 7, 8)
    assert price_now("recorded/0b0a/A") == FREE_OF_CHARGE


def test_a_model_that_nobody_knows_has_no_price_until_somebody_says_one() -> None:
    assert price_now(LAB) is None
    said(LAB, 0, 0)
    found = price_now(LAB)
    assert found is not None
    assert found.price == FREE


def test_the_prices_of_many_models_are_one_query() -> None:
    for model in (GPT, CLAUDE, LAB):
        for price in range(3):
            said(model, price, price)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        found = prices_of([GPT, CLAUDE, LAB, LAB, "local/brisk"])
    assert len(queries) == 1
    assert {model: price and price.price.input for model, price in found.items()} == {
        GPT: 2,
        CLAUDE: 2,
        LAB: 2,
        "local/brisk": 0,
    }


# --- limits of answers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "most", "limit"),
    [
        ("local/brisk", 8_192, 90),
        ("local/brisk", 10, 10),
        (GPT, 8_192, 8_192),
        (GPT, 100_000, 16_384),
        (LAB, 100_000, 100_000),
        ("recorded/0b0a/A", 8_192, 8_192),
    ],
)
def test_an_answer_is_limited_by_the_least_of_setting_persona_and_table(
    settings: Any, model: str, most: int, limit: int
) -> None:
    settings.MAX_OUTPUT_TOKENS = most
    assert output_limit_of(resolve_model(model)) == limit


# --- estimates -----------------------------------------------------------------------------------


@pytest.fixture
def estimate(home: Workspace) -> Callable[..., RunEstimate]:
    def estimated(*models: str, pipeline: str = "synthesis", **more: Any) -> RunEstimate:
        asked = {"prompt": "Why?", "synthesizer": "local/editor"} | more
        return estimate_for(home, models=models, pipeline=PIPELINES[pipeline], **asked)

    return estimated


def answered(person: Person, model: str, *tokens: int, state: str = "done") -> None:
    """Runs in which ``model`` answered with so many tokens."""
    for count in tokens:
        run = make_run(person, models=[model])
        Call.objects.filter(run=run).update(state=state, output_tokens=count)


def expected_answer(estimate: RunEstimate) -> int:
    return estimate.calls[0].expected.tokens - estimate.calls[0].low.tokens + 60


def test_a_workspace_expects_answers_as_long_as_its_own_were(
    alice: Person, charlie: Person, estimate: Callable[..., RunEstimate]
) -> None:
    assert expected_answer(estimate(GPT)) == 600, "a stated default"
    answered(charlie, GPT, 5000)
    assert expected_answer(estimate(GPT)) == 600, "another's answers are another's"
    answered(alice, GPT, 100, 300, 2000)
    answered(alice, GPT, 9, state="failed")
    assert expected_answer(estimate(GPT)) == 300
    assert expected_answer(estimate(CLAUDE)) == 600


def test_an_estimate_is_two_queries_however_much_there_is(
    alice: Person, estimate: Callable[..., RunEstimate]
) -> None:
    answered(alice, GPT, *range(1, 20))
    with CaptureQueriesContext(connection) as queries:
        estimate(GPT, CLAUDE, "local/brisk")
    assert len(queries) == 2


def test_rules_of_a_persona_are_in_the_bound_of_its_calls(
    estimate: Callable[..., RunEstimate],
) -> None:
    system = resolve_model("local/brisk").system
    assert system
    plain, persona = estimate(LAB).calls[0], estimate("local/brisk").calls[0]
    lengths = output_limit_of(resolve_model(LAB)), output_limit_of(resolve_model("local/brisk"))
    assert persona.worst.tokens - lengths[1] == plain.worst.tokens - lengths[0] + len(system)


def test_a_synthesizer_that_cannot_be_asked_is_never_paid(
    estimate: Callable[..., RunEstimate],
) -> None:
    for synthesizer in ("groq/not-configured", "nobody/knows"):
        part = estimate(GPT, CLAUDE, synthesizer=synthesizer).synthesis
        assert part is not None
        assert part.worst == Amount(0, 0)
        assert part.priced_at == FREE_OF_CHARGE


def test_the_longest_prompt_of_a_synthesizer_bounds_its_pool(
    settings: Any, estimate: Callable[..., RunEstimate]
) -> None:
    settings.SYNTHESIS_PROMPT_CHARS = 0
    wide = estimate(GPT, CLAUDE, synthesizer=GPT).worst.tokens
    settings.SYNTHESIS_PROMPT_CHARS = 3_000
    narrow = estimate(GPT, CLAUDE, synthesizer=GPT).worst.tokens
    assert narrow < wide


def test_every_call_that_is_sent_stays_within_what_is_held_for_it(alice: Person) -> None:
    """The estimate and the request are made in two places, and must agree."""
    ModelPrice.objects.create(model=LAB, input=1, output=1)
    run = start_run(
        actor=alice.actor,
        request=RunRequest(prompt="Why? " * 50, models=(GPT, LAB, "local/brisk")),
    )
    claim_runs(owner="test", limit=9, now=timezone.now())
    request = calls_request(load_run(run.pk, 1), ["A", "B", "C"], time_left_ms=1000)
    leases = {lease.name: lease for lease in Lease.objects.filter(reservation__subject=run.pk)}
    assert set(leases) == {"A", "B", "C", "synthesis"}
    for call in request.calls:
        read = sum(len(str(message.content).encode()) for message in call.messages)
        assert call.params
        assert call.params.max_tokens
        assert read + call.params.max_tokens <= leases[call.id].bound_tokens


async def test_a_replay_holds_nothing_and_all_of_it_is_played(alice: Person) -> None:
    original = await in_database(make_run, alice)
    await drive(original, ScriptedClient(answers()))
    again = await in_database(make_run, alice, replay_of=original.pk)
    ended = await drive(again, RecordedClient(ScriptedClient({}), load_recording, {}))

    def drafts() -> list[tuple[str, str | None]]:
        return list(again.syntheses.values_list("state", "reason"))

    states, reasons = zip(*await in_database(drafts), strict=True)
    assert Synthesis.State.APPLIED in states
    assert "budget.run" not in reasons, "a recorded draft was held against a pool of nothing"
    assert ended.answer
    held = Lease.objects.filter(reservation__subject=again.pk)
    assert await in_database(lambda: sum(lease.bound_tokens for lease in held)) == 0


def test_a_plan_is_estimated_with_its_own_synthesizer(alice: Person, settings: Any) -> None:
    settings.SYNTHESIZER = GPT
    plan = plan_run(alice.actor, RunRequest(prompt="Why?", models=("local/brisk", "local/plain")))
    estimate = estimate_plan(alice.actor, plan)
    assert estimate.synthesis is not None
    assert (estimate.synthesis.model, estimate.synthesis.worst.cost_micro_usd != 0) == (GPT, True)
