"""A redis-server is the one named, the system's, or Debian's unpacked; or the reason in words."""

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher import frontend, go_build, prepare, redis_server, suites
from launcher.failure import Failed
from launcher.layout import Layout
from launcher.suites import Result
from tests.redis_server import RedisServer, answers

_RUNS = "#!/bin/sh\necho Redis server v=7.0.15\n"
_DOES_NOT_RUN = "#!/bin/sh\necho cannot open libjemalloc.so.2 >&2\nexit 127\n"


def _program(path: Path, text: str = _RUNS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory on PATH but for the shell's; nothing names a redis-server."""
    folder = tmp_path / "commands"
    folder.mkdir()
    for tool in ("sh", "dirname", "cat", "touch", "mkdir", "cp", "chmod"):
        (folder / tool).symlink_to(
            next(p for d in ("/bin", "/usr/bin") if (p := Path(d, tool)).exists())
        )
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("REX_REDIS_SERVER", raising=False)
    return folder


@pytest.fixture
def debian(commands: Path) -> Callable[..., Path]:
    """apt-get, which has the package only once ``lists`` are there, and dpkg, which unpacks it."""

    def make(*, lists: bool, package: str = _RUNS) -> Path:
        said = commands.parent / "said"
        if lists:
            (commands.parent / "lists").touch()
        source = _program(commands.parent / "packaged" / "redis-server", package)
        _program(
            commands / "apt-get",
            f"""#!/bin/sh
echo "$@" >> {said}
archives="${{2%/*}}/cache/archives"
case "$*" in
*update*) touch {commands.parent}/lists ;;
*install*) test -e {commands.parent}/lists || {{ echo Unable to locate package; exit 100; }}
  touch "$archives/redis-tools.deb" ;;
esac
""",
        )
        _program(
            commands / "dpkg",
            f'#!/bin/sh\nmkdir -p "$3/usr/bin" "$3/usr/lib/here"\n'
            f'cp {source} "$3/usr/bin/"\ntouch "$3/usr/lib/here/liblzf.so.1"\n',
        )
        return said

    return make


def test_the_one_that_is_named_is_taken(
    layout: Layout, commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(commands / "redis-server")
    named = _program(commands.parent / "mine")
    monkeypatch.setenv("REX_REDIS_SERVER", str(named))
    assert redis_server.find(layout) == named


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
def test_the_systems_is_taken(layout: Layout, commands: Path, name: str) -> None:
    system = _program(commands / name, "#!/bin/sh\necho Valkey server v=8.1.0\n")
    assert redis_server.find(layout) == system


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (_DOES_NOT_RUN, "does not run"),
        ("#!/bin/sh\necho ls 9.1\n", "is no redis-server"),
    ],
)
def test_one_that_does_not_run_is_told_of_with_what_to_do(
    layout: Layout, commands: Path, text: str, said: str
) -> None:
    _program(commands / "redis-server", text)
    with pytest.raises(Failed) as failed:
        redis_server.find(layout)
    assert said in str(failed.value)
    assert "./rex test --without redis" in failed.value.advice


@pytest.mark.parametrize("lists", [True, False], ids=["with lists", "without lists"])
def test_debians_is_unpacked_once_with_its_libraries(
    layout: Layout, debian: Callable[..., Path], lists: bool
) -> None:
    said = debian(lists=lists)
    found = redis_server.find(layout)
    assert found == layout.tools / "redis" / "redis-server"
    assert stat.S_IMODE(found.stat().st_mode) == 0o755
    assert '"$here/root/usr/lib:$here/root/usr/lib/here$' in found.read_text()
    assert not (found.parent / "work").exists()
    asked = said.read_text()
    assert ("update" in asked) == (not lists)
    assert redis_server.find(layout) == found
    assert said.read_text() == asked, "it was downloaded a second time"


