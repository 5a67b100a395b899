"""Recomputes all features from the log of events, and compares them bit for bit with the table's rows and with the
vectors that were served.

Memory holds the rows of one shard's users. While events are still being processed (a pipeline is working, or was
stopped in the middle), the table and the inference log may be ahead of the log of events or behind it. Rows that differ
then prove nothing, but a vector that was served must still be equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from modelstream.base.timestamps import rows_of
from modelstream.base.words import counted
from modelstream.features.engine import FeatureEngine, replay
from modelstream.features.vectors import Derive
from modelstream.project import Project
from modelstream.replay.parity import Parity, ServedVectors
from modelstream.replay.recompute import Recomputation, derive_in
from modelstream.stores import Stores
from modelstream.tables import FeatureTable
from modelstream.use_case.columns import APPLIED, ORIGIN

KEYS_AT_ONCE = 10_000

OnProgress = Callable[[int], None]
"""Called with the number of events replayed since the last call."""


@dataclass
class Findings(Parity):
    """The result of a replay. `unmatched` also has rows that differ; they are differences only if `settled`.

    >>> found = Findings(settled=False)
    >>> found.unmatched.add("a row that was ahead of the log")
    >>> found.equal, Findings(unmatched=found.unmatched).equal
    (True, False)
    """

    settled: bool = True
    """No event was still being processed, so everything must be there and equal."""
    events: int = 0
    rows: int = 0
    """Rows of the table that are equal."""

    @property
    def equal(self) -> bool:
        """Whether no difference was found."""
        return self.differing.count == 0 and (self.unmatched.count == 0 or not self.settled)


def compare(stores: Stores, project: Project, progress: OnProgress = lambda _: None) -> Findings:
    """Replay the log of events of a pipeline. Raises ModelstreamError if something can't be read.

    An example would need the data of a run: `tests/replay/test_compare.py` has one.
    """
    found = Findings()
    before = _state(stores, project)
    derive = derive_in(project.vectors_notebook())
    known: list[npt.NDArray[np.uint64]] = []
    stored = 0
    # Within an epoch a user's events are all in one shard; from one epoch to the next shards may change.
    parts: list[Sequence[int] | None] = [[shard] for shard in before.ends] if stores.epoch == 0 else [None]
    for part in parts:
        engine = FeatureEngine(stores.use_case)
        for events in _compare_vectors(stores, derive, part, engine, found):
            progress(events)
        rows = engine.changed()
        known.append(_hashes(rows.column(0)))
        stored += _compare_rows(stores, rows, found)
    extra = stores.features.count() - stored
    if extra > 0:
        examples = ", ".join(_unexplained(stores.features, np.concatenate(known)))
        found.unmatched.add(
            f"{counted(extra, 'row')} of the table that no event of the log explains, such as {examples}", extra
        )
    found.settled = before.on_the_way == 0 and _state(stores, project) == before
    return found


@dataclass(frozen=True)
class _State:
    """How far a pipeline is."""

    on_the_way: int
    """Rows that some function has not acknowledged."""
    ends: dict[int, int]
    """By shard, the end of the stream that the first function reads."""


def _state(stores: Stores, project: Project) -> _State:
    first = project.reads(project.chain.consumers[0])
    ends = {shard: end for shard, (_, end) in stores.streams.ranges(first).items()}
    return _State(sum(stores.lags(project).values()), ends)


def _compare_vectors(
    stores: Stores, derive: Derive | None, shards: Sequence[int] | None, engine: FeatureEngine, found: Findings
) -> Iterator[int]:
    """Replay the events of some shards (None: all), compare the vectors, and yield how many events were replayed."""
    again = Recomputation(stores, derive, shards=shards)
    served = ServedVectors(stores.use_case, stores.inference_log, shards)
    for events, applied in replay(stores.use_case, again.events(), again.lookup, engine):
        vectors = again.vectors(events, applied)
        served.compare(events.column(ORIGIN).take(pa.array(applied.indices)), vectors, found)
        found.events += events.num_rows
        yield events.num_rows
    served.end(found)


def _compare_rows(stores: Stores, rows: pa.RecordBatch, found: Findings) -> int:
    """Compare replayed rows with the table's; return how many of them it has."""
    key = stores.use_case.key
    stored = 0
    for start in range(0, rows.num_rows, KEYS_AT_ONCE):
        expected = rows.slice(start, KEYS_AT_ONCE)
        actual = stores.features.get_many(expected.column(key).to_pylist())
        stored += actual.num_rows
        places = pc.index_in(expected.column(key), value_set=actual.column(key))
        has = pc.is_valid(places)
        lacking = expected.column(key).filter(pc.invert(has))
        if len(lacking):
            users = counted(len(lacking), "user")
            found.unmatched.add(f"{users} without a row in the table, such as {lacking[0]}", len(lacking))
        _compare_columns(key, expected.filter(has), actual.take(places.drop_null()), found)
    return stored


def _compare_columns(key: str, expected: pa.RecordBatch, actual: pa.RecordBatch, found: Findings) -> None:
    unequal = np.zeros(expected.num_rows, np.bool_)
    for name in expected.schema.names:
        if name == APPLIED:  # a position in a stream, which a replay doesn't have
            continue
        ours, theirs = expected.column(name), actual.column(name)
        if ours.equals(theirs):
            continue
        for place in np.flatnonzero(_differ(ours, theirs) & ~unequal):
            unequal[place] = True
            found.unmatched.add(
                f"the row of {expected.column(key)[place]}: {name} is {_told(theirs, place)} in the table "
                f"and {_told(ours, place)} in the replay"
            )
    found.rows += expected.num_rows - int(np.count_nonzero(unequal))


def _told(column: pa.Array, place: int) -> str:
    if pa.types.is_binary(column.type):  # the state of windows, values and sessions, of no use to a reader
        value = column[place].as_py()
        return (
            "none"
            if value is None
            else f"{counted(len(value), 'byte')} with the hash {xxhash.xxh3_64_hexdigest(value)}"
        )
    return str(rows_of(pa.record_batch({"value": column.slice(place, 1)}))[0]["value"])


def _differ(ours: pa.Array, theirs: pa.Array) -> npt.NDArray[np.bool_]:
    if pa.types.is_float64(ours.type):  # 0.0 and -0.0 are one in SQLite
        mine, its = (column.to_numpy(zero_copy_only=False) for column in (ours, theirs))
        result: npt.NDArray[np.bool_] = (mine != its) & ~(np.isnan(mine) & np.isnan(its))
        result |= ours.is_null().to_numpy(zero_copy_only=False) != theirs.is_null().to_numpy(zero_copy_only=False)
        return result
    if pa.types.is_timestamp(ours.type):  # as numbers: a time of an earlier version may fit no datetime
        ours, theirs = ours.cast(pa.int64()), theirs.cast(pa.int64())
    pairs = zip(ours.to_pylist(), theirs.to_pylist(), strict=True)
    return np.array([one != other for one, other in pairs], np.bool_)


def _hashes(keys: pa.Array) -> npt.NDArray[np.uint64]:
    """Return an 8-byte hash of each key, to recognise it later."""
    return np.fromiter((xxhash.xxh3_64_intdigest(key.encode()) for key in keys.to_pylist()), np.uint64, len(keys))


def _unexplained(features: FeatureTable, known: npt.NDArray[np.uint64]) -> Iterator[str]:
    """Yield keys of rows of the table that are not known, three at most."""
    left = 3
    for batch in features.scan():
        keys = batch.column(0)
        for place in np.flatnonzero(~np.isin(_hashes(keys), known)):
            if left:
                left -= 1
                yield str(keys[place])
