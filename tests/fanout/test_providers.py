"""Which providers there are is read from the environment; keys stay where they are."""

from pathlib import Path

import pytest

from orchestration.domain.routing import ProviderNotConfigured, Target, resolve
from orchestration.fanout.providers import (
    ProviderSettingsError,
    providers_of,
    read_endpoints,
)

KEY = "sk-canary-0123456789"
LAB = {"REX_PROVIDER_LAB_BASE_URL": "http://127.0.0.1:9000/v1"}


def test_without_any_setting_only_the_embedded_model_is_there() -> None:
    providers = providers_of(read_endpoints({}))
    assert [name for name, each in providers.items() if each.configured] == ["local"]
    assert providers["local"].served_model == "smollm2-135m"
    assert providers["local"].free
    assert providers["openai"].missing_env == "OPENAI_API_KEY"
    assert providers["vllm"].missing_env == "VLLM_BASE_URL"


def test_a_key_configures_its_provider_and_no_other() -> None:
    endpoints = read_endpoints({"OPENAI_API_KEY": KEY})
    assert endpoints["openai"].api_keys == (KEY,)
    assert endpoints["openai"].base_url == "https://api.openai.com/v1"
    with pytest.raises(ProviderNotConfigured, match="set ANTHROPIC_API_KEY"):
        resolve("anthropic/claude", providers_of(endpoints))
    assert not any(each.api_keys for name, each in endpoints.items() if name != "openai")


def test_a_key_can_come_from_a_file_without_its_line_end(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert read_endpoints({"GEMINI_API_KEY_FILE": str(file)})["google"].api_keys == (KEY,)


def test_an_address_of_ones_own_replaces_the_default_without_its_last_slash() -> None:
    endpoints = read_endpoints({"OPENAI_BASE_URL": " https://proxy.example/v1/ "})
    assert endpoints["openai"].base_url == "https://proxy.example/v1"
    assert not endpoints["openai"].provider.configured  # the key is still missing


def test_a_server_of_ones_own_needs_an_address_and_takes_a_key() -> None:
    endpoints = read_endpoints(
        {
            "REX_PROVIDER_LAB_BASE_URL": "http://127.0.0.1:9000/v1",
            "REX_PROVIDER_LAB_API_KEY": KEY,
            "REX_PROVIDER_NO_KEY_BASE_URL": "http://127.0.0.1:9001/v1",
        }
    )
    assert list(endpoints)[-2:] == ["lab", "no_key"]
    assert (endpoints["lab"].api_keys, endpoints["no_key"].api_keys) == ((KEY,), ())
    # What it costs is not known: it may be somebody's paid service.
    assert not endpoints["lab"].provider.free
    target = resolve("no_key/some/model", providers_of(endpoints))
    assert target == Target("no_key/some/model", "no_key", "some/model")


def test_a_comma_stands_between_keys() -> None:
    endpoints = read_endpoints({"OPENAI_API_KEY": f" {KEY}, other ,, "})
    assert endpoints["openai"].api_keys == (KEY, "other")
    assert endpoints["openai"].provider.configured
    assert not read_endpoints({"OPENAI_API_KEY": " , "})["openai"].provider.configured


@pytest.mark.parametrize("wire", ["openai", "anthropic", "gemini"])
def test_a_server_of_ones_own_may_speak_another_format(wire: str) -> None:
    assert read_endpoints(LAB)["lab"].provider.litellm == "openai"
    lab = read_endpoints(LAB | {"REX_PROVIDER_LAB_WIRE": wire})["lab"]
    assert lab.provider.litellm == wire


def test_the_model_the_local_server_serves_can_be_another() -> None:
    providers = providers_of(read_endpoints({"REX_LOCAL_MODEL": "qwen2.5-coder-1.5b"}))
    assert resolve("local/brisk", providers).upstream_model == "qwen2.5-coder-1.5b"


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"OPENAI_API_KEY": KEY, "OPENAI_API_KEY_FILE": "/x"}, "OPENAI_API_KEY_FILE are both set"),
        ({"OPENAI_API_KEY_FILE": f"/nowhere/{KEY}"}, "OPENAI_API_KEY_FILE names a file"),
        ({"OPENAI_BASE_URL": f"ftp://{KEY}@host"}, "OPENAI_BASE_URL takes an"),
        ({"REX_PROVIDER_OPENAI_BASE_URL": f"http://{KEY}"}, "names a provider that Rex has built"),
        ({"REX_PROVIDER_LAB_BASE_URL": KEY}, "REX_PROVIDER_LAB_BASE_URL takes an"),
        ({**LAB, "REX_PROVIDER_LAB_WIRE": KEY}, "REX_PROVIDER_LAB_WIRE takes openai"),
        ({"OPENAI_API_KEY": f"{KEY} {KEY}"}, "OPENAI_API_KEY takes a key"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_and_its_value_kept_back(
    env: dict[str, str], said: str
) -> None:
    with pytest.raises(ProviderSettingsError, match=said) as refused:
        read_endpoints(env)
    assert KEY not in str(refused.value)


def test_a_file_that_is_no_text_is_named_and_its_bytes_kept_back(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"\xff\xfe" + KEY.encode())
    with pytest.raises(ProviderSettingsError) as refused:
        read_endpoints({"OPENAI_API_KEY_FILE": str(file)})
    assert "UnicodeDecodeError" in str(refused.value)
    assert KEY not in repr(refused.value)
    assert refused.value.__cause__ is None


def test_no_key_stands_in_what_is_printed_and_none_reaches_the_domain() -> None:
    endpoints = read_endpoints({"OPENAI_API_KEY": KEY})
    assert KEY not in repr(endpoints)
    assert KEY not in repr(dict(providers_of(endpoints)))
