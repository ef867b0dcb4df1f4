"""The reader of settings: where a value comes from, and how a wrong one is refused unseen."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from rexsite import settings
from rexsite.env import Env, Setting

CANARY = "canary-value-55d0"


def refusal(read: Callable[[], Any]) -> str:
    """The sentence of a refusal; it may name settings, never repeat a value."""
    with pytest.raises(ImproperlyConfigured) as refused:
        read()
    text = str(refused.value)
    assert CANARY not in text
    assert refused.value.__cause__ is None
    return text


def test_a_value_comes_from_its_variable_and_else_is_the_default() -> None:
    assert Env({"NAME": "given"}).text("NAME", "default", "") == "given"
    assert Env({}).text("NAME", "default", "") == "default"
    assert Env({"NAME": ""}).text("NAME", "default", "") == ""


def test_a_value_may_come_from_the_file_its_variable_names(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{CANARY}\n")
    assert Env({"NAME_FILE": str(file)}).secret("NAME", "") == CANARY
    file.write_text(" 12 \n")
    assert Env({"NAME_FILE": str(file)}).integer("NAME", 1, "") == 12


def test_a_value_given_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(CANARY)
    both = Env({"NAME": CANARY, "NAME_FILE": str(file)})
    assert refusal(lambda: both.secret("NAME", "")) == "NAME and NAME_FILE are both set; keep one."


@pytest.mark.parametrize("kind", ["absent", "a folder", "no text", "no path"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / CANARY
    if kind == "a folder":
        path.mkdir()
    if kind == "no text":
        path.write_bytes(b"\xff\xfe")
    named = "nul\x00byte" if kind == "no path" else str(path)
    text = refusal(lambda: Env({"NAME_FILE": named}).secret("NAME", ""))
    assert text.startswith("NAME_FILE names a file that cannot be read: ")


def test_a_secret_has_no_default() -> None:
    for source in ({}, {"NAME": ""}):
        text = refusal(lambda source=source: Env(source).secret("NAME", ""))  # type: ignore[misc]
        assert text.startswith("NAME is not set.")
        assert "NAME_FILE" in text


@pytest.mark.parametrize(
    "value", [CANARY, "", "1.5", "-1", "0", "²", "1_000", "0x10", " 7", "9" * 5000]
)
def test_a_number_that_is_none_or_too_small_is_refused(value: str) -> None:
    text = refusal(lambda: Env({"NAME": value}).integer("NAME", 5, "", minimum=1))
    assert text.startswith("NAME takes a whole number of at least 1")


def test_a_number_that_is_too_large_is_refused() -> None:
    env = Env({"NAME": "4"})
    assert env.integer("NAME", 1, "", maximum=4) == 4
    text = refusal(lambda: env.integer("NAME", 1, "", minimum=1, maximum=3))
    assert text == "NAME takes a whole number of at least 1 and at most 3."


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", True), ("YES", True), ("on", True), ("0", False), ("False", False), ("", False)],
)
def test_a_flag_takes_the_usual_words(value: str, expected: bool) -> None:
    assert Env({"NAME": value}).flag("NAME", not expected, "") is expected


@pytest.mark.parametrize("value", [CANARY, "2", "ja"])
def test_a_flag_that_is_no_such_word_is_refused(value: str) -> None:
    assert refusal(lambda: Env({"NAME": value}).flag("NAME", True, "")) == "NAME takes 1 or 0."


def test_a_choice_is_one_of_its_options() -> None:
    assert Env({"NAME": "go"}).choice("NAME", ("go", "python"), "python", "") == "go"
    for value in (CANARY, "GO", ""):
        env = Env({"NAME": value})
        text = refusal(lambda env=env: env.choice("NAME", ("go", "python"), "go", ""))  # type: ignore[misc]
        assert text == "NAME takes one of: go, python."


def test_names_are_split_at_commas_and_trimmed() -> None:
    assert Env({"NAME": " a, b ,,c"}).names("NAME", "z", "") == ("a", "b", "c")
    assert Env({}).names("NAME", "z", "") == ("z",)
    assert Env({"NAME": ""}).names("NAME", "z", "") == ()


def test_every_read_is_remembered_for_the_documentation() -> None:
    env = Env({"A": CANARY, "B": "0"})
    env.text("A", "default", "What A is.")
    env.flag("B", True, "What B is.")
    assert env.settings == [
        Setting("A", "text", "default", "What A is."),
        Setting("B", "1 or 0", "1", "What B is."),
    ]


def test_the_database_is_a_file_with_locks_taken_at_the_start(tmp_path: Path) -> None:
    for slashes in ("sqlite://", "sqlite:///"):
        database: Any = settings._database(f"{slashes}{tmp_path}/a%20b.sqlite3")
        assert database["NAME"] == f"{tmp_path}/a b.sqlite3"
    assert database["OPTIONS"]["transaction_mode"] == "IMMEDIATE"


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://user:{CANARY}@db/rex",
        "sqlite://",
        "sqlite:",
        CANARY,
        "",
        f"sqlite://{CANARY}/rex.sqlite3",
    ],
)
def test_a_database_that_is_not_supported_is_refused(url: str) -> None:
    assert refusal(lambda: settings._database(url)).startswith("DATABASE_URL takes sqlite:///")


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{CANARY}/x@cache:6379/0",
        f"redis://:{CANARY}@cache:99999/0",
        f"redis://:{CANARY}@cache:6379/0?no_such_option=1",
        f"redis://:{CANARY}@[::1/0",
        f"http://:{CANARY}@cache:6379/0",
        CANARY,
    ],
)
def test_an_address_of_redis_that_cannot_be_used_is_refused(url: str) -> None:
    assert refusal(lambda: settings._check_redis(url)).startswith("REX_REDIS_URL takes an address")


@pytest.mark.parametrize(
    "url",
    ["redis://cache", "rediss://:a%2Fb@cache:6380/1", "unix:///run/redis.sock", "redis://[::1]/0"],
)
def test_an_address_of_redis_is_taken_whether_or_not_one_is_there(url: str) -> None:
    settings._check_redis(url)
