"""Windows: which times lie in one, and the steps of a sliding one.

A sliding window has a tally for its open step, which holds the user's clock, and a ring of tallies for the closed ones,
with a bit for each that is not empty: bit a for the step that lies a steps back. Its value is the left fold of the
closed steps, oldest first, and of the open one. Nothing is ever subtracted, so it depends on nothing but the events. The
fold of the closed steps is kept in memory until one of them drops out or takes a late event.
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
    COUNT,
    CURRENT,
    FOLD,
    FOLDED,
    FROM,
    HELD,
    KEPT,
    KIND,
    LENGTH,
    NEVER,
    OPEN,
    OPENED,
    RING,
    SIZE,
    SLIDING,
    STEPS,
)

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

_clear = tallies.clear
_merge = tallies.merge


@compiled_in_place
def bounds(window: Int64s, row: Int64s) -> tuple[int, int]:
    """Return the first and the last time that lie in a window (a row of `Plan.windows`) of a user.

    The clock of the user is not before any event, so that only a window that is closed has a last time.

    `kernel.apply` has an example.
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

    `kernel.apply` has an example.
    """
    opened, n = window[OPEN], window[STEPS]
    filled = floats[opened + window[COUNT]] > 0.0
    held = row[window[HELD]]
    if filled:
        held |= 1
    if held == 0:
        return
    if steps >= n:
        row[window[HELD]] = 0
        row[window[FOLDED]] = 0
        if filled:
            _clear(floats, opened, window)
        return
    row[window[HELD]] = (held << steps) & window[KEPT]
    if (held >> (n - steps)) != 0:
        row[window[FOLDED]] = 0
    if filled:
        if row[window[FOLDED]]:
            _merge(floats, window[FOLD], floats, opened, window)
        ring = window[RING] + (before % (n - 1)) * window[SIZE]
        for part in range(window[SIZE]):
            floats[ring + part] = floats[opened + part]
            floats[opened + part] = 0.0


@compiled_in_place
def tally_of(window: Int64s, row: Int64s, floats: Float64s, time: int) -> int:
    """Return the word of the tally that takes an event whose time lies in a window.

    `kernel.apply` has an example.
    """
    if window[KIND] != SLIDING:
        return window[OPEN]
    current, length = row[window[CURRENT]], window[LENGTH]
    if time >= current * length:
        return window[OPEN]
    step = time // length
    ring = window[RING] + (step % (window[STEPS] - 1)) * window[SIZE]
    bit = np.int64(1) << (current - step)
    if (row[window[HELD]] & bit) == 0:
        row[window[HELD]] |= bit
        _clear(floats, ring, window)
    row[window[FOLDED]] = 0
    return ring


@compiled_in_place
def fold(window: Int64s, row: Int64s, floats: Float64s) -> None:
    """Bring the fold of the closed steps of a sliding window up to date, oldest first.

    `kernel.apply` has an example.
    """
    if row[window[FOLDED]]:
        return
    row[window[FOLDED]] = 1
    _clear(floats, window[FOLD], window)
    held = row[window[HELD]]
    if held == 0:
        return
    n, current = window[STEPS], row[window[CURRENT]]
    for age in range(n - 1, 0, -1):
        if (held >> age) & 1:
            ring = window[RING] + ((current - age) % (n - 1)) * window[SIZE]
            _merge(floats, window[FOLD], floats, ring, window)
