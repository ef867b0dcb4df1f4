"""The embedded stack: model server, fan-out service, web. Used by ``up`` and ``ask``."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from launcher import run_record
from launcher.failure import Failed, advice_on_crash, gist, wrong_settings
from launcher.layout import Layout
from launcher.ports import free_port, refusal
from launcher.prepare import uses_go_service
from launcher.private_files import ensure_secret, write_private
from launcher.run_record import RunRecord
from launcher.stamps import digest_of, stamped, write_stamp
from launcher.steps import keep_output, step
from launcher.supervise import Service, Stack

LOOPBACK_NAMES = "localhost,127.0.0.1,[::1]"


@dataclass(frozen=True, slots=True)
class Address:
    """Where the web listens. Port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 8000

    @property
    def url(self) -> str:
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104
        return f"http://{f'[{shown}]' if ':' in shown and shown[0] != '[' else shown}:{self.port}"


@dataclass(frozen=True, slots=True)
class SignIn:
    """What the first start made; the secrets are None ever after."""

    workspace: str
    username: str
    password: str | None
    api_key: str | None


@dataclass(frozen=True, slots=True)
class Running:
    """A healthy stack: where it is, and what its database was set up with."""

    stack: Stack
    record: RunRecord
    sign_in: SignIn


def refuse_in_vain(layout: Layout, address: Address) -> None:
    """Raises Failed for what would stop a start anyway, so that nobody waits for a set-up first."""
    with run_record.only_one(layout):
        _settled(address)


@contextmanager
def running_stack(layout: Layout, address: Address, model: str) -> Iterator[Running]:
    """A set-up and healthy stack, ended when the block is left. Raises Failed in words."""
    with run_record.only_one(layout):
        address = _settled(address)
        ports = {"web": address.port, "fanout": free_port(8099), "model": free_port(8100)}
        env = environment(layout, os.environ, ports, address.host, model)
        sign_in = _database(layout, env)
        with Stack(layout) as stack:
            started = services(layout, env, ports, address, model)
            with step(f"Starting {', '.join(service.name for service in started)}"):
                for service in started:
                    stack.start(service)
                for service in started:
                    stack.wait_healthy(service)
            record = RunRecord(address.url, model, ports, stack.pids)
            run_record.write(layout, record)
            yield Running(stack, record, sign_in)


def _settled(address: Address) -> Address:
    if address.port == 0:
        return Address(address.host, free_port(0))
    if refused := refusal(address.host, address.port):
        other = max(address.port, 1023) + 1
        raise Failed(refused, advice=f"Choose another: ./rex up --port {other} (or --host).")
    return address


def environment(
    layout: Layout, environ: Mapping[str, str], ports: Mapping[str, int], host: str, model: str
) -> dict[str, str]:
    """The environment of every process of the stack. What the user set stays as it is."""
    env = {name: value for name, value in environ.items() if not name.startswith("PYTHON")}
    env["PYTHONUNBUFFERED"] = "1"
    env["REX_STATE_DIR"] = str(layout.state)
    env["REX_LOCAL_MODEL"] = model
    # The launcher starts these two itself, so where they listen is not the user's to say.
    env["REX_FANOUT_URL"] = f"http://127.0.0.1:{ports['fanout']}"
    env["REX_FANOUT_LISTEN"] = f"127.0.0.1:{ports['fanout']}"
    env["REX_LOCAL_BASE_URL"] = f"http://127.0.0.1:{ports['model']}/v1"
    if "REX_SECRET_KEY" not in env and "REX_SECRET_KEY_FILE" not in env:
        ensure_secret(layout.secret_key)
        env["REX_SECRET_KEY_FILE"] = str(layout.secret_key)
    named = f"[{host}]" if ":" in host else host
    if named not in LOOPBACK_NAMES.split(","):
        env.setdefault("REX_ALLOWED_HOSTS", f"{LOOPBACK_NAMES},{named}")
    # Loopback is never reached through a proxy.
    for name in ("NO_PROXY", "no_proxy"):
        env[name] = ",".join(filter(None, (env.get(name), "127.0.0.1", "localhost")))
    return env


