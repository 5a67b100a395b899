"""The identity of an event (origin and position), its bucket and shard, and the watermarks that make it count once.

Every event has an *origin* (the input that it came from) and a *position* that rises within the origin.
A consumer keeps, per origin and bucket, the highest position that it has applied: its *watermark*. A row at
or below its watermark was seen before and is dropped, so delivery may repeat a message at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from modelstream.use_case.columns import POSITION

BUCKETS = 64
"""Buckets of keys. A shard holds whole buckets, so 64 is also the largest number of shards."""

_FEW = 16
"""So many keys are hashed sooner one by one than after looking for distinct ones."""

MAX_EVENTS_A_MESSAGE = (1 << 14) - 1
"""Events in one message: their index takes 14 bits of a stream position."""

MAX_POSITION = (1 << 53) - 1
"""Every store compares positions up to this one exactly."""

MAX_OFFSET = (1 << 34) - 1
MAX_EPOCH = 31

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def bucket_of(key: str) -> int:
    """Return the bucket of a key, 0 to 63: XXH64 of its UTF-8 text, seed 0, modulo 64.

    The empty key (a line in which no key can be found) is in bucket 0.

    >>> bucket_of("u1"), bucket_of("")
    (63, 0)
    """
    return xxhash.xxh64_intdigest(key.encode("utf-8", "surrogatepass")) % BUCKETS if key else 0


def buckets_of(keys: pa.Array) -> npt.NDArray[np.uint8]:
    """Return the bucket of each key (uint8, same length); a null key is in bucket 0. Hashes each distinct key once.

    >>> buckets_of(pa.array(["u1", None, "u1"])).tolist()
    [63, 0, 63]
    """
    if len(keys) <= _FEW:
        return np.array([bucket_of(key) if key else 0 for key in keys.to_pylist()], np.uint8)
    encoded = keys.dictionary_encode()
    of_distinct = np.fromiter((bucket_of(key) for key in encoded.dictionary.to_pylist()), np.uint8)
    if encoded.null_count == 0:
        codes = encoded.indices.to_numpy()
    else:
        codes = encoded.indices.fill_null(len(of_distinct)).to_numpy()
        of_distinct = np.append(of_distinct, np.uint8(0))
    buckets: npt.NDArray[np.uint8] = of_distinct[codes]
    return buckets


def positions_of(batch: pa.RecordBatch) -> Int64s:
    """Return the positions of a batch's rows in their origin (int64, same length), without copying them.

    >>> positions_of(pa.record_batch({"position": [7, 9]})).tolist()
    [7, 9]
    """
    positions: Int64s = batch.column(POSITION).to_numpy()
    return positions


def stream_position(epoch: int, offset: int, index: int = 0) -> int:
    """Return the position of the event `index` in the message at `offset`: below 2^53, exact in every store.

    >>> stream_position(1, 0) == 1 << 48, stream_position(0, 2, 3) == 2 * 16384 + 3
    (True, True)
    """
    if not (0 <= epoch <= MAX_EPOCH and 0 <= offset <= MAX_OFFSET and 0 <= index <= MAX_EVENTS_A_MESSAGE):
        raise ValueError(f"no position for epoch {epoch}, offset {offset}, index {index}")
    return epoch << 48 | offset << 14 | index


def stream_positions(epoch: int, offsets: Int64s, indices: Int64s) -> Int64s:
    """Return `stream_position` of many events (int64, same length).

    >>> stream_positions(0, np.array([2, 2]), np.array([3, 4])) - stream_position(0, 2)
    array([3, 4])
    """
    if len(offsets):
        stream_position(epoch, int(offsets.max()), int(indices.max()))  # it raises ValueError
    return (epoch << 48) + (offsets << 14) + indices


def stream_origin(stream: str, shard: int) -> str:
    """Return the origin of events that came into a shard of a stream without an identity of their own.

    >>> stream_origin("generated", 3)
    'generated/3'
    """
    return f"{stream}/{shard}"


class Watermarks:
    """The highest position applied, per origin and bucket (-1: none yet).

    >>> marks = Watermarks()
    >>> marks.advance("file", np.array([5, 9]), np.array([0, 1], np.uint8)).tolist()
    [True, True]
    >>> marks.advance("file", np.array([5, 10]), np.array([0, 1], np.uint8)).tolist()
    [False, True]
    >>> Watermarks.from_json(marks.to_json()).get("file", 1)
    10
    """

    def __init__(self) -> None:
        self._marks: dict[str, Int64s] = {}

    def advance(self, origin: str, positions: Int64s, buckets: npt.NDArray[np.uint8]) -> Bools:
        """Return which rows are new (bool, same length), and move the watermarks up to them."""
        marks = self._marks.get(origin)
        if marks is None:
            marks = self._marks[origin] = np.full(BUCKETS, -1, np.int64)
        keep = positions > marks[buckets]
        if (positions[1:] > positions[:-1]).all():
            marks[buckets[keep]] = positions[keep]  # the last of a bucket, its highest, holds
            return keep
        for row in np.flatnonzero(keep):  # rows that a crash repeated stand beside each other
            keep[row] = positions[row] > marks[buckets[row]]
            if keep[row]:
                marks[buckets[row]] = positions[row]
        return keep

    def get(self, origin: str, bucket: int) -> int:
        """Return the watermark of an origin's bucket, -1 for none."""
        marks = self._marks.get(origin)
        return -1 if marks is None else int(marks[bucket])

    def of(self, origin: str) -> Int64s | None:
        """Return a copy of an origin's watermarks (int64[buckets]), for `put_back`."""
        marks = self._marks.get(origin)
        return None if marks is None else marks.copy()

    def put_back(self, origin: str, marks: Int64s | None) -> None:
        """Return an origin's watermarks to what `of` gave.

        >>> marks = Watermarks()
        >>> before = marks.of("file")
        >>> marks.advance("file", np.array([5]), np.array([0], np.uint8)).tolist()
        [True]
        >>> marks.put_back("file", before)
        >>> marks.get("file", 0)
        -1
        """
        if marks is None:
            self._marks.pop(origin, None)
        else:
            self._marks[origin] = marks

    def items(self) -> Iterable[tuple[str, int, int]]:
        """Yield (origin, bucket, position) of every watermark that is set."""
        for origin, marks in self._marks.items():
            for bucket in np.flatnonzero(marks >= 0):
                yield origin, int(bucket), int(marks[bucket])

    def set(self, origin: str, bucket: int, position: int) -> None:
        """Put a watermark as it was stored."""
        self._marks.setdefault(origin, np.full(BUCKETS, -1, np.int64))[bucket] = position

    def to_json(self) -> dict[str, dict[str, int]]:
        """Return the watermarks as {origin: {bucket: position}}."""
        result: dict[str, dict[str, int]] = {}
        for origin, bucket, position in self.items():
            result.setdefault(origin, {})[str(bucket)] = position
        return result

    @classmethod
    def from_json(cls, stored: Mapping[str, Mapping[str, int]]) -> Watermarks:
        """Return watermarks from what `to_json` gave."""
        marks = cls()
        for origin, buckets in stored.items():
            for bucket, position in buckets.items():
                marks.set(origin, int(bucket), position)
        return marks


LOOKUPS, LOOKUP_MISSES = "lookups", "lookup_misses"
"""The counters of values that were looked up, and of those that were not found."""
UNANSWERED = "unanswered"
"""The counter of rows in the log of predictions that have none: there was no model yet."""


@dataclass
class Checkpoint:
    """How far a consumer has got in a shard: the offset, the watermarks, and counters that rise with them."""

    offset: int = -1
    """The last message applied; -1 before the first."""
    watermarks: Watermarks = field(default_factory=Watermarks)
    counters: dict[str, int] = field(default_factory=dict)
    """Totals since the shard's first message, by name, such as `vectors`."""
