"""What a failed set-up says: a cause a person can act on, and never a password."""

import errno

import pytest

from launcher.failure import (
    Failed,
    advice_for,
    advice_on_crash,
    gist,
    of_os_error,
    tail,
    wrong_settings,
)


@pytest.mark.parametrize(
    ("output", "named"),
    [
        ("error: failed to write: No space left on device (os error 28)", "disk is full"),
        ("npm error code ENOTFOUND", "could not be reached"),
        ("Temporary failure in name resolution", "could not be reached"),
        ("invalid peer certificate: UnknownIssuer", "certificate"),
        (
            "because xllamacpp has no wheels with a matching platform tag",
            "no build for this machine",
        ),
        ("THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "not the one"),
        ("npm error code EINTEGRITY", "not the one"),
        ("mkdir /srv: permission denied", "not writable"),
    ],
)
def test_a_known_cause_comes_with_what_to_do(output: str, named: str) -> None:
    assert named in advice_for(f"line before\n{output}\nline after")


@pytest.mark.parametrize(
    "output",
    [
        "Segmentation fault",
        "ModuleNotFoundError: No module named 'pip'",
        "K_FILE names a file that cannot be read: FileNotFoundError.",
    ],
)
def test_an_unknown_cause_invents_no_advice(output: str) -> None:
    assert advice_for(output) == ""


_TRACEBACK = """starting
Traceback (most recent call last):
  File "a.py", line 1, in <module>
    import django
KeyError: 'the first cause'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "b.py", line 2, in <module>
    run()
    ^^^^^
"""


@pytest.mark.parametrize(
    ("last_line", "named"),
    [
        ("ModuleNotFoundError: No module named 'django'", "Delete .venv"),
        ("ImportError: cannot import name 'x' from 'django.db' (/v/__init__.py)", "Delete .venv"),
        ("ModuleNotFoundError: No module named 'rexsite.gone'", ""),
        ("django.db.utils.DatabaseError: file is not a database", "database is damaged"),
        ("sqlite3.DatabaseError: database disk image is malformed", "database is damaged"),
        ("django.db.utils.OperationalError: unable to open database file", "cannot be opened"),
        ('django.db.utils.OperationalError: database "rex" does not exist', "Create the database"),
        ("psycopg.OperationalError: couldn't get a connection after 5.00 sec", "Does the Postgre"),
        (
            "psycopg.errors.InsufficientPrivilege: permission denied for schema public",
            "own the data",
        ),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("ConnectionRefusedError: [Errno 111] Connection refused", ""),
    ],
)
def test_a_crash_of_our_own_shows_its_cause_without_the_frames(last_line: str, named: str) -> None:
    output = _TRACEBACK + last_line
    assert gist(output) == last_line
    advice = advice_on_crash(output)
    assert named in advice
    assert bool(advice) == bool(named)


def test_output_without_a_traceback_is_shown_as_it_ends() -> None:
    assert gist("listening\nno such model") == "listening\nno such model"


@pytest.mark.parametrize(
    ("output", "sentences"),
    [
        (
            "SystemCheckError: System check identified some issues:\n\nERRORS:\n"
            "?: (rex.E001) There is no model zzz.\n?: (rex.E001) There is no model zzz.\n\n"
            "WARNINGS:\n?: (rex.W001) Odd.\n",
            ("There is no model zzz.",),
        ),
        (
            _TRACEBACK + "django.core.exceptions.ImproperlyConfigured: A takes one of: b, c.",
            ("A takes one of: b, c.",),
        ),
        ("CommandError: There is no workspace home.", ("There is no workspace home.",)),
        (_TRACEBACK + "KeyError: 'A'", ()),
    ],
)
def test_wrong_settings_are_said_once_and_without_a_traceback(
    output: str, sentences: tuple[str, ...]
) -> None:
    assert wrong_settings(output) == sentences


def test_the_tail_hides_a_token_in_an_address() -> None:
    shown = tail("Looking in https://user:hunter2@index.example/packages\nfailed")
    assert "hunter2" not in shown
    assert "https://index.example/packages" in shown


def test_the_tail_is_the_end_of_what_was_said() -> None:
    shown = tail("\n".join(f"line {n}" for n in range(100)), lines=3)
    assert shown.splitlines() == ["line 97", "line 98", "line 99"]


def test_a_failure_reads_as_what_then_detail_then_advice() -> None:
    assert str(Failed("npm failed.", "ENOSPC", "Free some space.")) == (
        "npm failed.\n    ENOSPC\nFree some space."
    )


def test_a_full_disk_is_named_whoever_met_it() -> None:
    failed = of_os_error(OSError(errno.ENOSPC, "No space left on device", "/x/y"))
    assert "/x/y" in failed.what
    assert "disk is full" in failed.advice
