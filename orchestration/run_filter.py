"""Which runs, and what of them: the filter that the list of runs, the usage page and CSV share.

A filter speaks of runs (when, which pipeline, who) and of their *parts*: calls to the models that
were asked, and drafts, which are calls to the synthesizer. A run is listed when one of its parts is
what is asked for, and then counts with those parts alone: of the runs that asked a model, what that
model used. So a number on the usage page is the sum of the list it links to.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import date
from typing import Any, Final
from urllib.parse import urlencode

from django.db.models import Exists, OuterRef, Q, QuerySet

from orchestration.domain.run import CallState, RunStatus
from orchestration.domain.spans import (
    DEFAULT_PERIOD,
    MOST_DAYS,
    PERIODS,
    Span,
    begin_of,
    end_of,
    span_of,
)
from orchestration.models import Call, Run, Synthesis
from workspaces.models import Workspace

ANSWERS: Final = "answers"
SYNTHESIS: Final = "synthesis"

_DAY = re.compile(r"2\d{3}-\d\d-\d\d\Z")
_MOST_CHARS = 200


class BadFilter(ValueError):
    """A parameter that cannot be used: its ``name``, and a sentence for whoever sent it."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name, self.message = name, message


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Empty fields ask for nothing. ``since`` and ``until`` are days in the workspace's time zone,
    both within.

    Of runs: ``pipeline``, ``member`` (who started it), ``status``. Of parts: ``model`` (an id, or
    ``provider/*``), ``part`` (``answers`` or ``synthesis``), ``state`` of a call, ``cached``.
    ``reason`` is an error kind, of the run or of a part.
    """

    since: date | None = None
    until: date | None = None
    model: str = ""
    part: str = ""
    pipeline: str = ""
    member: str = ""
    status: str = ""
    reason: str = ""
    state: str = ""
    cached: bool = False

    @property
    def params(self) -> dict[str, str]:
        """The parameters of an address, as ``read_filter`` takes them."""
        return {
            parameter_of(each.name): "1" if value is True else str(value)
            for each in fields(self)
            if (value := getattr(self, each.name))
        }

    @property
    def query(self) -> str:
        return self.query_of(self.params)

    @staticmethod
    def query_of(params: Mapping[str, str]) -> str:
        return urlencode(params, safe="/*:")

    def but(self, **changes: Any) -> "RunFilter":
        return replace(self, **changes)

    def without(self, parameter: str) -> "RunFilter":
        """This filter with one of its parameters taken off."""
        name = _FIELDS[parameter]
        return replace(self, **{name: getattr(RunFilter(), name)})

    @property
    def asks_for_parts(self) -> bool:
        return bool(self.model or self.part or self.state or self.cached or self.reason)


def parameter_of(field: str) -> str:
    """The parameter that sets a field of RunFilter: ``since`` is called ``from`` in an address."""
    return {"since": "from", "until": "to"}.get(field, field)


_FIELDS: Final = {parameter_of(each.name): each.name for each in fields(RunFilter)}
PARAMETERS: Final = tuple(_FIELDS)


def read_filter(params: Mapping[str, str], names: Iterable[str] = PARAMETERS) -> RunFilter:
    """The filter that ``params`` say; empty ones are as good as absent, others than ``names`` are
    not looked at. Raises BadFilter."""
    given = {name: params[name] for name in names if params.get(name)}
    return RunFilter(**{_FIELDS[name]: _READERS[name](name, text) for name, text in given.items()})


def read_what_can_be_read(
    params: Mapping[str, str], names: Iterable[str] = PARAMETERS
) -> tuple[RunFilter, list[BadFilter]]:
    """For pages: the filter without what cannot be used, and what that was."""
    found, wrong = RunFilter(), []
    for name in names:
        try:
            found = replace(
                found, **{_FIELDS[name]: getattr(read_filter(params, [name]), _FIELDS[name])}
            )
        except BadFilter as bad:
            wrong.append(bad)
    return found, wrong


def read_span(params: Mapping[str, str], today: date) -> Span:
    """The days that ``period``, or ``from`` and ``to``, say: the last seven where they say nothing.
    Without ``to`` it ends today; without ``from`` it is seven days. Raises BadFilter."""
    wanted = read_filter(params, ("from", "to"))
    if wanted.since or wanted.until:
        last = wanted.until or today
        span = Span(wanted.since or span_of(DEFAULT_PERIOD, last).first, last)
        if not len(span):
            raise BadFilter("from", "from takes a day that is not after to.")
        if len(span) > MOST_DAYS:
            raise BadFilter("from", f"from and to take at most {MOST_DAYS} days.")
        return span
    period = params.get("period") or DEFAULT_PERIOD
    if period not in PERIODS:
        raise BadFilter("period", f"period takes one of: {', '.join(PERIODS)}.")
    return span_of(period, today)


def _day(name: str, text: str) -> date:
    # Years of four digits that begin with 2: those at the ends of time have no neighbours.
    if _DAY.match(text):
        try:
            return date.fromisoformat(text)
        except ValueError:
            pass
    raise BadFilter(name, f"{name} takes a day, such as 2026-11-23.")


def _text(name: str, text: str) -> str:
    if len(text) > _MOST_CHARS or "\x00" in text:
        raise BadFilter(name, f"{name} takes at most {_MOST_CHARS} characters, and no NUL.")
    return text


def _one_of(*known: str) -> Callable[[str, str], str]:
    def read(name: str, text: str) -> str:
        if text not in known:
            raise BadFilter(name, f"{name} takes one of: {', '.join(known)}.")
        return text

    return read


def _true(name: str, text: str) -> bool:
    if text != "1":
        raise BadFilter(name, f"{name} takes 1, or is left out.")
    return True


_READERS: Final[Mapping[str, Callable[[str, str], Any]]] = {
    "from": _day,
    "to": _day,
    "model": _text,
    "part": _one_of(ANSWERS, SYNTHESIS),
    "pipeline": _text,
    "member": _text,
    "status": _one_of(*RunStatus),
    "reason": _text,
    "state": _one_of(*CallState),
    "cached": _true,
}


def runs_of(workspace: Workspace, wanted: RunFilter) -> QuerySet[Run]:
    """The runs with a part that is wanted; for ``reason`` also those that ended for it."""
    rows = Run.objects.in_workspace(workspace).filter(_of_runs(workspace, wanted))
    if not wanted.asks_for_parts:
        return rows
    found = _has_part(wanted)
    if wanted.reason:
        ended = Q(reason=wanted.reason)
        rest = wanted.but(reason="")
        found |= ended & _has_part(rest) if rest.asks_for_parts else ended
    return rows.filter(found)


def calls_of(workspace: Workspace, wanted: RunFilter) -> QuerySet[Call]:
    """The calls to models that are wanted."""
    rows = Call.objects.filter(run__workspace=workspace)
    return wanted_calls(rows.filter(_of_runs(workspace, wanted, "run__")), wanted)


def drafts_of(workspace: Workspace, wanted: RunFilter) -> QuerySet[Synthesis]:
    """The calls to synthesizers that are wanted."""
    rows = Synthesis.objects.filter(run__workspace=workspace)
    return wanted_drafts(rows.filter(_of_runs(workspace, wanted, "run__")), wanted)


def wanted_calls(calls: QuerySet[Call], wanted: RunFilter) -> QuerySet[Call]:
    """Those of ``calls`` that are as is asked of parts. For calls of runs that are known to be
    wanted: asked of the runs once more, a database may start from all of them."""
    rows = calls.filter(_of_parts(wanted))
    if wanted.part == SYNTHESIS:
        return rows.none()
    if wanted.state:
        rows = rows.filter(state=wanted.state)
    return rows.filter(state=CallState.CACHED) if wanted.cached else rows


def wanted_drafts(drafts: QuerySet[Synthesis], wanted: RunFilter) -> QuerySet[Synthesis]:
    """The same of drafts, which are never cached and have no state of a call."""
    rows = drafts.filter(_of_parts(wanted))
    return rows.none() if wanted.part == ANSWERS or wanted.state or wanted.cached else rows


def _has_part(wanted: RunFilter) -> Q:
    calls = wanted_calls(Call.objects.filter(run=OuterRef("pk")), wanted)
    drafts = wanted_drafts(Synthesis.objects.filter(run=OuterRef("pk")), wanted)
    return Q(Exists(calls)) | Q(Exists(drafts))


def _of_runs(workspace: Workspace, wanted: RunFilter, prefix: str = "") -> Q:
    zone = workspace.time_zone
    conditions: dict[str, Any] = {}
    if wanted.since:
        conditions["created_at__gte"] = begin_of(wanted.since, zone)
    if wanted.until:
        conditions["created_at__lt"] = end_of(wanted.until, zone)
    if wanted.pipeline:
        conditions["pipeline"] = wanted.pipeline
    if wanted.member:
        conditions["started_by"] = wanted.member
    if wanted.status:
        conditions["status"] = wanted.status
    return Q(**{f"{prefix}{name}": value for name, value in conditions.items()})


def _of_parts(wanted: RunFilter) -> Q:
    conditions = {}
    if wanted.model.endswith("/*"):
        conditions["model__startswith"] = wanted.model[:-1]
    elif wanted.model:
        conditions["model"] = wanted.model
    if wanted.reason:
        conditions["reason"] = wanted.reason
    return Q(**conditions)
