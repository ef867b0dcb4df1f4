"""What a failed set-up says: a cause a person can act on, and never a password."""

import errno

import pytest

from launcher.failure import Failed, advice_for, of_os_error, tail


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


def test_an_unknown_cause_invents_no_advice() -> None:
    assert advice_for("Segmentation fault") == ""


def test_the_tail_hides_a_token_in_an_address() -> None:
    shown = tail("Looking in https://user:hunter2@index.example/simple\nfailed")
    assert "hunter2" not in shown
    assert "https://index.example/simple" in shown


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
