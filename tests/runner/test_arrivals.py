"""How long the oldest message waits, against the arrival time of every message."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelstream.runner import arrivals as module
from modelstream.runner.arrivals import Arrivals

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 2), st.integers(1, 5)),
        st.tuples(st.just("ack"), st.integers(0, 2), st.integers(1, 9)),
        st.tuples(st.just("look"), st.just(0), st.just(0)),
        st.tuples(st.just("pass"), st.just(0), st.integers(1, 20)),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_delay_is_that_of_the_oldest_message_within_the_time_between_two_looks(
    steps: list[tuple[str, int, int]],
) -> None:
    now = 0.0
    looks: list[float] = []
    arrived: dict[int, list[float]] = {0: [], 1: [], 2: []}
    acked = dict.fromkeys(arrived, 0)
    arrivals = Arrivals()
    for what, shard, count in [*steps, ("look", 0, 0)]:
        if what == "append":
            arrived[shard] += [now] * count
        elif what == "ack":
            acked[shard] = min(acked[shard] + count, len(arrived[shard]))
        elif what == "pass":
            now += count
        else:
            if not looks:
                arrived = {one: [now] * len(times) for one, times in arrived.items()}  # they count from here on
            found = arrivals.look(now, {one: (acked[one], len(arrived[one])) for one in arrived})
            oldest = min((time for one, times in arrived.items() for time in times[acked[one] :]), default=now)
            before = max((look for look in looks if look < oldest), default=oldest)
            assert now - oldest <= found <= now - before
            looks.append(now)


def test_a_long_backlog_takes_bounded_memory_and_its_age_is_never_too_low() -> None:
    arrivals = Arrivals()
    arrivals.look(0.0, {0: (0, 0)})
    for second in range(1, 5 * module.MOST_KEPT):
        assert arrivals.look(float(second), {0: (0, second)}) == second
        assert len(arrivals._steps[0]) <= module.MOST_KEPT + 1
    end = 5 * module.MOST_KEPT - 1
    for first in range(0, end, 100):
        assert arrivals.look(float(end), {0: (first, end)}) >= end - first - 1
    assert arrivals.look(float(end), {0: (end, end)}) == 0.0
