"""What every measurement has: the programs, the generator, and how much to measure."""

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fanout_load.peers import Peer
from fanout_load.processes import Program, Stack

PROVIDER = "load"

# The upstream's answers that single calls get: paced text, and text in one piece.
STREAMED = "paced?first_ms=50&delay_ms=10&chunks=64"
WHOLE = "paced?first_ms=20&chunks=64"
# Twelve seconds: longer than anybody is given to close it, and not for ever where nobody does.
LONG = "paced?first_ms=50&delay_ms=100&chunks=120"
MODELS = {"streamed": STREAMED, "whole": WHOLE, "long": LONG}


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured. Times are seconds; a rate is calls a second and how long."""

    rounds: int
    streamed: tuple[tuple[float, float], ...]
    whole: tuple[tuple[float, float], ...]
    streams: tuple[int, ...]
    hold_s: float
    settle_s: float
    chunk_streams: tuple[int, ...]
    chunk_s: float
    chunk_rounds: int
    widths: tuple[int, ...]
    cost_s: float
    leaving_calls: int
    paths: tuple[tuple[int, int], ...]  # fan-outs at once, fan-outs in all
    path_rounds: int
    growth_widths: tuple[int, ...]
    growth_at_once: tuple[int, ...]
    growth_s: float
    storm_fanouts: int


FULL = Extent(
    rounds=5,
    streamed=((4, 5), (20, 4)),
    whole=((20, 2), (150, 2)),
    streams=(1_000, 5_000, 10_000),
    hold_s=4,
    settle_s=5,
    chunk_streams=(200, 1_000),
    chunk_s=4,
    chunk_rounds=3,
    widths=(1, 2, 5, 10, 20, 50),
    cost_s=1.5,
    leaving_calls=500,
    paths=((1, 3), (16, 16), (64, 64)),
    path_rounds=2,
    growth_widths=(1, 2, 5, 10, 20, 50, 100, 200),
    growth_at_once=(1, 4, 16, 64, 128, 256),
    growth_s=1,
    storm_fanouts=100,
)
QUICK = Extent(
    rounds=1,
    streamed=((20, 0.5),),
    whole=((20, 0.5),),
    streams=(100,),
    hold_s=0.5,
    settle_s=0.5,
    chunk_streams=(100,),
    chunk_s=0.5,
    chunk_rounds=1,
    widths=(1, 10),
    cost_s=0.3,
    leaving_calls=50,
    paths=((1, 1),),
    path_rounds=1,
    growth_widths=(1, 10),
    growth_at_once=(1, 4),
    growth_s=0.3,
    storm_fanouts=5,
)


@dataclass(slots=True)
class Bench:
    """The running programs. ``services`` are the service by how it is configured."""

    stack: Stack
    generator: Path
    contract: int
    extent: Extent
    upstream: Program
    proxy: Program
    services: dict[str, Program]
    peers: dict[str, Peer]
    say: Callable[[str], None]
    problems: list[str] = field(default_factory=list)
    patience_s: float = 180

    def direct(self, model: str) -> dict[str, Any]:
        return self._chat(self.upstream, f"{self.upstream.url}/v1/chat/completions", model)

    def proxied(self, model: str) -> dict[str, Any]:
        return self._chat(self.proxy, f"{self.proxy.url}/v1/chat/completions", model)

    def ours(self, model: str, service: str = "service") -> dict[str, Any]:
        program = self.services[service]
        return {
            "kind": "fanout",
            "url": program.url,
            "provider": PROVIDER,
            "version": self.contract,
            "model": model,
            "pids": program.pids,
            "beside": [] if program is self.upstream else self.upstream.pids,
        }

    def peer(self, name: str, model: str) -> dict[str, Any]:
        peer = self.peers[name]
        return self._chat(peer.program, peer.completions, peer.names(model), dict(peer.headers))

    def _chat(
        self, program: Program, url: str, model: str, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        return {
            "kind": "chat",
            "url": url,
            "headers": dict(headers or {}),
            "model": model,
            "pids": program.pids,
            "beside": [] if program is self.upstream else self.upstream.pids,
        }

    def measure(self, what: str, **spec: Any) -> dict[str, Any] | None:
        """One measurement by the generator; None, and a problem in the report, when it fails."""
        about = f"{what} against {spec['target']['url'].rpartition('/')[2]}"
        return self.run(about, [self.generator, "measure"], {"what": what, "spec": spec})

    def run(
        self,
        about: str,
        command: Sequence[str | Path],
        spec: Mapping[str, Any],
        env: Mapping[str, str] | None = None,
    ) -> dict[str, Any] | None:
        """What a program that is given ``spec`` says; None, and a problem in the report, when it
        fails or hangs: what was measured before is not lost by it."""
        try:
            done = subprocess.run(
                command,
                input=json.dumps(spec).encode(),
                capture_output=True,
                env=env,
                check=False,
                timeout=self.patience_s,
            )
        except subprocess.TimeoutExpired:
            said = f"no end within {self.patience_s:g} s"
        else:
            if done.returncode == 0:
                result: dict[str, Any] = json.loads(done.stdout)
                return result
            # Of a traceback its last line.
            said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        said = said.removeprefix("fanoutload: ")
        self.problems.append(f"{about}: {said}")
        self.say(f"    {about}: {said}")
        return None
