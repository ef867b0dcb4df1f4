"""``./rex up``: set everything up, start it, say where it is, and stop it all on Ctrl-C."""

import argparse

from launcher import prepare
from launcher.layout import Layout
from launcher.stack import Address, Running, refuse_in_vain, running_stack
from launcher.steps import say
from launcher.supervise import Stopped, raise_on_signals
from launcher.weights import CATALOGUE, DEFAULT_MODEL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=port_number, default=8000, help="port of the page (8000)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument(
        "--model",
        choices=sorted(CATALOGUE),
        default=DEFAULT_MODEL,
        help=f"weights of the embedded model ({DEFAULT_MODEL})",
    )


def port_number(text: str) -> int:
    """An argument that must be a port; 0 takes a free one."""
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return int(text)


def up(layout: Layout, options: argparse.Namespace) -> int:
    """Runs until a signal (exit code 0 for Ctrl-C and TERM) or until a service ends (Failed)."""
    raise_on_signals()
    address = Address(options.host, options.port)
    refuse_in_vain(layout, address)
    say("Rex: setting up. The first time takes a few minutes; later starts take seconds.")
    try:
        prepare.for_running(layout, options.model)
        with running_stack(layout, address, options.model) as running:
            print(greeting(running), flush=True)
            layout.sign_in.unlink(missing_ok=True)
            try:
                running.stack.watch()
            finally:
                say("Stopping …")
    except Stopped:
        say("Stopped.")
    return 0


def greeting(running: Running) -> str:
    """What the person at the terminal needs now; the secrets only when they were just made."""
    sign_in, lines = running.sign_in, ["", f"Rex is running: {running.record.url}", ""]
    if sign_in.password:
        lines += [f"  sign in    {sign_in.username} / {sign_in.password}"]
    else:
        lines += [f"  sign in    {sign_in.username}, with the password shown at the first start"]
        lines += ["             (forgotten? ./rex manage changepassword " + sign_in.username + ")"]
    if sign_in.api_key:
        lines += [f"  API key    {sign_in.api_key}"]
    lines += ['  ask        ./rex ask "Why is the sky blue?"', "  stop       Ctrl-C", ""]
    if sign_in.password:
        lines.insert(-1, "  Password and key are shown this once only.")
    return "\n".join(lines)
