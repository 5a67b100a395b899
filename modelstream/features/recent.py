"""What a row remembers of single events: the last values, the last ids, and the distinct values with their times.

Rings begin with the number of everything that was put in; a table begins with the number of its entries, then come their
hashes, then their times.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelstream.base.compiled import compiled_in_place
from modelstream.features.terms import IDS

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


@compiled_in_place
def remember_value(row: Int64s, floats: Float64s, ring: int, count: int, x: float) -> None:
    """Put a number into a ring of the last `count`; `floats` is the same memory as `row`.

    >>> row = np.zeros(3, np.int64)
    >>> for x in (1.0, 2.0, 3.0):
    ...     remember_value(row, row.view(np.float64), 0, 2, x)
    >>> value_back(row, row.view(np.float64), 0, 2, 0, -1.0), value_back(row, row.view(np.float64), 0, 2, 1, -1.0)
    (3.0, 2.0)
    """
    floats[ring + 1 + row[ring] % count] = x
    row[ring] += 1


@compiled_in_place
def value_back(row: Int64s, floats: Float64s, ring: int, count: int, back: int, otherwise: float) -> float:
    """Return the number that lies `back` (0: the newest) in a ring of the last `count`, `otherwise` if there is none.

    `remember_value` has an example.
    """
    if back >= row[ring]:
        return otherwise
    return float(floats[ring + 1 + (row[ring] - 1 - back) % count])


@compiled_in_place
def remember_id(row: Int64s, ring: int, hash_: int) -> None:
    """Put the hash of an id into the ring of the last ids.

    >>> row = np.zeros(1 + IDS, np.int64)
    >>> remember_id(row, 0, 7)
    >>> has_id(row, 0, 7), has_id(row, 0, 0)
    (True, False)
    """
    row[ring + 1 + row[ring] % IDS] = hash_
    row[ring] += 1


@compiled_in_place
def has_id(row: Int64s, ring: int, hash_: int) -> bool:
    """Tell whether an id is among the last ones.

    `remember_id` has an example.
    """
    for i in range(ring + 1, ring + 1 + min(row[ring], IDS)):
        if row[i] == hash_:
            return True
    return False


@compiled_in_place
def remember_distinct(row: Int64s, table: int, capacity: int, hash_: int, time: int) -> None:
    """Put a value into a table, with the greatest time of its events; if it is full, the oldest value gives way.

    >>> row = np.zeros(1 + 2 * 2, np.int64)
    >>> for value, time in ((70, 5), (80, 3), (70, 4), (90, 2)):  # the last is older than all
    ...     remember_distinct(row, 0, 2, value, time)
    >>> row.tolist()
    [2, 70, 80, 5, 3]
    """
    used, hashes = row[table], table + 1
    times = hashes + capacity
    for i in range(used):
        if row[hashes + i] == hash_:
            row[times + i] = max(row[times + i], time)
            return
    place = used
    if used < capacity:
        row[table] = used + 1
    else:
        place = 0
        for i in range(1, capacity):
            if row[times + i] < row[times + place]:
                place = i
        if time < row[times + place]:
            return
    row[hashes + place] = hash_
    row[times + place] = time


@compiled_in_place
def distinct(row: Int64s, table: int, capacity: int, low: int, high: int) -> float:
    """Return how many values of a table have a time from `low` to `high`.

    >>> distinct(np.array([2, 70, 80, 5, 3]), 0, 2, 4, 9)
    1.0
    """
    times, found = table + 1 + capacity, 0.0
    for i in range(times, times + row[table]):
        if low <= row[i] <= high:
            found += 1.0
    return found


@compiled_in_place
def unseen(row: Int64s, table: int, capacity: int, hash_: int, low: int, high: int) -> float:
    """Return 1 if a value is not among those of a table with a time from `low` to `high`, else 0.

    >>> row = np.array([2, 70, 80, 5, 3])
    >>> unseen(row, 0, 2, 80, 4, 9), unseen(row, 0, 2, 80, 3, 9)
    (1.0, 0.0)
    """
    hashes = table + 1
    for i in range(hashes, hashes + row[table]):
        if row[i] == hash_:
            return 0.0 if low <= row[i + capacity] <= high else 1.0
    return 1.0
