"""Guessing passwords: stopped after a few, for a while, for one name from one address."""

import logging
import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from axes.models import AccessAttempt, AccessLog
from django.contrib.auth.models import User
from django.core import checks
from django.core.management import call_command
from django.db import connection
from django.test import Client, override_settings
from django.utils import timezone

from tests.conftest import Person

pytestmark = pytest.mark.django_db

LIMIT, COOLOFF_S = 10, 300


def attempt(name: str, password: str, *, peer: str = "198.51.100.7", **headers: str) -> Any:
    fields = {"username": name, "password": password}
    return Client(REMOTE_ADDR=peer).post("/login/", fields, headers=headers)


def fail(name: str, times: int = LIMIT) -> list[int]:
    return [attempt(name, f"guess {n}").status_code for n in range(times)]


def later(seconds: int) -> None:
    """As if so much time had passed since the attempts there were."""
    for row in AccessAttempt.objects.all():
        AccessAttempt.objects.filter(pk=row.pk).update(
            attempt_time=row.attempt_time - timedelta(seconds=seconds)
        )


def test_after_some_wrong_passwords_not_even_the_right_one_is_taken_for_a_while(
    alice: Person,
) -> None:
    assert fail("alice", LIMIT - 1) == [200] * (LIMIT - 1)
    assert attempt("alice", "guess").status_code == 429
    locked = attempt("alice", "alice-password")
    assert locked.status_code == 429
    assert 0 < int(locked["Retry-After"]) <= COOLOFF_S + 1
    page = locked.content.decode()
    assert f"{locked['Retry-After']} seconds to wait" in page
    assert "alice" not in page

    later(COOLOFF_S)
    assert attempt("alice", "alice-password").status_code == 302


def test_the_console_has_no_door_of_its_own(alice: Person) -> None:
    User.objects.filter(pk=alice.user.pk).update(is_staff=True, is_superuser=True)
    visitor = Client()
    right = {"username": "alice", "password": "alice-password"}
    answer = visitor.post("/admin/login/", right)
    assert (answer.status_code, answer["Location"]) == (302, "/login/?next=%2Fadmin%2F")
    assert visitor.get("/admin/").status_code == 302
    assert visitor.post(answer["Location"], right).status_code == 302
    assert visitor.get("/admin/").status_code == 200


def test_guessing_on_does_not_make_the_wait_longer(alice: Person) -> None:
    fail("alice")
    later(COOLOFF_S - 60)
    assert set(fail("alice", 3 * LIMIT)) == {429}
    assert int(attempt("alice", "guess")["Retry-After"]) <= 61
    later(61)
    assert attempt("alice", "alice-password").status_code == 302


def test_a_right_password_ends_the_count(alice: Person) -> None:
    for _ in range(3):
        assert set(fail("alice", LIMIT - 1)) == {200}
        assert attempt("alice", "alice-password").status_code == 302


def test_neither_another_name_nor_another_address_is_locked_with_it(
    alice: Person, bob: Person
) -> None:
    fail("alice")
    assert attempt("bob", "bob-password").status_code == 302
    assert attempt("alice", "alice-password", peer="203.0.113.9").status_code == 302
    assert attempt("alice", "alice-password").status_code == 429


def test_an_address_that_is_only_claimed_is_no_other_address(alice: Person) -> None:
    claimed = [
        attempt("alice", "guess", **{"X-Forwarded-For": f"203.0.113.{n}"}).status_code
        for n in range(LIMIT)
    ]
    assert claimed[-1] == 429
    assert attempt("alice", "x", **{"X-Real-IP": "203.0.113.9"}).status_code == 429


def test_behind_a_proxy_that_is_named_clients_are_told_apart(alice: Person) -> None:
    with override_settings(TRUSTED_PROXIES=[ip_network("10.0.0.1/32")]):
        guesser = {"X-Forwarded-For": "203.0.113.9"}
        for _ in range(LIMIT):
            last = attempt("alice", "guess", peer="10.0.0.1", **guesser)
        assert last.status_code == 429
        other = {"X-Forwarded-For": "203.0.113.10"}
        assert attempt("alice", "alice-password", peer="10.0.0.1", **other).status_code == 302


