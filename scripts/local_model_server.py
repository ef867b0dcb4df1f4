"""The embedded model: an OpenAI-compatible server on the loopback interface, offline.

    python scripts/local_model_server.py [--model NAME] [--port 8100] [--slots]

It answers POST /v1/chat/completions (streams, usage, JSON schemas), GET /v1/models and GET /health.
Run by `./rex up`; by hand it needs the environment `./rex up` made.
"""

import argparse
import os
import signal
import sys
import threading

# Idle threads of a busy-waiting pool starve the one that works: on two cores this is the
# difference between 5 and 130 tokens a second. Must be set before the library is loaded.
os.environ["OMP_WAIT_POLICY"] = "passive"

from launcher.failure import Failed
from launcher.layout import layout_from
from launcher.weights import CATALOGUE, DEFAULT_MODEL, verified

SLOTS = 6
CONTEXT_TOKENS = 4096
# Without it small models say one sentence again and again; at 1.15 they flee into words, markup and
# code that nobody asked for.
REPEAT_PENALTY = 1.08
REPEAT_WINDOW_TOKENS = 128


def serve(name: str, port: int, *, slots: bool) -> None:
    """Loads verified weights and serves them until SIGTERM or SIGINT."""
    path = verified(layout_from(os.environ), name)

    import xllamacpp

    cores = os.cpu_count() or 1
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {name}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.offline = True
    params.ui = False
    # Its own origin: no page of another may read what it answers.
    params.cors_origins = f"http://127.0.0.1:{port}"
    params.cors_credentials = False
    params.endpoint_slots = slots
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT_TOKENS
    params.n_gpu_layers = 0
    params.cache_ram_mib = 0
    params.verbosity = 1
    params.sampling.penalty_repeat = REPEAT_PENALTY
    params.sampling.penalty_last_n = REPEAT_WINDOW_TOKENS
    # One token at a time gains nothing from a second thread on two cores (134 tokens a second
    # with one, 49 with two); reading a prompt does (400 against 210).
    params.cpuparams.n_threads = max(1, cores // 2)
    params.cpuparams_batch.n_threads = cores

    server = xllamacpp.Server(params)
    print(f"{CATALOGUE[name].title} on {server.listening_address}", flush=True)
    # The library installs handlers of its own while it starts. Its shutdown waits for every answer
    # in flight, and nobody is left to read them: these two signals simply end the process.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    threading.Event().wait()


def main() -> int:
    parser = argparse.ArgumentParser(description="Serve the embedded model on 127.0.0.1.")
    parser.add_argument("--model", choices=sorted(CATALOGUE), default=DEFAULT_MODEL)
    parser.add_argument("--port", type=int, default=8100)
    shows = "answer GET /slots, for tests: what is being generated, prompts included"
    parser.add_argument("--slots", action="store_true", help=shows)
    options = parser.parse_args()
    try:
        serve(options.model, options.port, slots=options.slots)
    except Failed as failed:
        print(failed, file=sys.stderr)
        return failed.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
