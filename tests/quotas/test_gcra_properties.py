"""Requests a minute, whatever the gaps between them, the clock and the limit's changes are."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from workspaces.domain.gcra import SLACK, Rate, judge

START = datetime(2026, 11, 23, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)

rates = st.builds(Rate, per_minute=st.integers(1, 6_000), burst=st.integers(1, 50))
# Mostly about as long as a request's spacing, where it matters; now and then a long rest.
gaps = st.one_of(
    st.just(timedelta(0)),
    st.timedeltas(timedelta(0), timedelta(seconds=2)),
    st.timedeltas(timedelta(0), timedelta(minutes=5)),
)
tats = st.none() | st.timedeltas(-timedelta(days=2), timedelta(days=2)).map(START.__add__)


def admitted(rate: Rate, moments: list[datetime], tat: datetime | None = None) -> list[datetime]:
    """Those of ``moments`` at which a request is let in."""
    let_in = []
    for now in moments:
        verdict = judge(rate, tat, now)
        if verdict.allowed:
            tat = verdict.tat
            let_in.append(now)
    return let_in


def moments_of(gaps: list[timedelta]) -> list[datetime]:
    moments = [START]
    for gap in gaps:
        moments.append(moments[-1] + gap)
    return moments


def assert_bound(rate: Rate, let_in: list[datetime]) -> None:
    """In every window between two admissions there are at most burst + rate·t."""
    for first, begin in enumerate(let_in):
        for last, end in enumerate(let_in[first:], start=first):
            most = rate.burst + rate.per_minute * ((end - begin) / MINUTE)
            assert last - first + 1 <= most


@given(rate=rates, gaps=st.lists(gaps, max_size=120), tat=tats)
def test_in_any_window_there_are_at_most_a_burst_and_what_the_rate_gives(
    rate: Rate, gaps: list[timedelta], tat: datetime | None
) -> None:
    assert_bound(rate, admitted(rate, moments_of(gaps), tat))


@given(rate=rates)
def test_a_burst_is_let_in_at_once_and_then_one_a_spacing(rate: Rate) -> None:
    at_once = admitted(rate, [START] * (rate.burst + 5))
    assert len(at_once) == rate.burst
    later = [START + rate.spacing * number for number in range(1, 6)]
    moments = [START] * rate.burst + [moment for each in later for moment in (each - TICK, each)]
    assert admitted(rate, moments) == [START] * rate.burst + later


@given(rate=rates, tat=tats)
def test_waiting_as_long_as_told_is_enough_and_no_less_is(rate: Rate, tat: datetime | None) -> None:
    verdict = judge(rate, tat, START)
    if verdict.allowed:
        assert verdict.wait == timedelta(0)
    else:
        assert judge(rate, tat, START + verdict.wait).allowed
        assert not judge(rate, tat, START + verdict.wait - TICK).allowed


@given(rate=rates, tat=tats)
def test_whatever_the_clock_did_nobody_waits_longer_than_the_slack_and_one_request(
    rate: Rate, tat: datetime | None
) -> None:
    assert judge(rate, tat, START).wait <= SLACK + rate.spacing


@given(rate=rates, gaps=st.lists(gaps, max_size=60))
def test_as_many_fit_as_are_said_to_remain(rate: Rate, gaps: list[timedelta]) -> None:
    tat: datetime | None = None
    for now in moments_of(gaps):
        verdict = judge(rate, tat, now)
        standing = judge(rate, tat, now, take=0)
        assert standing.remaining == verdict.remaining + verdict.allowed
        assert len(admitted(rate, [now] * (rate.burst + 1), tat)) == standing.remaining
        full = now + standing.full_in
        assert len(admitted(rate, [full] * (rate.burst + 1), tat)) == rate.burst
        tat = verdict.tat if verdict.allowed else tat


@given(
    rate=rates,
    steps=st.lists(
        st.tuples(gaps, st.timedeltas(-timedelta(hours=2), timedelta(hours=2)) | st.none()),
        max_size=60,
    ),
)
def test_a_clock_that_jumps_grants_a_burst_forward_and_one_request_back(
    rate: Rate, steps: list[tuple[timedelta, timedelta | None]]
) -> None:
    """``passed`` is how much time there really was, ``now`` what the clock says of it."""
    now, passed, tat = START, timedelta(0), None
    let_in, most = 0, float(rate.burst)
    for gap, jump in steps:
        passed += gap
        now += gap
        if jump is not None:
            now += jump
            most += rate.burst if jump > timedelta(0) else 1
        verdict = judge(rate, tat, now)
        if verdict.allowed:
            tat, let_in = verdict.tat, let_in + 1
        assert let_in <= most + rate.per_minute * (passed / MINUTE)


@given(
    regimes=st.lists(st.tuples(rates, st.lists(gaps, max_size=30)), min_size=2, max_size=5),
)
def test_each_limit_holds_from_the_moment_it_is_set(
    regimes: list[tuple[Rate, list[timedelta]]],
) -> None:
    now, tat = START, None
    for rate, gaps_of_regime in regimes:
        let_in = []
        for gap in gaps_of_regime:
            now += gap
            verdict = judge(rate, tat, now)
            if verdict.allowed:
                tat = verdict.tat
                let_in.append(now)
        assert_bound(rate, let_in)


@given(rate=rates, late=st.lists(st.timedeltas(timedelta(0), timedelta(seconds=5)), max_size=60))
def test_times_a_little_out_of_order_let_nothing_more_in(rate: Rate, late: list[timedelta]) -> None:
    """A statement's time is when it came; the one that gets the row first may have come later."""
    let_in = admitted(rate, [START - each for each in late])
    assert len(let_in) <= rate.burst + rate.per_minute * (timedelta(seconds=5) / MINUTE)
