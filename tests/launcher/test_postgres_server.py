"""PostgreSQL is the one named, the system's, or Debian's unpacked; or the reason in words."""

import stat
from pathlib import Path
from typing import Any

import psycopg
import pytest

from launcher import frontend, go_build, postgres_server, prepare, suites
from launcher.failure import Failed
from launcher.layout import Layout
from launcher.suites import Result
from tests.postgres_server import PostgresServer, _reachable

_RUNS = '#!/bin/sh\necho "$(basename $0) (PostgreSQL) 15.18 (Debian 15.18-0)"\n'
_DOES_NOT_RUN = "#!/bin/sh\necho cannot open libpq.so.5 >&2\nexit 127\n"


def _programs(folder: Path, text: str = _RUNS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("initdb", "postgres"):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory on PATH but for the shell's; nothing names a PostgreSQL."""
    folder = tmp_path / "commands"
    folder.mkdir()
    for tool in ("sh", "dirname", "basename", "cp", "mkdir", "touch"):
        (folder / tool).symlink_to(
            next(p for d in ("/bin", "/usr/bin") if (p := Path(d, tool)).exists())
        )
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("REX_POSTGRES_BIN", raising=False)
    return folder


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """Where the system's files begin: there are none."""
    return tmp_path / "system"


def test_the_one_that_is_named_is_taken(
    layout: Layout, commands: Path, system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _programs(commands)
    named = _programs(commands.parent / "mine")
    monkeypatch.setenv("REX_POSTGRES_BIN", str(named))
    assert postgres_server.find(layout, system) == named


def test_the_one_on_the_path_is_taken_where_its_link_leads(
    layout: Layout, commands: Path, system: Path
) -> None:
    real = _programs(commands.parent / "real")
    (commands / "postgres").symlink_to(real / "postgres")
    assert postgres_server.find(layout, system) == real


def test_of_debians_versions_the_newest_is_taken(
    layout: Layout, commands: Path, system: Path
) -> None:
    for version in ("9.6", "15", "9", "17"):
        _programs(system / "usr" / "lib" / "postgresql" / version / "bin")
    (system / "usr/lib/postgresql/17/bin/initdb").unlink()  # a client alone
    assert postgres_server.find(layout, system).parent.name == "15"


@pytest.mark.parametrize(
    ("text", "said"),
    [(_DOES_NOT_RUN, "does not run"), ("#!/bin/sh\necho ls 9.1\n", "is not PostgreSQL's")],
)
def test_one_that_does_not_run_is_told_of_with_what_to_do(
    layout: Layout, commands: Path, system: Path, text: str, said: str
) -> None:
    _programs(commands, text)
    with pytest.raises(Failed) as failed:
        postgres_server.find(layout, system)
    assert said in str(failed.value)
    assert "./rex test --without postgresql" in failed.value.advice


def _debian(commands: Path, text: str) -> Path:
    """apt-get and dpkg, which serve a package with both programs; what apt-get was asked."""
    said, source = commands.parent / "said", _programs(commands.parent / "packaged", text)
    inside = '"$3/usr/lib/postgresql/15/bin"'
    for name, script in (
        ("apt-get", f'echo "$@" >> {said}\ntouch "${{2%/*}}/cache/archives/postgresql.deb"'),
        ("dpkg", f'mkdir -p {inside} "$3/usr/lib/here"\ncp {source}/* {inside}\n'
         'touch "$3/usr/lib/here/libpq.so.5"'),
    ):  # fmt: skip
        (commands / name).write_text(f"#!/bin/sh\n{script}\n")
        (commands / name).chmod(0o755)
    return said


def test_debians_is_unpacked_once_with_its_libraries(
    layout: Layout, commands: Path, system: Path
) -> None:
    said = _debian(commands, _RUNS)
    found = postgres_server.find(layout, system)
    assert found == layout.tools / "postgresql"
    for program in ("initdb", "postgres"):
        assert stat.S_IMODE((found / program).stat().st_mode) == 0o755
        text = (found / program).read_text()
        assert '"$here/root/usr/lib:$here/root/usr/lib/here$' in text
        assert f'exec "$here/root/usr/lib/postgresql/15/bin/{program}" "$@"' in text
    assert not (found / "work").exists()
    asked = said.read_text()
    assert postgres_server.find(layout, system) == found
    assert said.read_text() == asked, "it was downloaded a second time"


def test_a_package_that_cannot_be_run_leaves_nothing_and_says_why(
    layout: Layout, commands: Path, system: Path
) -> None:
    _debian(commands, _DOES_NOT_RUN)
    with pytest.raises(Failed, match="does not run"):
        postgres_server.find(layout, system)
    assert not (layout.tools / "postgresql").exists()


def test_a_system_without_apt_is_told_how_to_go_on(
    layout: Layout, commands: Path, system: Path
) -> None:
    with pytest.raises(Failed, match="no PostgreSQL on this machine") as failed:
        postgres_server.find(layout, system)
    assert "brew install postgresql" in failed.value.advice


# --- the suite ----------------------------------------------------------------------------------


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The Python suites that ``./rex test`` ran, where PostgreSQL is found and all pass."""
    seen: list[tuple[Any, ...]] = []

    class Node:
        command = Path("node")

    def python_suite(*given: Any) -> Result:
        seen.append(given)
        return Result(given[4] if len(given) > 4 else "pytest", 0, "7 passed")

    monkeypatch.setattr(
        suites, "_PROGRAMS", (("postgresql", "REX_POSTGRES_BIN", lambda _: Path("/found")),)
    )
    monkeypatch.setattr(prepare, "for_testing", lambda *_, **__: None)
    monkeypatch.setattr(frontend, "node", lambda _: Node)
    monkeypatch.setattr(go_build, "go", lambda _: go_build.Go(Path("go"), {}, "go1.26"))
    monkeypatch.setattr(suites, "_python_suite", python_suite)
    return seen


NO_GO = frozenset({"go"})


def test_what_is_about_the_database_runs_on_postgresql_too_and_says_so(
    layout: Layout, ran: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert suites.test(layout, NO_GO, ()) == 0
    (_, usual, *_), (_, env, _, folders, name) = ran
    assert "REX_TEST_DATABASE" not in usual
    assert env["REX_TEST_DATABASE"] == "postgresql"
    assert env["REX_POSTGRES_BIN"] == "/found"
    assert name == "postgresql"
    assert "passed  postgresql: 7 passed" in capsys.readouterr().err
    assert "tests/actions" in folders


def test_what_runs_on_postgresql_too_and_what_is_left_out_of_it_is_there(checkout: Path) -> None:
    for argument in suites._ON_POSTGRES:
        option, _, left_out = argument.rpartition("=")
        if option:
            assert (checkout / left_out).is_file(), argument
        else:
            assert list((checkout / argument).glob("test_*.py")), argument


@pytest.mark.parametrize(
    ("without", "arguments"),
    [(NO_GO | {"postgresql"}, ()), (NO_GO, ("tests/domain",))],
    ids=["left out", "chosen tests"],
)
def test_it_is_left_out_where_asked_for_and_where_tests_were_chosen(
    layout: Layout,
    ran: list[tuple[Any, ...]],
    without: frozenset[str],
    arguments: tuple[str, ...],
) -> None:
    assert suites.test(layout, without, arguments) == 0
    assert len(ran) == 1


def test_a_machine_without_postgresql_fails_the_whole(
    layout: Layout,
    ran: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def nothing(_: Layout) -> Path:
        raise Failed("There is no PostgreSQL on this machine.")

    monkeypatch.setattr(suites, "_PROGRAMS", (("postgresql", "REX_POSTGRES_BIN", nothing),))
    assert suites.test(layout, NO_GO, ()) == 1
    assert len(ran) == 1
    assert "FAILED  postgresql: There is no PostgreSQL" in capsys.readouterr().err


# --- the server of the tests --------------------------------------------------------------------


def test_the_tests_have_a_real_postgresql_that_can_hang_and_crash(
    postgres_server: PostgresServer,
) -> None:
    assert postgres_server.answers()
    postgres_server.pause()
    assert not postgres_server.answers()
    postgres_server.resume()
    assert postgres_server.answers()
    with postgres_server.connect() as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    postgres_server.kill()
    assert not postgres_server.answers()
    postgres_server.start()
    with postgres_server.connect() as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (7,)
        connection.execute("DROP TABLE kept")


def test_each_database_of_a_test_is_its_own_with_rexs_tables(
    postgres_server: PostgresServer,
) -> None:
    one, other = postgres_server.create_database(), postgres_server.create_database()
    count = "SELECT count(*) FROM workspaces_workspace"
    insert = "INSERT INTO auth_group (name) VALUES ('here')"
    with psycopg.connect(one) as connection:
        assert connection.execute(count).fetchone() == (0,)
        connection.execute(insert)
    with psycopg.connect(other) as connection:
        assert connection.execute("SELECT count(*) FROM auth_group").fetchone() == (0,)


def test_programs_where_another_user_may_not_look_are_copied(
    tmp_path: Path, commands: Path
) -> None:
    hidden = tmp_path / "home"
    programs = _programs(hidden / "postgresql")
    hidden.chmod(0o700)
    folder = tmp_path / "server"
    folder.mkdir()
    assert _reachable(programs, folder) == folder / "programs"
    assert (folder / "programs" / "initdb").read_text() == _RUNS
