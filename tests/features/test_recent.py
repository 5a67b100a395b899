"""Rings hold the last, tables the latest; what is older gives way."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstream.features import recent
from modelstream.features.terms import IDS
from tests.vocabulary_oracle import enter


@settings(deadline=None)  # the first call compiles
@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 6), st.integers(-9, 9)), max_size=40))
def test_a_table_is_the_oracles(capacity: int, entries: list[tuple[int, int]]) -> None:
    row, table = np.zeros(2 + 2 * capacity, np.int64), []  # type: ignore[var-annotated]
    for value, time in entries:
        recent.remember_distinct(row, 1, capacity, value, time)
        enter(table, value, time, capacity)
        used = int(row[1])
        times = row[2 + capacity : 2 + capacity + used].tolist()
        assert [[*pair] for pair in zip(row[2 : 2 + used].tolist(), times, strict=True)] == table
        within = [known for known, when in table if -3 <= when <= 5]
        assert recent.distinct(row, 1, capacity, -3, 5) == len(within)
        assert [recent.unseen(row, 1, capacity, x, -3, 5) for x in range(7)] == [x not in within for x in range(7)]
    assert row[0] == 0


def test_the_last_ids_are_remembered_and_no_more() -> None:
    row = np.zeros(2 + IDS, np.int64)
    assert not recent.has_id(row, 1, 0)
    for id_ in range(100):
        recent.remember_id(row, 1, id_)
    assert [id_ for id_ in range(100) if recent.has_id(row, 1, id_)] == list(range(100 - IDS, 100))


def test_values_come_back_newest_first() -> None:
    row = np.zeros(4, np.int64)
    for x in range(5):
        recent.remember_value(row, row.view(np.float64), 0, 3, float(x))
    assert [recent.value_back(row, row.view(np.float64), 0, 3, back, -1.0) for back in range(3)] == [4.0, 3.0, 2.0]
