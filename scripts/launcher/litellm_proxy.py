"""LiteLLM's proxy for the tests, in an environment of its own below the toolchain.

It asks for other versions than Rex does, and for more than a running Rex should have to install.
"""

from pathlib import Path

from launcher import python_env
from launcher.failure import Failed
from launcher.layout import Layout
from launcher.stamps import digest_of, one_at_a_time, stamped
from launcher.steps import step

_LOCK = "litellm-proxy.lock"
_ADVICE = "Leave the tests that need it out: ./rex test --without litellm"


def find(layout: Layout) -> Path:
    """The path of the program, installed the first time. Raises Failed in words."""
    target = layout.tools / "litellm-proxy"
    with one_at_a_time(layout):
        if not stamped(target / "stamp", digest_of([layout.requirements / _LOCK])):
            try:
                with step("Installing LiteLLM's proxy", "for the tests alone; 400 MB on disk"):
                    python_env.install_apart(layout, "Installing LiteLLM's proxy", _LOCK, target)
            except Failed as failed:
                raise Failed(
                    "LiteLLM's proxy could not be installed.", failed.detail, _ADVICE
                ) from failed
    return target / "bin" / "litellm"
