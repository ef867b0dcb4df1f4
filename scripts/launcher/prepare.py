"""What each command needs before it can begin, in order, each part only if it is not there yet."""

import os
from collections.abc import Mapping

from launcher import frontend, go_build, python_env, translations, weights
from launcher.layout import Layout
from launcher.stamps import one_at_a_time


def for_running(layout: Layout, model: str) -> None:
    """Everything ``up`` and ``ask`` start; no Go where models are called in process."""
    with one_at_a_time(layout):
        python_env.prepare(layout, "run")
        translations.compile_them(layout)
        frontend.prepare(layout, tests=False)
        if uses_go_service(os.environ):
            go_build.build(layout, go_build.SERVICE)
        weights.prepare(layout, model)


def uses_go_service(environ: Mapping[str, str]) -> bool:
    """Whether REX_FANOUT leaves the calls to the Go service, as it does unless told otherwise."""
    return environ.get("REX_FANOUT", "go") == "go"


def for_managing(layout: Layout) -> None:
    """The Python environment alone."""
    with one_at_a_time(layout):
        python_env.prepare(layout, "run")


def for_checking(layout: Layout) -> None:
    with one_at_a_time(layout):
        python_env.prepare(layout, "check")


def for_testing(layout: Layout, *, with_go: bool) -> None:
    """Packages of the tests, front-end modules, and the Go programs the tests start."""
    with one_at_a_time(layout):
        python_env.prepare(layout, "test")
        translations.compile_them(layout)
        frontend.prepare(layout, tests=True)
        if with_go:
            go_build.build(layout, go_build.SERVICE, go_build.FAKE_PROVIDER)
