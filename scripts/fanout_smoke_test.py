"""Ask a running fan-out service for real answers, and say plainly what came.

    python scripts/fanout_smoke_test.py [--url URL] [--model local/brisk …] [--json]

Looks at the service's health and providers, sends one fan-out of all the models, and reads the
stream with the client Rex itself uses, so a stream that breaks the contract is seen. Model ids are
Rex's own; --model can be given several times.

Exit codes: 0 every model answered; 1 a model did not; 2 wrong use; 3 the service could not be
reached, refused the request, or broke the contract.
"""

import argparse
import asyncio
import json
import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import httpx
import msgspec

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from orchestration.domain.routing import (  # noqa: E402 - needs the path above
    Provider,
    RoutingError,
    Target,
    resolve,
)
from orchestration.fanout.client import (  # noqa: E402
    ContractViolation,
    FanoutRefused,
    FanoutUnavailable,
    call_for,
)
from orchestration.fanout.go import GoClient  # noqa: E402
from orchestration.fanout.providers import providers_of, read_endpoints  # noqa: E402
from orchestration.fanout.wire import (  # noqa: E402
    Chunk,
    Event,
    Failed,
    FanoutRequest,
    Finished,
    Message,
    Params,
)

DEFAULT_MODELS = ("local/brisk", "local/plain", "local/thorough")
QUESTION = "Why is the sky blue?"


class Health(msgspec.Struct):
    """The body of GET /healthz."""

    status: str
    version: str
    in_flight: int


class Offer(msgspec.Struct):
    """One row of GET /providers."""

    name: str
    title: str
    configured: bool


class Offers(msgspec.Struct):
    providers: list[Offer]


@dataclass(slots=True)
class Seen:
    """What was seen of one model. Moments are milliseconds since the service had the request;
    ``end`` is the finish reason, the error kind, or empty when no end came."""

    model: str
    ok: bool = False
    end: str = ""
    problem: str = ""
    first_token_ms: int | None = None
    ended_ms: int | None = None
    chunks: int = 0
    chars: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(slots=True)
class Report:
    """``problem``: what the service itself did wrong; empty when it did its part."""

    url: str
    problem: str = ""
    status: str = ""
    version: str = ""
    configured: list[str] = field(default_factory=list)
    not_configured: list[str] = field(default_factory=list)
    calls: list[Seen] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        if self.problem:
            return 3
        return 0 if all(seen.ok for seen in self.calls) else 1


async def smoke(url: str, models: Sequence[str], deadline_s: int, max_tokens: int | None) -> Report:
    """Look at the service and ask it; every trouble ends up in the report."""
    report = Report(url, calls=[Seen(model) for model in models])
    try:
        providers = await _look(url, report)
        asked = _resolved(report, providers)
        if asked:
            await _ask(url, report, asked, providers, deadline_s, max_tokens)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        report.problem = f"The service cannot be reached: {type(error).__name__}."
    except msgspec.MsgspecError:
        report.problem = "What answers there is not the fan-out service."
    except FanoutUnavailable as error:
        report.problem = f"The service is not there, or broke off: {error}."
    except FanoutRefused as error:
        report.problem = f"The service refused the request with HTTP {error.status}: {error}."
    except ContractViolation as error:
        report.problem = f"The service broke the contract: {error}."
    return report


async def _look(url: str, report: Report) -> Mapping[str, Provider]:
    """Health and providers into the report; gives the providers as the service has them."""
    async with httpx.AsyncClient(base_url=url, timeout=5, trust_env=False) as http:
        health = msgspec.json.decode((await http.get("/healthz")).content, type=Health)
        report.status, report.version = health.status, health.version
        offers = msgspec.json.decode((await http.get("/providers")).content, type=Offers)
    known = providers_of(read_endpoints(os.environ))
    providers: dict[str, Provider] = {}
    for offer in offers.providers:
        (report.configured if offer.configured else report.not_configured).append(offer.name)
        # Whether a provider is configured is the service's to say: it has the keys, not we.
        mine = known.get(offer.name) or Provider(offer.name, offer.title, "openai")
        missing = "" if offer.configured else mine.missing_env or "its variables for the service"
        providers[offer.name] = replace(mine, missing_env=missing)
    return providers


