"""An address or a key that cannot be used stops the start, and is not repeated."""

import pytest

from orchestration.fanout.providers import ProviderSettingsError, read_endpoints


@pytest.mark.parametrize(
    "address",
    [
        "ftp://canary.example/v1",
        "canary.example:8000/v1",
        "https://",
        "https://canary:secret@models.example/v1",
        "https://models.example/v1?key=canary",
        "https://models.example/v1#canary",
        "https://[canary/v1",
    ],
)
def test_an_address_must_be_plain_http(address: str) -> None:
    with pytest.raises(ProviderSettingsError, match="OPENAI_BASE_URL") as refused:
        read_endpoints({"OPENAI_BASE_URL": address})
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("key", ["sk-canary with space", "sk-canary\nline", "sk-canary-é"])
def test_a_key_must_fit_a_header(key: str) -> None:
    with pytest.raises(ProviderSettingsError, match="OPENAI_API_KEY") as refused:
        read_endpoints({"OPENAI_API_KEY": key})
    assert "canary" not in str(refused.value)


def test_a_good_address_loses_only_its_last_slash() -> None:
    endpoints = read_endpoints({"VLLM_BASE_URL": " http://127.0.0.1:9000/v1/ "})
    assert endpoints["vllm"].base_url == "http://127.0.0.1:9000/v1"
    assert endpoints["vllm"].provider.configured
