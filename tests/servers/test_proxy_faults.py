"""The faults of a scripted upstream in the words of LiteLLM's proxy.

What its Gemini route makes of them is poorer: it has no word for a tool call, loses reasoning, and
answers 500 for every refusal but 400 and 429. On every route it drops Retry-After, and calls a
stream complete that ended too early without breaking off; neither can be seen from here.
"""

import pytest

from tests.servers.asking import Answer, ask_one, call
from tests.servers.conftest import SCRIPTED, Service

pytestmark = [pytest.mark.golang, pytest.mark.localmodel, pytest.mark.litellm]

# What comes of a script, and of the same by the Gemini route where that differs.
ENDS = {
    "context-too-long": ("context_too_long", ""),
    "content-filter": ("content_filter", ""),
    "tool-calls": ("tool_calls", "stop"),
    "empty": ("bad_upstream_response", ""),
    "rate-limited": ("rate_limited", ""),
    "http-500": ("server_error", ""),
    "http-503": ("overloaded", "server_error"),
    "http-529": ("overloaded", "server_error"),
    "error-event": ("server_error", ""),
    "cut-abrupt": ("server_error", ""),
}
providers = pytest.mark.parametrize("provider", ["proxy", "anthropic", "google"])
forms = pytest.mark.parametrize("whole", [False, True], ids=["streamed", "whole"])


def asked(service: Service, provider: str, script: str, whole: bool) -> Answer:
    model = f"{SCRIPTED}/{script}"
    one = call(provider, "Hello", model=model, whole=whole, attempts=1, thoughts=True)
    return ask_one(service.url, one)


@forms
@providers
@pytest.mark.parametrize("script", ENDS)
def test_a_fault_keeps_its_kind(
    beside_faults: Service, script: str, provider: str, whole: bool
) -> None:
    kind, by_gemini = ENDS[script]
    answer = asked(beside_faults, provider, script, whole)
    assert answer.kind == (by_gemini if provider == "google" and by_gemini else kind)
    assert "litellm" not in answer.result.get("message", "").lower()


@forms
@providers
def test_reasoning_is_kept_apart_from_the_answer(
    beside_faults: Service, provider: str, whole: bool
) -> None:
    with_thoughts = asked(beside_faults, provider, "reasoning", whole)
    without = asked(beside_faults, provider, "ok", whole)
    assert with_thoughts.text == without.text
    assert with_thoughts.kind == without.kind
    assert without.thoughts == ""
    assert bool(with_thoughts.thoughts) is (provider != "google")


@forms
@providers
def test_text_is_repaired_wherever_it_broke(
    beside_faults: Service, provider: str, whole: bool
) -> None:
    """The proxy passes lone surrogates and U+0000 on, and by OpenAI's format trips over them."""
    answer = asked(beside_faults, provider, "odd-unicode", whole)
    assert answer.kind == ("server_error" if provider == "proxy" and not whole else "stop")
    assert answer.text.startswith("nul:\ufffd ")
    assert "\x00" not in answer.text
    assert answer.text.encode()  # no surrogate is left
