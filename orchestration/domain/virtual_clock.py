"""Runs without waiting: recorded answers, a policy and a modelled synthesizer on a virtual clock.

`simulate` plays recorded legs through the same `apply`/`decide` that a live run uses and returns
everything that happened, with times. `replay` feeds a recorded log to `decide` and returns the
commands it would have given: for the same policy they must be the recorded ones.
"""

import heapq
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from orchestration.domain.policies import Policy
from orchestration.domain.synthesis import (
    CallChunk,
    CallFailed,
    CallFinished,
    CallStarted,
    CancelCall,
    Command,
    Fact,
    FinishRun,
    RunStarted,
    StartSynthesis,
    State,
    SynthesisDelta,
    SynthesisFailed,
    SynthesisFinished,
    Tick,
    apply,
    consequence,
    decide,
    next_wake_s,
)

CANCEL_S = 0.02
"""From the request to cancel to the failed call."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One recorded call. Times are seconds since the run's start."""

    label: str
    chunks: tuple[tuple[float, str], ...]
    end_s: float
    failure: str | None = None
    """Error kind the call ended with; None when it finished."""

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.chunks)


@dataclass(frozen=True, slots=True)
class Written:
    """A synthesizer's output: pieces with seconds since its call, and when it ended."""

    pieces: tuple[tuple[float, str], ...]
    end_s: float
    failure: str | None = None


class Synthesizer(Protocol):
    def write(self, command: StartSynthesis, state: State) -> Written:
        """What the synthesizer answers to `command`, decided in `state`."""
        ...


@dataclass(slots=True)
class Trace:
    """What happened, in order. `log` holds every fact with its time, `issued` every command."""

    log: list[tuple[float, Fact]] = field(default_factory=list)
    issued: list[tuple[float, Command]] = field(default_factory=list)
    state: State = field(default_factory=State)


def simulate(
    policy: Policy,
    legs: Sequence[Leg],
    synthesizer: Synthesizer,
    *,
    seed: str = "virtual",
    deadline_s: float | None = None,
    others: Iterable[tuple[float, Fact]] = (),
) -> Trace:
    """Run `policy` over the legs until it finishes the run. `others` are facts from outside, a
    user's stop for instance.

    Raises RuntimeError when the policy neither finishes nor waits for anything."""
    clock = _Clock(policy, synthesizer)
    labels = tuple(leg.label for leg in legs)
    clock.at(0.0, RunStarted(labels, seed, deadline_s))
    for leg in legs:
        clock.at(0.0, CallStarted(leg.label))
        offset = 0
        for at_s, text in leg.chunks:
            clock.at(at_s, CallChunk(leg.label, text, offset))
            offset += len(text)
        end = CallFailed(leg.label, leg.failure) if leg.failure else CallFinished(leg.label)
        clock.at(leg.end_s, end)
    for at_s, fact in others:
        clock.at(at_s, fact)
    return clock.run()


def replay(policy: Policy, log: Iterable[tuple[float, Fact]]) -> list[tuple[float, Command]]:
    """Commands `policy` gives along a recorded log. The log holds the consequences of the recorded
    commands too; a command is asked for again until its consequence is in the log, so it is
    listed once, at the first time it was due."""
    state, issued = State(), []
    outstanding: list[Command] = []
    for now, fact in log:
        state = apply(state, fact, now)
        due = list(decide(policy, state, now))
        issued += [(now, command) for command in due if command not in outstanding]
        outstanding = due
    return issued


class _Clock:
    def __init__(self, policy: Policy, synthesizer: Synthesizer) -> None:
        self.policy, self.synthesizer = policy, synthesizer
        self.trace = Trace()
        self._queue: list[tuple[float, int, Fact]] = []
        self._order = itertools.count()

    def at(self, at_s: float, fact: Fact) -> None:
        heapq.heappush(self._queue, (at_s, next(self._order), fact))

    def run(self) -> Trace:
        now = 0.0
        while not self.trace.state.finished:
            wake = next_wake_s(self.policy, self.trace.state)
            if self._queue and (wake is None or self._queue[0][0] <= wake):
                at_s, _, fact = heapq.heappop(self._queue)
                now = max(now, at_s)
            elif wake is not None:
                now, fact = max(now, wake), Tick()
            else:
                raise RuntimeError(f"{self.policy.name} waits for nothing at {now} s")
            self._happen(now, fact)
            for command in decide(self.policy, self.trace.state, now):
                self.trace.issued.append((now, command))
                self._happen(now, consequence(command))
                self._execute(now, command)
        return self.trace

    def _happen(self, now: float, fact: Fact) -> None:
        self.trace.log.append((now, fact))
        self.trace.state = apply(self.trace.state, fact, now)

    def _execute(self, now: float, command: Command) -> None:
        match command:
            case StartSynthesis():
                written = self.synthesizer.write(command, self.trace.state)
                offset = 0
                for after_s, text in written.pieces:
                    self.at(now + after_s, SynthesisDelta(command.version, text, offset))
                    offset += len(text)
                self.at(now + written.end_s, _end(command.version, written))
            case CancelCall():
                self._silence(command.label)
                if command.label in self.trace.state.calls:
                    self.at(now + CANCEL_S, CallFailed(command.label, command.reason))
                else:
                    version = int(command.label.removeprefix("v"))
                    self.at(now + CANCEL_S, SynthesisFailed(version, command.reason))
            case FinishRun():
                self._queue.clear()
            case _:
                pass

    def _silence(self, stream: str) -> None:
        """Drop what a cancelled stream would still have sent."""
        self._queue = [entry for entry in self._queue if _stream(entry[2]) != stream]
        heapq.heapify(self._queue)


def _end(version: int, written: Written) -> Fact:
    if written.failure:
        return SynthesisFailed(version, written.failure)
    return SynthesisFinished(version, "".join(text for _, text in written.pieces))


def _stream(fact: Fact) -> str | None:
    match fact:
        case CallStarted() | CallChunk() | CallFinished() | CallFailed():
            return fact.label
        case SynthesisDelta() | SynthesisFinished() | SynthesisFailed():
            return f"v{fact.version}"
        case _:
            return None
