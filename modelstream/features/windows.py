"""Windows: which times lie in one, and the steps of a sliding one.

A sliding window has a tally for its open step, which holds the user's clock, and a ring of tallies for the closed ones,
with a bit for each that is not empty, the oldest that can be held is bit 0. Its value is the left fold of the
closed steps, oldest first, and of the open one. Nothing is ever subtracted, so it depends on nothing but the events.
The fold of the closed steps is kept in memory until one of them drops out or takes a late event.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelstream.base.compiled import compiled_in_place
from modelstream.features import tallies
from modelstream.features.terms import (
    ALL_TIME,
    ALWAYS,
    BEFORE,
    BIT_FACTOR,
    COUNT,
    CURRENT,
    FOLD,
    FOLDED,
    FROM,
    HELD,
    KIND,
    LENGTH,
    M2,
    MEAN,
    MORE,
    NEVER,
    OPEN,
    OPENED,
    RING,
    SIZE,
    SLIDING,
    STEPS,
    SUM,
)

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

_clear = tallies.clear
_merge = tallies.merge
_merge_more = tallies.merge_more


@compiled_in_place
def bounds(window: Int64s, row: Int64s) -> tuple[int, int]:
    """Return the first and the last time that lie in a window (a row of `Plan.windows`) of a user.

    The clock of the user is not before any event, so that only a window that is closed has a last time.

    Every statistic of `tests/features/test_vocabulary.py` is an example.
    """
    kind = window[KIND]
    if kind == ALL_TIME:
        return NEVER, ALWAYS
    if kind == SLIDING:
        return (row[window[CURRENT]] - window[STEPS] + 1) * window[LENGTH], ALWAYS
    opened = row[window[OPENED]]
    if opened == NEVER:
        return 1, 0
    if kind == FROM:
        return NEVER if window[BEFORE] else opened, opened + window[LENGTH]
    return opened, ALWAYS


@compiled_in_place
def roll(window: Int64s, row: Int64s, floats: Float64s, before: int, steps: int) -> None:
    """Let a sliding window go on by some steps, from the step `before`.

    Every statistic of `tests/features/test_vocabulary.py` is an example.
    """
    opened, last = window[OPEN], window[STEPS] - 1
    filled, held = floats[opened + window[COUNT]] > 0.0, row[window[HELD]]
    if not filled and held == 0:
        return
    if steps > last:
        row[window[HELD]] = 0
        row[window[FOLDED]] = 0
        if filled:
            _clear(floats, opened, window)
        return
    if (held & ((np.int64(1) << steps) - 1)) != 0:  # one drops out
        row[window[FOLDED]] = 0
    held >>= steps
    if filled:
        held |= np.int64(1) << (last - steps)
        if row[window[FOLDED]]:
            _merge(floats, window[FOLD], floats, opened, window)
        ring = window[RING] + (before % last) * window[SIZE]
        for part in range(window[SIZE]):
            floats[ring + part] = floats[opened + part]
            floats[opened + part] = 0.0
    row[window[HELD]] = held


@compiled_in_place
def tally_of(window: Int64s, row: Int64s, floats: Float64s, time: int) -> int:
    """Return the word of the tally that takes an event whose time lies in a window.

    Every statistic of `tests/features/test_vocabulary.py` is an example.
    """
    if window[KIND] != SLIDING:
        return int(window[OPEN])
    current, length = row[window[CURRENT]], window[LENGTH]
    if time >= current * length:
        return int(window[OPEN])
    step, last = time // length, window[STEPS] - 1
    ring = window[RING] + (step % last) * window[SIZE]
    bit = np.int64(1) << (last - current + step)
    if (row[window[HELD]] & bit) == 0:
        row[window[HELD]] |= bit
        _clear(floats, ring, window)
    row[window[FOLDED]] = 0
    return int(ring)


@compiled_in_place
def fold(window: Int64s, row: Int64s, floats: Float64s, bits: Int64s) -> None:
    """Bring the fold of the closed steps of a sliding window up to date, oldest first; `bits` is `terms.BITS`.

    Every statistic of `tests/features/test_vocabulary.py` is an example.
    """
    if row[window[FOLDED]]:
        return
    row[window[FOLDED]] = 1
    into = window[FOLD]
    _clear(floats, into, window)
    held = row[window[HELD]]
    if held == 0:
        return
    # The parts of most windows are kept in local variables, as memory would be read again after each division.
    last, size, count_at, sum_at, mean_at, m2_at = (
        *(window[STEPS] - 1, window[SIZE], window[COUNT]),
        *(window[SUM], window[MEAN], window[M2]),
    )
    more, count, total, mean, m2 = window[MORE], 0.0, 0.0, 0.0, 0.0
    first = row[window[CURRENT]] % last
    while held != 0:
        lowest = held & -held
        held ^= lowest
        place = first + bits[((lowest * BIT_FACTOR) >> 58) & 63]
        ring = window[RING] + (place if place < last else place - last) * size
        added = floats[ring + count_at]
        both = count + added
        if more:
            _merge_more(floats, into, floats, ring, window, count == 0.0)
        if sum_at >= 0:
            total = floats[ring + sum_at] if count == 0.0 else total + floats[ring + sum_at]
        if mean_at >= 0:
            if count == 0.0:
                mean = floats[ring + mean_at]
                m2 = floats[ring + m2_at] if m2_at >= 0 else 0.0
            else:
                d = floats[ring + mean_at] - mean
                mean = mean + d * (added / both)
                if m2_at >= 0:
                    m2 = m2 + floats[ring + m2_at] + d * d * (count * added / both)
        count = both
    floats[into + count_at] = count
    if sum_at >= 0:
        floats[into + sum_at] = total
    if mean_at >= 0:
        floats[into + mean_at] = mean
    if m2_at >= 0:
        floats[into + m2_at] = m2