def services(
    layout: Layout, env: Mapping[str, str], ports: Mapping[str, int], address: Address, model: str
) -> tuple[Service, ...]:
    """The processes of the stack, each after those it uses: they are stopped the other way."""
    scripts = layout.root / "scripts"
    python = str(layout.python)
    # It reaches no provider, and a process that loads weights need not hold anyone's key.
    keyless = {name: value for name, value in env.items() if "_API_KEY" not in name}
    model_server = (python, str(scripts / "local_model_server.py"), "--model", model)
    web: tuple[str, ...] = (python, "-m", "uvicorn", "rexsite.asgi:application")
    web += ("--host", address.host)
    web += ("--port", str(address.port), "--no-access-log", "--timeout-graceful-shutdown", "5")
    # Whether a proxy is believed is REX_TRUSTED_PROXIES' to say; uvicorn would believe loopback.
    web += ("--no-proxy-headers",)
    # A reader of a run sends one small frame; anything larger is refused before it is buffered.
    web += ("--ws-max-size", str(64 * 1024))
    fanout = Service(
        "fanout-service",
        (str(layout.bin / "fanout-service"),),
        env,
        f"http://127.0.0.1:{ports['fanout']}/healthz",
    )
    return (
        Service(
            "model-server",
            (*model_server, "--port", str(ports["model"])),
            keyless,
            f"http://127.0.0.1:{ports['model']}/health",
            startup_s=180,
        ),
        *((fanout,) if uses_go_service(env) else ()),
        Service("web", web, env, f"{address.url}/healthz", startup_s=90),
    )


def _database(layout: Layout, env: Mapping[str, str]) -> SignIn:
    """Migrations, static files, and the first workspace; all of it again is harmless."""
    with step("Preparing the database and static files"):
        manage(layout, env, "migrate", "--no-input", "--verbosity", "0")
        _collect_static(layout, env)
        made = SignIn(**json.loads(manage(layout, env, "bootstrap_workspace", "--json")))
    if made.api_key:
        write_private(layout.api_key, made.api_key)
    elif not layout.api_key.exists():
        # The start that made the first key was cut off before it was kept, or the file was deleted.
        write_private(layout.api_key, manage(layout, env, "issue_key", "home", "--name", "ask"))
    if made.password:
        write_private(layout.sign_in, json.dumps(asdict(made)))
    return _not_yet_shown(layout) or made


def _collect_static(layout: Layout, env: Mapping[str, str]) -> None:
    """Hashing and compressing every file takes seconds, so only when one of them changed."""
    inputs = [layout.root / "static", layout.root / "rexsite", layout.requirements / "run.lock"]
    stamp, digest = layout.stamps / "static", digest_of(inputs)
    collected = (layout.state / "static" / "staticfiles.json").exists()
    if not (collected and stamped(stamp, digest)):
        manage(layout, env, "collectstatic", "--no-input", "--verbosity", "0")
        write_stamp(stamp, digest)


def _not_yet_shown(layout: Layout) -> SignIn | None:
    """The first sign-in while nobody has seen it: the start that made it may have failed later."""
    if not layout.sign_in.exists():
        return None
    return SignIn(**json.loads(layout.sign_in.read_text(encoding="utf-8")))


def manage(layout: Layout, env: Mapping[str, str], *arguments: str) -> str:
    """What ``manage.py`` prints on stdout, which may be a secret; raises Failed with its errors."""
    done = subprocess.run(
        [layout.python, "manage.py", *arguments],
        cwd=layout.root,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        log = keep_output(layout, ["manage.py", *arguments], done.stderr)
        if sentences := wrong_settings(done.stderr):
            raise Failed("\n".join(sentences))
        what = f"manage.py {arguments[0]} failed (exit code {done.returncode})."
        advice = advice_on_crash(done.stderr) or f"All it said is in {log}."
        raise Failed(what, gist(done.stderr), advice)
    return done.stdout.strip()
