"""A question that quotas refuse comes back with its text and the reason."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from orchestration.bridge import in_database
from orchestration.models import Run
from tests.conftest import Person
from tests.runs import driven, make_run
from workspaces.domain.quotas import Dimension
from workspaces.models import Quota, Workspace

pytestmark = pytest.mark.django_db(transaction=True)

FORM = {"prompt": "Why is the <sky> blue?", "pipeline": "synthesis", "models": ["local/brisk"]}
NO_ROOM = "This workspace may have 1 run at once, and 1 is under way. Try again in 2 seconds."


@pytest.fixture
def _one_run_at_once(home: Workspace) -> None:
    Quota.objects.create(workspace=home, dimension=Dimension.CONCURRENT_RUNS, limit=1)


def asked(client: Client) -> Any:
    return client.post(reverse("start"), FORM)


@pytest.mark.usefixtures("_one_run_at_once")
def test_a_question_that_does_not_fit_comes_back_with_its_text_and_when_to_ask_again(
    alice: Person,
) -> None:
    assert asked(alice.browser()).status_code == 302
    response = asked(alice.browser())
    page = response.content.decode()
    assert response.status_code == 429
    assert response["Retry-After"] == "2"
    assert "This question was not sent." in page
    assert NO_ROOM in page
    assert "Why is the &lt;sky&gt; blue?</textarea>" in page
    assert 'value="local/brisk" checked' in page
    assert Run.objects.everywhere().count() == 1


def test_where_no_waiting_helps_the_page_says_what_does(alice: Person, home: Workspace) -> None:
    Quota.objects.create(workspace=home, dimension=Dimension.FANOUT_WIDTH, limit=0)
    response = asked(alice.browser())
    assert response.status_code == 429
    assert "Retry-After" not in response
    assert "its quota of models in a run is 0. An operator of Rex can raise that." in (
        response.content.decode()
    )


def test_a_paused_workspace_says_so_before_and_after_a_question(
    alice: Person, home: Workspace
) -> None:
    before = alice.browser().get(reverse("start")).content.decode()
    assert "paused" not in before
    home.paused_at, home.paused_reason = timezone.now(), "The invoice of May is open."
    home.save()
    sentence = "This workspace is paused; nothing new is started in it. The invoice of May is open."
    assert sentence in alice.browser().get(reverse("start")).content.decode()
    response = asked(alice.browser())
    assert response.status_code == 403
    assert response.content.decode().count(sentence) == 1
    assert "Why is the &lt;sky&gt; blue?</textarea>" in response.content.decode()


async def test_a_replay_that_does_not_fit_leaves_the_reader_on_the_run_with_the_reason(
    alice: Person, home: Workspace
) -> None:
    run = await driven(alice)

    def replay() -> Any:
        return alice.browser().post(reverse("run-replay", args=[run.pk]))

    def again() -> tuple[Any, Any]:
        Quota.objects.create(workspace=home, dimension=Dimension.CONCURRENT_RUNS, limit=1)
        return replay(), replay()

    accepted, response = await in_database(again)
    assert accepted.status_code == 302
    page = response.content.decode()
    assert response.status_code == 429
    assert response["Retry-After"] == "2"
    assert f'role="alert">{NO_ROOM}</p>' in page
    assert run.prompt in page


def test_a_run_that_is_looked_at_has_no_alarm(alice: Person) -> None:
    run = make_run(alice)
    page = alice.browser().get(reverse("run-detail", args=[run.pk])).content.decode()
    assert '<p class="alarm" id="alarm" role="alert" hidden></p>' in page
