"""Ports: which are free, and one that is."""

import errno
import socket


def refusal(host: str, port: int) -> str:
    """Why a server could not listen there now, as a sentence; empty where it could."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port in TIME_WAIT is free, one with a listener is not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return {
                errno.EADDRINUSE: f"Port {port} on {host} is in use.",
                errno.EACCES: f"Port {port} may not be used by this user.",
            }.get(error.errno or 0, f"{host} is not an address of this machine.")
    return ""


def free_port(preferred: int) -> int:
    """``preferred`` on the loopback interface if free, else one the system chooses."""
    if preferred and not refusal("127.0.0.1", preferred):
        return preferred
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
