"""Tallies: the running statistics of the events of a window, or of a step of one, in some words of a row.

A tally keeps only what the use case asks for; its shape says where each part lies (`terms.COUNT` to `terms.SHARED`, -1:
not kept). Parts are float64. Numbers are taken in by Welford's update (`statistics.update`), and two tallies are merged
as Chan, Golub and LeVeque do: "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelstream.base.compiled import compiled_in_place
from modelstream.features.terms import COUNT, FIRST, LAST, M2, MAX, MEAN, MIN, MORE, SHARED, SIZE, SUM

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


@compiled_in_place
def update(words: Float64s, at: int, shape: Int64s, x: float, shared: bool) -> None:
    """Take the number `x` into the tally that begins at `words[at]`; `shared`: it counts for the share.

    >>> from modelstream.features.plan import shape_of
    >>> words, shape = np.zeros(4), shape_of(("count", "mean", "max"))
    >>> update(words, 1, shape, -2.0, False)
    >>> update(words, 1, shape, -4.0, False)
    >>> words.tolist()
    [0.0, 2.0, -3.0, -2.0]
    """
    count = words[at + shape[COUNT]] + 1.0
    words[at + shape[COUNT]] = count
    if shape[SUM] >= 0:
        words[at + shape[SUM]] += x
    if shape[MEAN] >= 0:
        mean = words[at + shape[MEAN]]
        difference = x - mean
        mean += difference / count
        words[at + shape[MEAN]] = mean
        if shape[M2] >= 0:
            words[at + shape[M2]] += difference * (x - mean)
    if shape[MORE]:
        first = count == 1.0
        if shape[MIN] >= 0 and (first or x < words[at + shape[MIN]]):
            words[at + shape[MIN]] = x
        if shape[MAX] >= 0 and (first or x > words[at + shape[MAX]]):
            words[at + shape[MAX]] = x
        if shape[FIRST] >= 0 and first:
            words[at + shape[FIRST]] = x
        if shape[LAST] >= 0:
            words[at + shape[LAST]] = x
        if shape[SHARED] >= 0 and shared:
            words[at + shape[SHARED]] += 1.0


@compiled_in_place
def merge_more(older: Float64s, at: int, newer: Float64s, newer_at: int, shape: Int64s, empty: bool) -> None:
    """Merge what a tally keeps besides count, sum, mean and m2, in place; `empty`: the older one is of nothing.

    `merge` uses it, and has an example.
    """
    if shape[MIN] >= 0 and (empty or newer[newer_at + shape[MIN]] < older[at + shape[MIN]]):
        older[at + shape[MIN]] = newer[newer_at + shape[MIN]]
    if shape[MAX] >= 0 and (empty or newer[newer_at + shape[MAX]] > older[at + shape[MAX]]):
        older[at + shape[MAX]] = newer[newer_at + shape[MAX]]
    if shape[FIRST] >= 0 and empty:
        older[at + shape[FIRST]] = newer[newer_at + shape[FIRST]]
    if shape[LAST] >= 0:
        older[at + shape[LAST]] = newer[newer_at + shape[LAST]]
    if shape[SHARED] >= 0:
        older[at + shape[SHARED]] += newer[newer_at + shape[SHARED]]


@compiled_in_place
def merge(older: Float64s, at: int, newer: Float64s, newer_at: int, shape: Int64s) -> None:
    """Merge the tally at `newer[newer_at]` into the one at `older[at]`, in place.

    >>> from modelstream.features.plan import shape_of
    >>> older, newer = np.array([2.0, 3.0, 2.0]), np.array([1.0, 9.0, 0.0])
    >>> merge(older, 0, newer, 0, shape_of(("count", "mean", "m2")))
    >>> older.tolist()
    [3.0, 5.0, 26.0]
    """
    b = newer[newer_at + shape[COUNT]]
    if b == 0.0:
        return
    a = older[at + shape[COUNT]]
    if a == 0.0:
        for part in range(shape[SIZE]):
            older[at + part] = newer[newer_at + part]
        return
    n = a + b
    older[at + shape[COUNT]] = n
    if shape[SUM] >= 0:
        older[at + shape[SUM]] += newer[newer_at + shape[SUM]]
    if shape[MEAN] >= 0:
        mean = older[at + shape[MEAN]]
        d = newer[newer_at + shape[MEAN]] - mean
        older[at + shape[MEAN]] = mean + d * (b / n)
        if shape[M2] >= 0:
            older[at + shape[M2]] = older[at + shape[M2]] + newer[newer_at + shape[M2]] + d * d * (a * b / n)
    if shape[MORE]:
        merge_more(older, at, newer, newer_at, shape, False)


@compiled_in_place
def clear(words: Float64s, at: int, shape: Int64s) -> None:
    """Make the tally at `words[at]` one of nothing.

    `merge` has an example of a tally; `windows.roll` clears that of a step that is over.
    """
    for part in range(shape[SIZE]):
        words[at + part] = 0.0


@compiled_in_place
def variance(words: Float64s, at: int, shape: Int64s) -> float:
    """Return the variance of a sample (divided by count - 1), 0 of fewer than two numbers.

    >>> from modelstream.features.plan import shape_of
    >>> variance(np.array([2.0, 3.0, 2.0]), 0, shape_of(("count", "mean", "m2")))
    2.0
    """
    return float(words[at + shape[M2]] / (max(2.0, words[at + shape[COUNT]]) - 1.0))
