"""Checks parity: a replay must give the vectors that were served, bit for bit and in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from modelstream.base.words import counted
from modelstream.logs import Log
from modelstream.use_case.columns import ORIGIN, POSITION
from modelstream.use_case.declared import UseCase

MOST = 10
"""How many differences are described in words."""


@dataclass
class Differences:
    """The number of differences, and descriptions of the first ones.

    >>> found = Differences()
    >>> found.add("the mean was served as 1.0 and is 2.0 in the replay")
    >>> found.add("3 vectors missing from the inference log", 3)
    >>> found.count, len(found.first)
    (4, 2)
    """

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, what: str, count: int = 1) -> None:
        """Note some."""
        self.count += count
        if count and len(self.first) < MOST:
            self.first.append(what)


@dataclass
class Parity:
    """The result of the comparison.

    `ServedVectors` has an example.
    """

    vectors: int = 0
    """Vectors that were served and are equal."""
    differing: Differences = field(default_factory=Differences)
    """Vectors that differ from those that were served."""
    unmatched: Differences = field(default_factory=Differences)
    """Vectors that only one side has."""


class ServedVectors:
    """The vectors in the inference log. Within a shard they stand in the order in which replay gives them.

    Give it batches of the replay one after the other, with `compare`, then call `end`.

    >>> from types import SimpleNamespace
    >>> from modelstream.use_case.file import parse_use_case
    >>> use_case = parse_use_case('''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean, count],
    ...  fields: {house: key, at: time, kind: text, celsius: number},
    ...  events: {reading: {value: celsius}}, predict_on: [reading],
    ...  model: {name: frost, prediction: will_freeze}}''')
    >>> columns = [("house", ["h1", "h2"]), ("position", [7, 8]), ("reading_count", [1.0, 1.0])]
    >>> logged = pa.record_batch(dict([*columns, ("origin", ["a.ndjson"] * 2), ("reading_mean", [0.3, 20.0])]))
    >>> again = pa.record_batch(dict([*columns, ("reading_mean", [0.1 + 0.2, 20.0])]))
    >>> log = SimpleNamespace(scan=lambda columns, shards: iter([logged.select(columns)]))  # in place of a log
    >>> served, found = ServedVectors(use_case, log, None), Parity()
    >>> served.compare(logged.column("origin"), again, found)
    >>> served.end(found)
    >>> found.vectors, found.differing.count
    (1, 1)
    >>> found.differing.first[0].partition(": ")[2]
    'reading_mean was served as 0.3 and is 0.30000000000000004 in the replay'
    """

    def __init__(self, use_case: UseCase, log: Log, shards: Sequence[int] | None) -> None:
        self._key = use_case.key
        self._features = use_case.features
        columns = [self._key, ORIGIN, POSITION, *self._features]
        self._batches = log.scan(columns, shards)
        self._rest = pa.table({})
        self._out_of_step = False

    def compare(self, origins: pa.Array, vectors: pa.RecordBatch, found: Parity) -> None:
        """Compare the next vectors of the replay with the next of the log."""
        served = self._take(vectors.num_rows)
        count = served.num_rows
        if self._out_of_step:
            return
        missing = vectors.num_rows - count
        other = pc.or_(
            pc.not_equal(origins.slice(0, count), served.column(ORIGIN).combine_chunks()),
            pc.not_equal(vectors.column(POSITION).slice(0, count), served.column(POSITION).combine_chunks()),
        )
        if pc.any(other).as_py():
            place = pc.index(other, True).as_py()
            ours = _event(vectors.column(self._key), origins, vectors.column(POSITION), place)
            theirs = _event(served.column(self._key), served.column(ORIGIN), served.column(POSITION), place)
            found.differing.add(
                f"the next vector of the replay is the one {ours}, that of the inference log the one {theirs}"
            )
            self._out_of_step = True
            count = place
        elif missing:
            at = _event(vectors.column(self._key), origins, vectors.column(POSITION), count)
            lacking = counted(missing, "vector")
            found.unmatched.add(f"{lacking} missing from the inference log, the first {at}", missing)
        unequal = np.zeros(count, np.bool_)
        for name in self._features:
            ours_, theirs_ = _floats(vectors.column(name), count), _floats(served.column(name), count)
            wrong = ours_.view(np.int64) != theirs_.view(np.int64)
            wrong &= ~(np.isnan(ours_) & np.isnan(theirs_))
            for place in np.flatnonzero(wrong & ~unequal):
                at = _event(vectors.column(self._key), origins, vectors.column(POSITION), int(place))
                what = f"{name} was served as {theirs_[place]!r} and is {ours_[place]!r} in the replay"
                found.differing.add(f"the vector {at}: {what}")
            unequal |= wrong
        found.vectors += count - int(np.count_nonzero(unequal))

    def end(self, found: Parity) -> None:
        """Count what the inference log has beyond the replay."""
        if self._out_of_step:
            return
        rest = self._rest.num_rows + sum(batch.num_rows for batch in self._batches)
        found.unmatched.add(
            f"{counted(rest, 'vector')} in the inference log for which the log of events has no event", rest
        )

    def _take(self, count: int) -> pa.Table:
        parts, rows = [self._rest] if self._rest.num_rows else [], self._rest.num_rows
        while rows < count and (batch := next(self._batches, None)) is not None:
            parts.append(pa.Table.from_batches([batch]))
            rows += batch.num_rows
        whole = pa.concat_tables(parts) if parts else self._empty()
        self._rest = whole.slice(count)
        return whole.slice(0, count)

    def _empty(self) -> pa.Table:
        fields = [(self._key, pa.string()), (ORIGIN, pa.string()), (POSITION, pa.int64())]
        return pa.schema([*fields, *((name, pa.float64()) for name in self._features)]).empty_table()


def _floats(column: pa.Array | pa.ChunkedArray, count: int) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = np.ascontiguousarray(column.slice(0, count).to_numpy())
    return values


def _event(
    keys: pa.Array | pa.ChunkedArray,
    origins: pa.Array | pa.ChunkedArray,
    positions: pa.Array | pa.ChunkedArray,
    place: int,
) -> str:
    return f"of {keys[place]} after the event {positions[place]} of {origins[place]}"
