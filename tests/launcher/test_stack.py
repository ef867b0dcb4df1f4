"""What the stack's processes are told, and what a second start finds."""

import stat
import sys

import pytest

from launcher import run_record
from launcher.failure import Failed
from launcher.layout import Layout
from launcher.run_record import RunRecord
from launcher.stack import Address, environment, manage, services
from launcher.up import port_number

_PORTS = {"web": 8000, "fanout": 41001, "model": 41002}
_RECORD = RunRecord("http://127.0.0.1:8000", "smollm2-135m", _PORTS, {"web": 1})


def test_the_processes_find_each_other_by_environment(layout: Layout) -> None:
    env = environment(layout, {}, _PORTS, "127.0.0.1", "smollm2-135m")
    assert env["REX_FANOUT_URL"] == "http://127.0.0.1:41001"
    assert env["REX_FANOUT_LISTEN"] == "127.0.0.1:41001"
    assert env["REX_LOCAL_BASE_URL"] == "http://127.0.0.1:41002/v1"


def test_the_secret_is_made_once_and_nobody_else_can_read_it(layout: Layout) -> None:
    environment(layout, {}, _PORTS, "127.0.0.1", "m")
    first = layout.secret_key.read_text()
    environment(layout, {}, _PORTS, "127.0.0.1", "m")
    assert layout.secret_key.read_text() == first
    assert stat.S_IMODE(layout.secret_key.stat().st_mode) == 0o600


def test_the_web_is_last_for_it_uses_the_others_and_the_model_server_holds_no_key(
    layout: Layout,
) -> None:
    env = {"OPENAI_API_KEY": "sk", "GEMINI_API_KEY_FILE": "/k", "PATH": "/bin"}
    started = services(layout, env, _PORTS, Address(), "m")
    assert [service.name for service in started] == ["model-server", "fanout-service", "web"]
    assert [set(service.env) - {"PATH"} for service in started] == [
        set(),
        {"OPENAI_API_KEY", "GEMINI_API_KEY_FILE"},
        {"OPENAI_API_KEY", "GEMINI_API_KEY_FILE"},
    ]


def test_the_web_believes_no_address_that_a_program_on_the_machine_claims(layout: Layout) -> None:
    web = services(layout, {}, _PORTS, Address(), "m")[-1]
    assert "--no-proxy-headers" in web.command


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("exit('django.core.exceptions.ImproperlyConfigured: A takes b.')", "A takes b."),
        (
            "raise ValueError('odd')",
            "manage.py migrate failed (exit code 1).\n    ValueError: odd\n"
            "All it said is in {log}.",
        ),
    ],
)
def test_what_manage_cannot_do_is_said_without_frames_and_kept_with_them(
    layout: Layout, program: str, said: str
) -> None:
    (layout.root / "manage.py").write_text(program)
    layout.python.parent.mkdir(parents=True)
    layout.python.symlink_to(sys.executable)
    with pytest.raises(Failed) as failed:
        manage(layout, {}, "migrate")
    log = layout.logs / "setup.log"
    assert str(failed.value) == said.format(log=log)
    assert log.read_text().startswith("$ manage.py migrate\n")


@pytest.mark.parametrize("name", ["REX_SECRET_KEY", "REX_SECRET_KEY_FILE"])
def test_a_secret_of_the_user_is_used_instead(layout: Layout, name: str) -> None:
    env = environment(layout, {name: "mine"}, _PORTS, "127.0.0.1", "m")
    assert env[name] == "mine"
    assert not ({"REX_SECRET_KEY", "REX_SECRET_KEY_FILE"} - {name}) & env.keys()
    assert not layout.secret_key.exists()


def test_another_host_is_allowed_beside_the_loopback_names(layout: Layout) -> None:
    env = environment(layout, {}, _PORTS, "10.0.0.7", "m")
    assert env["REX_ALLOWED_HOSTS"].split(",")[-1] == "10.0.0.7"
    assert "REX_ALLOWED_HOSTS" not in environment(layout, {}, _PORTS, "127.0.0.1", "m")


def test_a_proxy_of_the_machine_does_not_stand_before_the_loopback(layout: Layout) -> None:
    env = environment(layout, {"NO_PROXY": "intra.example"}, _PORTS, "127.0.0.1", "m")
    assert env["NO_PROXY"] == "intra.example,127.0.0.1,localhost"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
    ],
)
def test_the_address_shown_is_one_that_can_be_opened(host: str, url: str) -> None:
    assert Address(host, 8000).url == url


def test_a_second_start_is_told_where_the_first_one_is(layout: Layout) -> None:
    with run_record.only_one(layout):
        run_record.write(layout, _RECORD)
        assert run_record.running(layout) == _RECORD
        with pytest.raises(Failed) as failed, run_record.only_one(layout):
            pass
    assert "already running here at http://127.0.0.1:8000" in failed.value.what
    assert run_record.running(layout) is None


def test_the_record_of_a_killed_start_is_not_believed(layout: Layout) -> None:
    run_record.write(layout, _RECORD)
    assert run_record.running(layout) is None


@pytest.mark.parametrize("text", ["", "http", "-1", "65536", "80a"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(Exception, match="is not a port"):
        port_number(text)