def _resolved(report: Report, providers: Mapping[str, Provider]) -> list[tuple[Seen, Target]]:
    """The models that can be asked; the others get their problem."""
    asked: list[tuple[Seen, Target]] = []
    for seen in report.calls:
        try:
            asked.append((seen, resolve(seen.model, providers)))
        except RoutingError as error:
            seen.end, seen.problem = error.code, str(error)
    return asked


async def _ask(
    url: str,
    report: Report,
    asked: Sequence[tuple[Seen, Target]],
    providers: Mapping[str, Provider],
    deadline_s: int,
    max_tokens: int | None,
) -> None:
    params = Params() if max_tokens is None else Params(max_tokens=max_tokens)
    request = FanoutRequest(
        id=f"smoke-{uuid.uuid4().hex}",
        deadline_ms=deadline_s * 1000,
        calls=tuple(
            call_for(target, str(number), [Message("user", QUESTION)], params=params)
            for number, (_, target) in enumerate(asked)
        ),
    )
    client = GoClient(url, providers)
    try:
        async with aclosing(client.stream(request)) as events:
            async for event in events:
                _note(asked[int(event.call)][0], event)
    finally:
        await client.aclose()


def _note(seen: Seen, event: Event) -> None:
    match event:
        case Chunk():
            seen.chunks += 1
            seen.chars += len(event.text)
            if seen.first_token_ms is None:
                seen.first_token_ms = event.at_ms
        case Finished():
            seen.ok, seen.end, seen.ended_ms = True, event.finish_reason, event.at_ms
            seen.input_tokens = event.usage.input_tokens
            seen.output_tokens = event.usage.output_tokens
        case Failed():
            seen.end, seen.problem, seen.ended_ms = event.kind.value, event.message, event.at_ms
        case _:
            pass


def told(report: Report) -> str:
    """The report as lines for people."""
    lines = [f"service    {report.url}"]
    if report.status:
        lines.append(f"health     {report.status}, version {report.version}")
    if report.configured or report.not_configured:
        lines.append(f"providers  configured: {', '.join(report.configured) or 'none'}")
        lines.append(f"           not configured: {', '.join(report.not_configured) or 'none'}")
    lines += [_line(seen) for seen in report.calls if seen.end or seen.chunks]
    answered = sum(seen.ok for seen in report.calls)
    lines.append(report.problem or f"{answered} of {len(report.calls)} models answered.")
    return "\n".join(lines)


def _line(seen: Seen) -> str:
    parts = [f"{seen.model:<24}"]
    if seen.first_token_ms is not None:
        parts.append(f"first text {seen.first_token_ms} ms,")
        parts.append(f"{seen.chars} characters in {seen.chunks} chunks,")
    if seen.ok:
        parts.append(f"{seen.input_tokens} + {seen.output_tokens} tokens,")
        parts.append(f"finished ({seen.end}) after {seen.ended_ms} ms")
    elif seen.end:
        parts.append(f"FAILED {seen.end}: {seen.problem}")
    else:
        parts.append("NO END came")
    return " ".join(parts)


def _whole(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 3600:
        raise argparse.ArgumentTypeError("takes a whole number from 1 to 3600")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Ask a running fan-out service for answers.")
    parser.add_argument(
        "--url", default=os.environ.get("REX_FANOUT_URL") or "http://127.0.0.1:8099"
    )
    parser.add_argument("--model", action="append", metavar="ID", help="a model id of Rex")
    parser.add_argument("--deadline-s", type=_whole, default=120)
    parser.add_argument("--max-tokens", type=_whole, help="the most each answer may have")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    report = asyncio.run(
        smoke(
            options.url,
            options.model or DEFAULT_MODELS,
            options.deadline_s,
            options.max_tokens,
        )
    )
    if options.json:
        print(json.dumps(asdict(report) | {"exit_code": report.exit_code}, ensure_ascii=False))
    else:
        print(told(report))
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
