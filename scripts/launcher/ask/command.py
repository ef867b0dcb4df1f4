"""``./rex ask``: ask the Rex that runs here, or start one for this question."""

import argparse
import asyncio
import json
import signal
import sys
from typing import Any

import httpx

from launcher.ask.client import Client, Patience, Unavailable
from launcher.ask.options import body_of, display_of, question_of
from launcher.ask.outcome import INTERRUPTED, exit_code, summary
from launcher.ask.panel import Screen, safe, screen_for
from launcher.ask.view import MissingText, RunView, apply, is_new
from launcher.failure import Failed
from launcher.layout import Layout
from launcher.run_record import running
from launcher.stack import Address, running_stack
from launcher.supervise import raise_on_signals
from launcher.weights import DEFAULT_MODEL


def ask(layout: Layout, options: argparse.Namespace) -> int:
    """The exit code (see ``outcome``). Only the answer, or the JSON asked for, goes to stdout."""
    question = question_of(options)
    record = running(layout)
    if record is not None:
        return asyncio.run(_ask(layout, record.url, options, question, stays=True))
    raise_on_signals()
    with running_stack(layout, Address(port=0), DEFAULT_MODEL) as embedded:
        url = embedded.record.url
        return asyncio.run(_ask(layout, url, options, question, stays=False))


async def _ask(
    layout: Layout, url: str, options: argparse.Namespace, question: str, *, stays: bool
) -> int:
    """``stays``: whether the pages can still be opened after this command."""
    try:
        key = layout.api_key.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise Failed(
            f"There is no API key in {layout.api_key}.", advice="Start ./rex up."
        ) from None
    async with Client(url, key) as client:
        accepted = await client.start(body_of(options, question))
        page = url + accepted["url"] if stays else ""
        with screen_for(display_of(options)) as screen:
            following = _Following(client, accepted, screen, page, ndjson=options.ndjson)
            if not await following.to_the_end():
                return INTERRUPTED
        run = await client.run(accepted["api_url"])
        _print_result(run, options)
        if display_of(options) != "none":
            print(summary(run, page), file=sys.stderr)
            if run["message"]:
                print(safe(run["message"]), file=sys.stderr)
        return exit_code(run["status"], run["reason"] or "")


def _print_result(run: dict[str, Any], options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps(run, ensure_ascii=False))
    elif not options.ndjson and run["answer"] is not None:
        # A file or a pipe gets the answer as it is; a terminal must not be steered by it.
        print(safe(run["answer"]) if sys.stdout.isatty() else run["answer"])


class _Following:
    """One run followed to its end: folds, shows, reconnects, and answers Ctrl-C."""

    def __init__(
        self, client: Client, accepted: dict[str, Any], screen: Screen, page: str, *, ndjson: bool
    ) -> None:
        self._client = client
        self._accepted = accepted
        self._screen = screen
        self._page = page
        self._ndjson = ndjson
        self._view = RunView()
        self._interrupts = 0
        self._stopping: asyncio.Task[None] | None = None

    async def to_the_end(self) -> bool:
        """True when the run has ended; False when a second Ctrl-C left it."""
        loop = asyncio.get_running_loop()
        following = asyncio.ensure_future(self._follow())
        loop.add_signal_handler(signal.SIGINT, self._interrupt, following)
        try:
            await following
        except asyncio.CancelledError:
            if self._interrupts < 2:
                raise
            self._screen.note(f"Left; the run goes on: {self._page}" if self._page else "Left.")
            return False
        finally:
            loop.remove_signal_handler(signal.SIGINT)
        return True

    def _interrupt(self, following: "asyncio.Future[None]") -> None:
        self._interrupts += 1
        if self._interrupts > 1:
            following.cancel()
            return
        self._screen.note("Stopping the run; Ctrl-C again leaves at once.")
        self._stopping = asyncio.ensure_future(self._stop())

    async def _stop(self) -> None:
        try:
            await self._client.stop(self._accepted["api_url"])
        except httpx.TransportError:
            self._interrupts = 0
            self._screen.note("The stop did not get through; press Ctrl-C again.")
        except Failed as refused:
            self._screen.note(f"The stop was refused: {safe(refused.what)} Ctrl-C again leaves.")

    async def _follow(self) -> None:
        patience = Patience()
        while True:
            before, error = self._view, None
            try:
                if await self._read():
                    return
            except (httpx.TransportError, MissingText, Unavailable) as lost:
                error = lost
            if self._view is not before:
                patience.progress()
            await patience.wait(error)

    async def _read(self) -> bool:
        """Whether the run has ended; False when the stream was cut before."""
        async for event in self._client.events(self._accepted["events_url"], self._view):
            fresh = is_new(self._view, event)
            self._view = apply(self._view, event)
            if not fresh:
                continue
            if self._ndjson:
                print(json.dumps(event, ensure_ascii=False), flush=True)
            self._screen.update(self._view, event)
            if self._view.ended:
                return True
        return False
