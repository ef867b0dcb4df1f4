"""No secret is anywhere but where it belongs, whatever is done and whatever goes wrong."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from launcher.go_build import SERVICE
from launcher.layout import ROOT
from tests.contract.conftest import Upstream, binaries, upstream
from tests.isolation.crash_middleware import PLACES
from tests.isolation.stack import PROVIDER_KEY, SECRET_KEY, Stack, stack
from tests.redis_server import RedisServer

__all__ = ["binaries", "upstream"]

pytestmark = pytest.mark.golang

PASSWORD = "canary-password-of-a-guest-41"


@pytest.fixture(params=["0", "1"], ids=["debug off", "debug on"])
def whole(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    binaries: Path,
    upstream: Upstream,
    redis_server: RedisServer,
) -> Iterator[Stack]:
    with stack(
        tmp_path, binaries / SERVICE, upstream.url, redis_server, REX_DEBUG=request.param
    ) as found:
        found.secrets.add(PASSWORD)
        yield found


def runs(whole: Stack) -> None:
    """Answers, an answer out of the cache, a refused key that the provider repeats, a failure."""
    api = whole.rex.api
    for models in (["keyed/ok"], ["keyed/ok"], ["refused/http-401"], ["refused/bad-key"],
                   ["keyed/http-500", "keyed/ok"]):  # fmt: skip
        asked = whole.ask(api, "POST", "/api/run", json={"prompt": "Why?", "models": models})
        told = whole.finished(asked)
        whole.ask(api, "GET", told["url"])
        whole.ask(api, "GET", f"/api/runs/{told['id']}")
        whole.ask(api, "GET", f"/api/runs/{told['id']}/events")
        whole.ask(whole.rex.browser, "GET", told["url"])
    assert told["status"] in ("done", "degraded")


def keys(whole: Stack) -> None:
    """Made, used, rotated, revoked, and used once more."""
    browser = whole.rex.browser
    shown = r"sk-rex-[a-z0-9]{12}-([A-Za-z0-9_-]{43})"
    fields = {"name": "a key", "scopes": ["runs:read", "runs:write", "usage:read"], "expires": ""}
    whole.ask(browser, "GET", "/keys/new/")
    made = whole.form(browser, "/keys/new/", data=fields, shows=shown)
    public = made.text.partition("sk-rex-")[2][:12]
    secret = made.text.partition(f"sk-rex-{public}-")[2][:43]
    bearer = {"Authorization": f"Bearer sk-rex-{public}-{secret}"}
    for address in ("/api/runs", "/api/models", "/api/quotas", "/api/usage"):
        whole.ask(httpx.Client(base_url=whole.rex.url), "GET", address, headers=bearer)
    whole.form(browser, f"/keys/{public}/rotate/", data={"grace": "3600"}, shows=shown)
    whole.form(browser, f"/keys/{public}/revoke/")
    refused = whole.ask(httpx.Client(base_url=whole.rex.url), "GET", "/api/runs", headers=bearer)
    assert refused.status_code == 401
    for address in ("/keys/", f"/keys/{public}/", "/account/", "/members/", "/usage/"):
        whole.ask(browser, "GET", address)


def people(whole: Stack) -> None:
    """An invitation, a new user, wrong passwords until it is locked."""
    browser = whole.rex.browser
    whole.ask(browser, "GET", "/members/")
    invited = whole.form(
        browser, "/members/", data={"role": "member", "note": "a note"},
        shows=r"/join/([A-Za-z0-9_-]{43})/",
    )  # fmt: skip
    token = invited.text.partition("/join/")[2][:43]
    guest = httpx.Client(base_url=whole.rex.url, follow_redirects=True)
    # Its own page names it, in the address that the form is sent to.
    own: dict[str, Any] = {"hides": token}
    address = f"/join/{token}/"
    forged = whole.ask(guest, "POST", address, data={"username": "guest"}, **own)
    assert forged.status_code == 403
    whole.ask(guest, "GET", address, **own)
    fields = {"username": "guest", "password1": PASSWORD, "password2": PASSWORD}
    crashed = whole.form(guest, address, data=fields, headers={"X-Crash": "register"}, hides=token)
    assert crashed.status_code == 500
    assert whole.form(guest, address, data=fields | {"password2": "x"}, **own).status_code == 400
    assert whole.form(guest, address, data=fields).status_code == 200
    assert whole.ask(guest, "GET", address, **own).status_code == 404
    stranger = httpx.Client(base_url=whole.rex.url)
    stranger.get("/login/")
    for _ in range(12):
        whole.form(stranger, "/login/", data={"username": "guest", "password": f"{PASSWORD}x"})


def crashes(whole: Stack) -> None:
    """In the frames that hold a key, a token or a password."""
    browser, crash = whole.rex.browser, "X-Crash"
    whole.ask(whole.rex.api, "GET", "/api/runs", headers={crash: "view"})
    whole.ask(browser, "GET", "/keys/", headers={crash: "view"})
    asked = {"prompt": "Why?", "models": ["keyed/ok"]}
    for place in ("start", "authentication"):
        whole.ask(whole.rex.api, "POST", "/api/run", json=asked, headers={crash: place})
    fields = {"name": "b", "scopes": ["runs:read"], "expires": ""}
    answers = [
        whole.form(browser, "/keys/new/", data=fields, headers={crash: "issue"}),
        whole.form(browser, "/members/", data={"role": "member"}, headers={crash: "invite"}),
        whole.form(
            browser, "/login/", data={"username": "guest", "password": PASSWORD},
            headers={crash: "view"},
        ),
    ]  # fmt: skip
    assert [each.status_code for each in answers] == [500] * 3
    assert PLACES.keys() >= {"start", "authentication", "issue", "invite", "register"}


def console(whole: Stack) -> None:
    browser = whole.rex.browser
    index = whole.ask(browser, "GET", "/admin/")
    assert index.status_code == 200
    links = {part.partition('"')[0] for part in index.text.split('href="/admin/')[1:]}
    for link in sorted(links):
        whole.ask(browser, "GET", f"/admin/{link}")


def test_after_everything_that_can_be_done_no_secret_is_found_anywhere(whole: Stack) -> None:
    runs(whole)
    keys(whole)
    people(whole)
    crashes(whole)
    console(whole)
    assert len(whole.secrets) > 8
    assert len(whole.heard) > 70
    # The provider did repeat the key, the web and the service did log, spans did arrive.
    where = [place for place, _ in whole.everything()]
    assert "span batch 0" in where
    assert "a key of Redis" in where
    assert b'"level": "debug"' in whole.rex.log.read_bytes()
    assert b"Traceback" in whole.rex.log.read_bytes()
    assert len(whole.fanout_log.read_bytes()) > 1000
    found = whole.found()
    assert not found, "\n".join(sorted(set(found)))
    # And the search does find what is there.
    whole.heard.append(("a plant", f"x{PROVIDER_KEY}x"))
    assert whole.found() == [f"{PROVIDER_KEY[:12]}… in a plant"]


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://rex:{secret}@127.0.0.1:9/rex",
        "postgresql://rex:{secret}@/",
        "postgresql://rex:{secret}@127.0.0.1:nine/rex",
        "mysql://rex:{secret}@127.0.0.1/rex",
    ],
)
def test_the_password_of_a_database_that_cannot_be_used_is_not_said(
    tmp_path: Path, address: str
) -> None:
    secret = "canary-database-password-77"
    done = subprocess.run(
        [sys.executable, "manage.py", "migrate", "--traceback"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "DATABASE_URL": address.format(secret=secret),
            "REX_STATE_DIR": str(tmp_path),
            "REX_SECRET_KEY": SECRET_KEY,
            "REX_DEBUG": "1",
            "REX_LOG_LEVEL": "DEBUG",
            "REX_DATABASE_TIMEOUT_S": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "database" in said.lower()
    assert secret not in said
    assert SECRET_KEY not in said