def test_a_name_that_is_nobodys_is_answered_like_one_that_is(alice: Person) -> None:
    User.objects.create_user("idle", password="idle-password", is_active=False)

    def answers(name: str) -> list[tuple[int, str]]:
        found = []
        for number in range(LIMIT + 2):
            response = attempt(name, f"guess {number}")
            text = response.content.decode().replace(name, "<name>")
            text = re.sub(r'(csrf-token" content|csrfmiddlewaretoken" value)="\w+"', "", text)
            text = re.sub(r'[0-9a-f]{32}|nonce="[^"]+"|\d+ seconds?', "", text)
            found.append((response.status_code, text))
        return found

    assert answers("alice") == answers("nobody") == answers("idle")


def test_names_are_told_apart_as_signing_in_tells_them_apart(alice: Person) -> None:
    fail("alice")
    for same in ("alice", " alice ", "ａlice"):
        assert attempt(same, "alice-password").status_code == 429, same
    for other in ("Alice", "alice2"):
        assert attempt(other, "alice-password").status_code == 200, other


@pytest.mark.django_db(transaction=True)
def test_a_right_guess_among_many_at_once_does_not_win_once_the_others_have_failed(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them are let in before the first has failed; the right one is made to end last."""
    failed = threading.Barrier(LIMIT + 1)
    real = User.check_password

    def slowly(user: User, password: str) -> bool:
        right = real(user, password)
        failed.wait(timeout=10)
        if right:
            for other in guessing:
                other.join(timeout=30)
        return right

    monkeypatch.setattr(User, "check_password", slowly)
    statuses: list[int] = []

    def guess(password: str) -> None:
        try:
            statuses.append(attempt("alice", password).status_code)
        finally:
            connection.close()

    guessing = [threading.Thread(target=guess, args=(f"guess {n}",)) for n in range(LIMIT)]
    right = threading.Thread(target=guess, args=("alice-password",))
    for thread in [*guessing, right]:
        thread.start()
    right.join(timeout=60)
    assert statuses[-1] == 429
    assert 302 not in statuses


# --- what is kept and told of it -----------------------------------------------------------------


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog


def test_neither_names_nor_passwords_are_logged(
    alice: Person, everything_logged: pytest.LogCaptureFixture
) -> None:
    fail("alice")
    attempt("canary-name", "canary-password")
    attempt("alice", "alice-password", peer="203.0.113.9")
    logged = everything_logged.text
    assert "sign_in_locked" in logged
    for canary in ("canary", "guess 1", "alice-password", "alice'", "198.51.100.7"):
        assert canary not in logged, canary


def test_no_password_is_kept_and_what_is_kept_is_forgotten(alice: Person) -> None:
    fail("alice", 3)
    attempt("alice", "guess 4", **{"User-Agent": "another"})
    kept = str(list(AccessAttempt.objects.values()))
    assert "guess" not in kept
    assert AccessAttempt.objects.count() == 2
    later(COOLOFF_S)
    attempt("somebody", "guess")
    assert [row.username for row in AccessAttempt.objects.all()] == ["somebody"]
    attempt("alice", "alice-password")
    assert not AccessLog.objects.exists()


def test_an_operator_ends_a_wait_by_command(alice: Person) -> None:
    fail("alice")
    call_command("axes_reset_username", "alice")
    assert attempt("alice", "alice-password").status_code == 302


def test_ten_thousand_names_are_no_way_to_fill_the_database_for_good(alice: Person) -> None:
    AccessAttempt.objects.bulk_create(
        AccessAttempt(
            username=f"name{n}",
            ip_address="198.51.100.7",
            user_agent="",
            failures_since_start=1,
            path_info="/login/",
        )
        for n in range(10_000)
    )
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(seconds=COOLOFF_S))
    attempt("alice", "alice-password")
    assert AccessAttempt.objects.count() == 0


def test_the_checks_of_the_throttle_find_nothing(alice: Person) -> None:
    assert [found for found in checks.run_checks() if str(found.id).startswith("axes")] == []


@pytest.mark.parametrize(("proxies", "warned"), [((), True), (("10.0.0.1",), False)])
def test_a_proxy_nobody_named_is_warned_of(proxies: tuple[str, ...], warned: bool) -> None:
    with override_settings(BEHIND_HTTPS=True, TRUSTED_PROXIES=proxies):
        found = {each.id for each in checks.run_checks(include_deployment_checks=True)}
    assert ("rex.W002" in found) is warned
