"""Running statistics of numbers, kept in an array: one pass, one update per number, numerically stable.

A set of statistics is four float64: sum, mean, count, and m2, the sum of squared differences from the mean
(columns SUM, MEAN, COUNT, M2). The update is B. P. Welford's: "Note on a method for calculating corrected
sums of squares and products", Technometrics 4 (1962). The functions are compiled; `modelstream.features.kernel` calls
them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelstream.base.compiled import compiled_in_place

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

SUM, MEAN, COUNT, M2 = range(4)
VAR = M2
"""The variance; it is computed from `m2`, so it has the index of that column."""

STATISTICS = {"sum": SUM, "mean": MEAN, "count": COUNT, "var": VAR}
"""The statistics that a use case can ask for, by name."""


@compiled_in_place
def update(statistics: Float64s, x: float) -> None:
    """Take the number `x` into `statistics`, float64[4], in place.

    >>> statistics = np.zeros(4)
    >>> update(statistics, 2.0)
    >>> update(statistics, 4.0)
    >>> statistics.tolist()
    [6.0, 3.0, 2.0, 2.0]
    """
    statistics[SUM] += x
    statistics[COUNT] += 1.0
    difference = x - statistics[MEAN]
    statistics[MEAN] += difference / statistics[COUNT]
    statistics[M2] += difference * (x - statistics[MEAN])


@compiled_in_place
def update_many(statistics: Float64s, sets: Int64s, xs: Float64s) -> None:
    """Take `xs`, float64[n], in order into rows `sets`, int64[n], of `statistics`, float64[m, 4], in place.

    Gives the same bits as `update` called for each.

    >>> statistics = np.zeros((2, 4))
    >>> update_many(statistics, np.array([0, 1, 0]), np.array([2.0, 7.0, 4.0]))
    >>> statistics.tolist()
    [[6.0, 3.0, 2.0, 2.0], [7.0, 7.0, 1.0, 0.0]]
    """
    for i in range(len(xs)):
        update(statistics[sets[i]], xs[i])


@compiled_in_place
def get(statistics: Float64s, statistic: int) -> float:
    """Return one statistic, such as VAR, of `statistics`, float64[4].

    The variance is that of a sample (divided by count - 1), and 0 of fewer than two numbers.

    >>> get(np.array([6.0, 3.0, 2.0, 2.0]), VAR)
    2.0
    """
    if statistic == VAR:
        return float(statistics[M2] / (max(2.0, statistics[COUNT]) - 1.0))
    return float(statistics[statistic])


def get_many(statistics: Float64s, statistic: int) -> Float64s:
    """Return one statistic, float64[m], of the rows of `statistics`, float64[m, 4]: the same bits as `get`.

    >>> get_many(np.array([[6.0, 3.0, 2.0, 2.0], [7.0, 7.0, 1.0, 0.0]]), VAR).tolist()
    [2.0, 0.0]
    """
    if statistic == VAR:
        result: Float64s = statistics[:, M2] / (np.maximum(2.0, statistics[:, COUNT]) - 1.0)
        return result
    return statistics[:, statistic]
