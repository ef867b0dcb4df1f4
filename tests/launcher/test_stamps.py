"""A set-up may end anywhere; the next one must find all of a part, or none of it."""

from pathlib import Path

import pytest

from launcher.stamps import digest_of, replacing, stamped, write_stamp


@pytest.fixture
def target(tmp_path: Path) -> Path:
    made = tmp_path / "tool"
    made.mkdir()
    (made / "version").write_text("1")
    return made


def test_a_finished_build_takes_the_place(target: Path) -> None:
    with replacing(target) as fresh:
        (fresh / "version").write_text("2")
    assert (target / "version").read_text() == "2"


def test_a_failed_build_leaves_the_old_one_and_nothing_else(target: Path) -> None:
    with pytest.raises(RuntimeError), replacing(target) as fresh:
        (fresh / "version").write_text("2")
        raise RuntimeError
    assert (target / "version").read_text() == "1"
    assert [path.name for path in target.parent.iterdir()] == ["tool"]


def test_what_a_killed_build_left_behind_is_not_built_upon(target: Path) -> None:
    left_over = target.with_name("tool.new")
    left_over.mkdir()
    (left_over / "half").write_text("a file")
    with replacing(target) as fresh:
        assert list(fresh.iterdir()) == []


@pytest.mark.parametrize("change", ["content", "name", "new file"])
def test_a_digest_changes_with_its_input(target: Path, change: str) -> None:
    before = digest_of([target])
    if change == "content":
        (target / "version").write_text("2")
    elif change == "name":
        (target / "version").rename(target / "release")
    else:
        (target / "more").write_text("")
    assert digest_of([target]) != before


def test_a_stamp_holds_for_its_own_digest_alone(tmp_path: Path) -> None:
    stamp = tmp_path / "stamp"
    assert not stamped(stamp, "abc")
    write_stamp(stamp, "abc")
    assert stamped(stamp, "abc")
    assert not stamped(stamp, "abd")
