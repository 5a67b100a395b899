"""What a row remembers of single events: the last values, the last ids, and the distinct values with their times.

Rings begin with the number of everything that was put in; a table begins with the number of its entries, then come
their hashes, then their times.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelstream.base.compiled import compiled_in_place
from modelstream.features.terms import IDS

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


@compiled_in_place
def _holds(hashes: Int64s, hash_: int) -> bool:
    """Tell whether a hash is among some. All are looked at, as machines compare several at once then."""
    found = 0
    for i in range(len(hashes)):
        found |= hashes[i] == hash_
    return found != 0


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
    return _holds(row[ring + 1 : ring + 1 + min(row[ring], IDS)], hash_)


@compiled_in_place
def remember_distinct(row: Int64s, table: int, capacity: int, hash_: int, time: int) -> None:
    """Put a value into a table, with the greatest time of its events; if it is full, the oldest value gives way.

    >>> row = np.zeros(1 + 2 * 2, np.int64)
    >>> for value, time in ((70, 5), (80, 3), (70, 4), (90, 2)):  # the last is older than all
    ...     remember_distinct(row, 0, 2, value, time)
    >>> row.tolist()
    [2, 70, 80, 5, 3]
    """
    used = row[table]
    hashes, times = row[table + 1 : table + 1 + used], row[table + 1 + capacity : table + 1 + capacity + used]
    if _holds(hashes, hash_):
        for i in range(len(hashes)):
            if hashes[i] == hash_:
                times[i] = max(times[i], time)
        return
    place = used
    if used < capacity:
        row[table] = used + 1
    else:
        least = times[0]
        for i in range(len(times)):
            least = min(least, times[i])
        if time < least:
            return
        place = 0
        while times[place] != least:
            place += 1
    row[table + 1 + place] = hash_
    row[table + 1 + capacity + place] = time


@compiled_in_place
def distinct(row: Int64s, table: int, capacity: int, low: int, high: int) -> float:
    """Return how many values of a table have a time from `low` to `high`.

    >>> distinct(np.array([2, 70, 80, 5, 3]), 0, 2, 4, 9)
    1.0
    """
    first = table + 1 + capacity
    times, found = row[first : first + row[table]], 0
    for i in range(len(times)):
        found += (times[i] >= low) & (times[i] <= high)
    return float(found)


@compiled_in_place
def unseen(row: Int64s, table: int, capacity: int, hash_: int, low: int, high: int) -> float:
    """Return 1 if a value is not among those of a table with a time from `low` to `high`, else 0.

    >>> row = np.array([2, 70, 80, 5, 3])
    >>> unseen(row, 0, 2, 80, 4, 9), unseen(row, 0, 2, 80, 3, 9)
    (1.0, 0.0)
    """
    hashes = row[table + 1 : table + 1 + row[table]]
    if _holds(hashes, hash_):
        for i in range(len(hashes)):
            if hashes[i] == hash_ and low <= row[table + 1 + capacity + i] <= high:
                return 0.0
    return 1.0
