"""Modules under hashed names: every import must find its module without a bundler."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from csp.middleware import CSPMiddleware
from django.core.management import call_command
from django.http import HttpResponse
from django.template import Context, Template
from django.test import RequestFactory

JS = Path(__file__).resolve().parents[2] / "static" / "rex" / "js"
STORAGE = "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"


@pytest.fixture
def collected(settings: Any, tmp_path: Path) -> Path:
    """The site's static files, collected under hashed names."""
    settings.STATIC_ROOT = str(tmp_path)
    settings.STORAGES = settings.STORAGES | {"staticfiles": {"BACKEND": STORAGE}}
    call_command("collectstatic", interactive=False, verbosity=0)
    return tmp_path


def head(template: str) -> str:
    """What the template makes of a request that passed the policy's own middleware."""
    request = RequestFactory().get("/")
    CSPMiddleware(lambda _: HttpResponse()).process_request(request)
    return Template("{% load rex_static %}" + template).render(Context({"request": request}))


def test_every_import_of_every_module_is_mapped_to_a_file_that_exists(collected: Path) -> None:
    html = head("{% importmap %}")
    imports = json.loads(re.sub(r"<[^>]+>", "", html))["imports"]
    assert imports["marked"].startswith("/static/vendor/marked/marked.esm.")
    wanted = {
        name if not name.startswith("./") else f"/static/rex/js/{name[2:]}"
        for path in JS.glob("*.js")
        for name in re.findall(r'^import .*?from "([^"]+)"', path.read_text(), re.M | re.S)
    }
    assert "/static/rex/js/model.js" in wanted
    for name in wanted:
        assert imports[name] != name
        assert (collected / imports[name].removeprefix("/static/")).is_file()


def test_scripts_carry_the_nonce_of_the_policy(collected: Path) -> None:
    assert re.search(r'type="importmap" nonce="[\w+/=-]{16,}"', head("{% importmap %}"))
    assert re.search(
        r'<script type="module" src="/static/rex/js/start\.\w+\.js" nonce="[\w+/=-]{16,}">',
        head('{% module "start.js" %}'),
    )
