"""``manage.py check``: settings that cannot work together stop the start, not a run at night."""

import os
import subprocess
import sys
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError

from rexsite.settings import BASE_DIR


def found(**kwargs: Any) -> list[CheckMessage]:
    return [each for each in run_checks(**kwargs) if (each.id or "").startswith("rex.")]


def test_the_settings_as_they_come_pass() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("MODELS", ("local/brisk", "local/nobody"), "There is no model local/nobody"),
        ("MODELS", ("openai/gpt-4o",), "set OPENAI_API_KEY"),
        ("SYNTHESIZER", "nowhere/editor", "There is no model nowhere/editor"),
        ("MODELS", ("local/brisk",) * 9, "more models than REX_MAX_MODELS"),
    ],
)
def test_models_that_cannot_be_asked_are_an_error_that_names_them(
    settings: Any, name: str, value: Any, says: str
) -> None:
    setattr(settings, name, value)
    [problem] = found()
    assert says in problem.msg
    with pytest.raises(SystemCheckError):
        call_command("check")


def test_debug_pages_are_warned_of_before_a_deployment(settings: Any) -> None:
    settings.DEBUG = True
    assert [each.id for each in found(include_deployment_checks=True)] == ["rex.W001"]
    assert found() == []


def manage_check(**changes: str) -> "subprocess.CompletedProcess[str]":
    env = {name: value for name, value in os.environ.items() if not name.startswith("REX_")}
    env["DJANGO_SETTINGS_MODULE"] = "rexsite.settings"
    env["REX_SECRET_KEY"] = "only-for-tests"
    return subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=BASE_DIR, env=env | changes, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_from_the_shell_a_wrong_environment_fails_with_a_sentence_and_no_secret() -> None:
    right = manage_check()
    assert right.returncode == 0, right.stderr

    unknown = manage_check(REX_MODELS="local/nobody")
    assert unknown.returncode != 0
    assert "There is no model local/nobody" in unknown.stderr

    canary = "canary-value-55d0"
    twice = manage_check(OPENAI_API_KEY=canary, OPENAI_API_KEY_FILE=f"/nowhere/{canary}")
    assert twice.returncode != 0
    assert "OPENAI_API_KEY and OPENAI_API_KEY_FILE are both set" in twice.stderr
    assert canary not in twice.stderr + twice.stdout

    redis = manage_check(REX_REDIS_URL=f"redis://:{canary}/x@cache:6379/0")
    assert redis.returncode != 0
    assert "REX_REDIS_URL takes an address" in redis.stderr
    assert canary not in redis.stderr + redis.stdout
