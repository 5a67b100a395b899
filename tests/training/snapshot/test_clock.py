"""The end of the log follows its users, and no single event."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.training.snapshot.clock import TOLERANCE, LogClock, LogEnd
from modelstream.use_case.columns import INGESTED_AT, TIME
from tests.training.synthetic import USE_CASE

ARRIVED = 1_000_000_000_000
EVENTS = st.lists(
    st.tuples(st.integers(0, 400), st.integers(ARRIVED - 10**9, ARRIVED + 10**9), st.integers(0, 10**9)), max_size=80
)
"""A user, an event time, and how long after a moment the event arrived."""


def batch(events: list[tuple[int, int, int]]) -> pa.RecordBatch:
    columns = {USE_CASE.key: pa.array([f"u{user}" for user, _, _ in events], pa.string())}
    times, arrivals = [time for _, time, _ in events], [ARRIVED + delay for _, _, delay in events]
    columns |= {USE_CASE.time: pa.array(times, pa.int64()).cast(TIME)}
    return pa.record_batch(columns | {INGESTED_AT: pa.array(arrivals, pa.int64()).cast(TIME)})


def end_of(*batches: list[tuple[int, int, int]]) -> LogEnd:
    clock = LogClock(USE_CASE)
    for events in batches:
        clock.add(batch(events))
    return clock.end()


@given(EVENTS, st.integers(0, 80))
def test_end_is_the_oracles_however_the_log_is_cut(events: list[tuple[int, int, int]], cut: int) -> None:
    future = [time > ARRIVED + delay + TOLERANCE for _, time, delay in events]
    simulated = sum(future) * 2 > len(events)
    counted = [event for event, late in zip(events, future, strict=True) if simulated or not late]
    users = {user: max(time for one, time, _ in counted if one == user) for user, _, _ in counted}
    latest = sorted(users.values())
    ahead = max(1, len(latest) // 100)
    time = latest[-1 - ahead] if len(latest) > ahead else latest[0] if latest else 0
    expected = LogEnd(time, latest[-1] if latest else 0, len(events), sum(future), simulated)
    assert end_of(events[:cut], events[cut:]) == end_of(events) == expected


@given(EVENTS.filter(lambda events: len({user for user, _, _ in events}) > 2), st.integers(0, 2**50))
def test_events_of_one_user_move_the_end_no_further_than_another_user_has_come(
    events: list[tuple[int, int, int]], time: int
) -> None:
    before = end_of(events)
    after = end_of(events, [(999, time, 0)])
    if after.simulated == before.simulated:
        assert after.time <= max(before.latest, 0)


@pytest.mark.parametrize(("ahead", "counts"), [(TOLERANCE, True), (TOLERANCE + 1, False)])
def test_clock_that_is_a_little_fast_is_believed(ahead: int, counts: bool) -> None:
    events = [(user, ARRIVED - 10, 0) for user in range(5)] + [(7, ARRIVED + ahead, 0), (8, ARRIVED + ahead, 0)]
    found = end_of(events)
    assert (found.time == ARRIVED + ahead, found.future) == (counts, 0 if counts else 2)
