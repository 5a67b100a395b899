"""Running statistics equal the textbook's, and every way to compute them gives the same bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstream.features import statistics
from tests.oracle import Running, bits

numbers = st.floats(allow_nan=False, allow_infinity=False)
moderate = st.floats(-1e6, 1e6)


def running(xs: list[float]) -> npt.NDArray[np.float64]:
    result = np.zeros(4)
    for x in xs:
        statistics.update(result, x)
    return result


@settings(deadline=None)  # the first call compiles
@given(st.lists(numbers))
def test_statistics_equal_the_oracle_to_the_bit(xs: list[float]) -> None:
    oracle = Running()
    for x in xs:
        oracle.update(x)
    found = running(xs)
    assert bits([found]) == bits([[oracle.sum, oracle.mean, oracle.count, oracle.m2]])
    assert bits([[statistics.get(found, statistics.VAR)]]) == bits([[oracle.var]])


@settings(deadline=None)  # the first call compiles
@given(st.lists(moderate, min_size=2, max_size=50))
def test_statistics_equal_numpys(xs: list[float]) -> None:
    found = running(xs)
    assert statistics.get(found, statistics.SUM) == pytest.approx(np.sum(xs), abs=1e-6)
    assert statistics.get(found, statistics.MEAN) == pytest.approx(np.mean(xs), abs=1e-6)
    assert statistics.get(found, statistics.COUNT) == len(xs)
    assert statistics.get(found, statistics.VAR) == pytest.approx(np.var(xs, ddof=1), rel=1e-6, abs=1e-6)


def test_variance_survives_a_large_offset() -> None:
    """Where sum(x²) - n·mean² would lose every digit."""
    assert statistics.get(running([1e9 + x for x in (4.0, 7.0, 13.0, 16.0)]), statistics.VAR) == 30.0


@pytest.mark.parametrize("xs", [[], [5.0]])
def test_variance_of_fewer_than_two_numbers_is_zero(xs: list[float]) -> None:
    assert statistics.get(running(xs), statistics.VAR) == 0.0


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.tuples(st.integers(0, 3), numbers)))
def test_many_updates_give_the_bits_of_single_ones(pairs: list[tuple[int, float]]) -> None:
    one, many = np.zeros((4, 4)), np.zeros((4, 4))
    for row, x in pairs:
        statistics.update(one[row], x)
    rows, xs = np.array([row for row, _ in pairs], np.int64), np.array([x for _, x in pairs], np.float64)
    statistics.update_many(many, rows, xs)
    assert bits(many) == bits(one)


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.lists(numbers, max_size=5), max_size=5))
def test_many_readings_give_the_bits_of_single_ones(samples: list[list[float]]) -> None:
    rows = np.array([running(xs) for xs in samples]).reshape(-1, 4)
    for statistic in statistics.STATISTICS.values():
        single = [[statistics.get(row, statistic)] for row in rows]
        with np.errstate(all="ignore"):  # sums of huge numbers overflow
            assert bits(statistics.get_many(rows, statistic)[:, None]) == bits(single)
