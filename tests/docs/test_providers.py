"""docs/providers.md says what is so: its example works, and its lists are those of the code."""

import json
import re

from orchestration.domain.routing import PERSONAS, resolve
from orchestration.fanout.providers import providers_of, read_endpoints
from orchestration.fanout.upstream_wires import WIRES
from tests.docs.markdown import ROOT, cells, page, ticked

PROVIDERS = page("docs/providers.md")
ROWS = json.loads((ROOT / "go/fanout-service/api/providers.json").read_text())["providers"]


def test_the_example_of_a_server_of_ones_own_makes_its_models_askable() -> None:
    (example,) = re.findall(r"^REX_PROVIDER_.*?^```", PROVIDERS.text, re.MULTILINE | re.DOTALL)
    env = dict(
        re.findall(r"^(REX_PROVIDER_\w+)=(\S+)", example.replace("…", "a-key"), re.MULTILINE)
    )
    assert len(env) == 2
    (models,) = re.findall(r"--models (\S+)", example)
    providers = providers_of(read_endpoints(env))
    assert [resolve(model, providers).provider for model in models.split(",")] == ["lab", "local"]


def test_the_personas_are_all_named_and_so_is_the_model_behind_them() -> None:
    served = providers_of(read_endpoints({}))["local"].served_model
    named = ticked(PROVIDERS.section("The embedded model"))
    assert named == [*(f"local/{name}" for name in PERSONAS), f"local/{served}"]


def test_every_quirk_of_an_endpoint_is_explained() -> None:
    explained = [cell.strip("`") for cell in cells(PROVIDERS.section("Build one in"))]
    assert sorted(explained) == sorted({quirk for row in ROWS for quirk in row["quirks"]})


def test_the_providers_reached_in_a_format_of_their_own_are_named() -> None:
    named = cells(PROVIDERS.section("Two ways there"))[0].split(", ")
    native = [row["title"] for row in ROWS if row["litellm"] in WIRES]
    assert len(named) == len(native)
    assert all(name in title for name, title in zip(named, native, strict=True))