def test_a_package_that_cannot_be_had_or_run_leaves_nothing_and_says_why(
    layout: Layout, commands: Path, debian: Callable[..., Path]
) -> None:
    debian(lists=True, package=_DOES_NOT_RUN)
    with pytest.raises(Failed, match="does not run"):
        redis_server.find(layout)
    _program(commands / "apt-get", "#!/bin/sh\necho Could not resolve host >&2\nexit 100\n")
    with pytest.raises(Failed, match="Redis could not be installed") as failed:
        redis_server.find(layout)
    assert "Could not resolve host" in failed.value.detail
    assert not (layout.tools / "redis").exists()


def test_a_system_without_apt_is_told_how_to_go_on(layout: Layout, commands: Path) -> None:
    with pytest.raises(Failed, match="no redis-server on this machine") as failed:
        redis_server.find(layout)
    assert "brew install redis" in failed.value.advice


@pytest.fixture
def ran(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What ``./rex test`` ran, where everything but Redis is there and every suite passes."""
    seen: dict[str, Any] = {}

    def suite(name: str) -> Callable[..., Result]:
        def run(*given: Any, **options: Any) -> Result:
            seen[name] = (given, options)
            return Result(name, 0, "all passed")

        return run

    def nothing(_: Layout) -> Path:
        raise Failed("There is no redis-server on this machine.")

    monkeypatch.setattr(suites, "_PROGRAMS", (("redis", "REX_REDIS_SERVER", nothing),))
    monkeypatch.setattr(prepare, "for_testing", lambda *_, **__: None)
    monkeypatch.setattr(go_build, "go", lambda _: go_build.Go(Path("go"), {}, "go1.26"))
    monkeypatch.setattr(suites, "_go_suite", suite("go"))
    monkeypatch.setattr(suites, "_fuzz_suite", suite("fuzz"))
    monkeypatch.setattr(suites, "_python_suite", suite("pytest"))
    return seen


@pytest.mark.parametrize("left_out", [True, False])
def test_without_redis_the_rest_runs_and_the_end_says_so(
    layout: Layout,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ran: dict[str, Any],
    left_out: bool,
) -> None:
    class Node:
        command = Path("node")

    monkeypatch.setattr(frontend, "node", lambda _: Node)
    code = suites.test(layout, frozenset({"redis"} if left_out else ()), ())
    said = capsys.readouterr().err
    assert code == (0 if left_out else 1)
    assert ("left out: redis" in said) == left_out
    assert ("FAILED  redis: There is no redis-server" in said) != left_out
    assert ran["go"][1] == {"with_redis": False}
    assert "redis" in ran["pytest"][0][2]


def test_with_arguments_nothing_is_looked_for_that_the_chosen_tests_may_not_need(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, ran: dict[str, Any]
) -> None:
    class Node:
        command = Path("node")

    monkeypatch.setattr(frontend, "node", lambda _: Node)
    monkeypatch.delenv("REX_REDIS_SERVER", raising=False)
    assert suites.test(layout, frozenset(), ("tests/domain",)) == 0
    assert "go" not in ran
    _, env, without, arguments = ran["pytest"][0]
    assert (without, arguments) == (frozenset(), ("tests/domain",))
    assert "REX_REDIS_SERVER" not in env
    monkeypatch.setenv("REX_REDIS_SERVER", "/named/redis-server")
    suites.test(layout, frozenset(), ("tests/domain",))
    assert ran["pytest"][0][1]["REX_REDIS_SERVER"] == "/named/redis-server"


@pytest.mark.golang
def test_without_redis_go_leaves_out_the_packages_that_start_one(checkout: Path) -> None:
    here = Layout(checkout, checkout / ".rex")
    tool = go_build.go(here)
    packages = suites.packages_without_redis(here, tool, tool.env)
    names = {package.removeprefix("rex/fanout-service/") for package in packages}
    assert {"provider/openai", "api"} <= names
    assert not {"cache", "internal/redistest"} & names


def test_the_tests_have_a_real_redis_that_can_hang(redis_server: RedisServer) -> None:
    assert answers(redis_server)
    redis_server.pause()
    assert not answers(redis_server)
    redis_server.resume()
    assert answers(redis_server)
    redis_server.kill()
    assert not answers(redis_server)
