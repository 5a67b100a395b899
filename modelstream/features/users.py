"""The rows of users in memory: arrays that grow, with a place ("slot") for each user."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from sys import getsizeof

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from modelstream.errors import ConfigurationError
from modelstream.features.layout import Layout
from modelstream.features.terms import APPLIED, KNOWN_AT, LOOKED_UP, NEVER, State
from modelstream.use_case.columns import TIME
from modelstream.use_case.declared import UseCase
from modelstream.use_case.stored import PACKED, stored_columns

Int64s = npt.NDArray[np.int64]

FIRST_CAPACITY = 1024

SLOT_BYTES = getsizeof(1 << 20)
"""Of the number of a slot, a Python object, which is in the dictionary or among those that are free."""


class Users:
    """The rows of some users, loaded from the table of features and changed by the kernel.

    A user without a row (not registered) has a slot too, so that the table is not asked again.

    >>> from modelstream.use_case.file import parse_use_case
    >>> use_case = parse_use_case('''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean, count],
    ...  fields: {house: key, at: time, kind: text, celsius: number},
    ...  events: {reading: {value: celsius}}, predict_on: [reading],
    ...  model: {name: frost, prediction: will_freeze}}''')
    >>> users = Users(use_case)
    >>> users.load(["h1", "h2"], pa.RecordBatch.from_pylist([], schema=use_case.row_schema))  # neither has a row yet
    >>> users.missing(["h1", "h3"]), users.use(["h2", "h1"]).tolist(), users.changed().num_rows
    (['h3'], [1, 0], 0)
    """

    def __init__(self, use_case: UseCase) -> None:
        self._use_case = use_case
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        self._keys = np.empty(0, object)
        self._used = np.empty(0, np.int64)  # when a slot was last used; -1: it is free
        self._clock = 0
        self._sizes = np.empty(0, np.int64)  # bytes of the objects that a slot holds: its key and its profile
        self._profile = [np.empty(0, object) for _ in (use_case.profile.fields if use_case.profile else ())]
        self._layout = Layout(use_case)
        self._columns = [
            (self._layout.word["column", c.name], c.type) for c in stored_columns(use_case) if c.name != PACKED
        ]
        self.state = self._empty_state(0)

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def nbytes(self) -> int:
        """The bytes that all this takes: arrays, dictionary, and the texts and numbers that they point to."""
        arrays = (self.state.words, self.state.changed, self._used, self._sizes, self._keys, *self._profile)
        lists = getsizeof(self._slots) + getsizeof(self._free) + SLOT_BYTES * len(self._keys)
        return sum(array.nbytes for array in arrays) + lists + int(self._sizes.sum())

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return the keys, each once, that have no slot."""
        slots = self._slots
        return [key for key in dict.fromkeys(keys) if key not in slots]

    def use(self, keys: Sequence[str]) -> Int64s:
        """Return the slots of users, int64[len(keys)], and note that they were used. Raises KeyError."""
        slots = np.fromiter(map(self._slots.__getitem__, keys), np.int64, len(keys))
        self._clock += 1
        self._used[slots] = self._clock
        return slots

    def load(self, keys: Iterable[str], rows: pa.RecordBatch) -> None:
        """Give each of `keys` a slot and fill in its row, if there is one in `rows`.

        A user who is in memory already stays as it is: what is in memory is newer.
        """
        if not rows.schema.equals(self._use_case.row_schema):
            raise ValueError(f"rows of another use case: {rows.schema.names}")
        self._check_packed(rows)
        found = texts(rows.column(0))
        new = self.missing([*keys, *found])
        self._add(new)
        fresh = set(new)
        if rows.num_rows and not fresh.issuperset(found):
            rows = rows.filter(pa.array([key in fresh for key in found]))
            found = texts(rows.column(0))
        if found:
            self._fill(self.use(found), rows)

    def set_profiles(self, slots: Int64s, events: pa.RecordBatch, indices: Int64s) -> None:
        """into `slots`; where a slot occurs several times, the last event counts."""
        fields = self._use_case.profile.fields if self._use_case.profile else ()
        for held, name in zip(self._profile, fields, strict=True):
            held[slots] = None
            if name in events.schema.names:
                held[slots] = _objects(events.column(name).take(pa.array(indices)))
        self._measure(slots)

    def changed(self) -> pa.RecordBatch:
        """Return the rows that changed since `clean`, in the use case's `row_schema`."""
        slots = np.flatnonzero(self.state.changed)
        use_case, words = self._use_case, self.state.words[slots]
        floats = words.view(np.float64)
        schema: pa.Schema = use_case.row_schema
        arrays = [pa.array(self._keys[slots], pa.string()), pa.array(words[:, APPLIED])]
        if use_case.profile:
            arrays.append(pa.array(words[:, KNOWN_AT]).cast(TIME))
            types = (schema.field(name).type for name in use_case.profile.fields)
            arrays += [pa.array(held[slots], kind) for held, kind in zip(self._profile, types, strict=True)]
        for found in floats[:, LOOKED_UP : LOOKED_UP + len(use_case.profile_lookups)].T:
            arrays.append(pa.array(found, mask=np.isnan(found)))
        for word, kind in self._columns:
            if kind == TIME:
                arrays.append(pa.array(words[:, word], mask=words[:, word] == NEVER).cast(TIME))
            else:
                arrays.append(pa.array(np.ascontiguousarray(floats[:, word])))
        if self._layout.packed:
            arrays.append(_packed(words[:, self._layout.packed.start : self._layout.packed.stop]))
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def clean(self) -> None:
        """Note that all rows are stored as they are."""
        self.state.changed[:] = False

    def forget(self, keys: Iterable[str] | None = None) -> None:
        """Drop some users, or all, whether they are stored or not."""
        doomed = list(self._slots) if keys is None else [key for key in keys if key in self._slots]
        self._drop([self._slots[key] for key in doomed])

    def evict(self, limit: int) -> int:
        """Drop the least recently used stored users above `limit`, and their room; return how many.

        Changed ones stay.
        """
        excess = len(self._slots) - limit
        if excess <= 0:
            return 0
        clean = np.flatnonzero((self._used >= 0) & ~self.state.changed)
        if excess < len(clean):
            clean = clean[np.argpartition(self._used[clean], excess)[:excess]]
        self._drop(clean.tolist())
        if len(self._keys) > FIRST_CAPACITY and len(self._free) > len(self._keys) // 4:
            self._shrink()
        return len(clean)

    def _add(self, keys: Sequence[str]) -> None:
        while len(self._free) < len(keys):
            self._grow()
        for key in keys:
            slot = self._free.pop()
            self._slots[key] = slot
            self._keys[slot] = key
        self._measure(self.use(keys))

    def _measure(self, slots: Int64s) -> None:
        """Note the size of what is in some slots."""
        sizes = np.zeros(len(slots), np.int64)
        for objects in (self._keys, *self._profile):
            sizes += np.fromiter(map(getsizeof, objects[slots]), np.int64, len(slots))
        self._sizes[slots] = sizes

    def _grow(self) -> None:
        """Double the arrays; amortised, a user costs one copy of its row."""
        before = len(self._keys)
        more = max(before, FIRST_CAPACITY)
        self._keys = np.concatenate([self._keys, np.empty(more, object)])
        self._used = np.concatenate([self._used, np.full(more, -1, np.int64)])
        self._sizes = np.concatenate([self._sizes, np.zeros(more, np.int64)])
        self._profile = [np.concatenate([held, np.empty(more, object)]) for held in self._profile]
        empty = self._empty_state(more)
        words = np.concatenate([self.state.words, empty.words])
        self.state = State(words, words.view(np.float64), np.concatenate([self.state.changed, empty.changed]))
        self._free.extend(range(before + more - 1, before - 1, -1))

    def _shrink(self) -> None:
        """Give back the room of free slots."""
        kept = np.flatnonzero(self._used >= 0)
        self._keys, self._used, self._sizes = self._keys[kept], self._used[kept], self._sizes[kept]
        self._profile = [held[kept] for held in self._profile]
        words = self.state.words[kept]
        self.state = State(words, words.view(np.float64), self.state.changed[kept])
        self._slots = {key: slot for slot, key in enumerate(self._keys.tolist())}
        self._free = []

    def _drop(self, slots: Sequence[int]) -> None:
        for slot in slots:
            del self._slots[self._keys[slot]]
        self._free.extend(slots)
        self._used[slots], self._sizes[slots] = -1, 0
        self._keys[slots] = None
        for held in self._profile:
            held[slots] = None
        self.state.words[slots] = self._layout.empty
        self.state.changed[slots] = False

    def _fill(self, slots: Int64s, rows: pa.RecordBatch) -> None:
        use_case, layout = self._use_case, self._layout
        words = np.tile(layout.empty, (len(slots), 1))
        floats = words.view(np.float64)
        columns = iter(rows.columns[1:])
        words[:, APPLIED] = next(columns).to_numpy()
        if use_case.profile:
            words[:, KNOWN_AT] = next(columns).cast(pa.int64()).to_numpy()
            for held in self._profile:
                held[slots] = _objects(next(columns))
            self._measure(slots)
        for found in range(LOOKED_UP, LOOKED_UP + len(use_case.profile_lookups)):
            floats[:, found] = next(columns).to_numpy(zero_copy_only=False)
        for word, kind in self._columns:
            column = next(columns)
            if kind == TIME:
                words[:, word] = column.cast(pa.int64()).fill_null(NEVER).to_numpy()
            else:
                # Sums of huge numbers can overflow to NaN, which some tables give back as null.
                floats[:, word] = column.to_numpy(zero_copy_only=False)
        if layout.packed:
            packed = np.frombuffer(b"".join(next(columns).to_pylist()), "<i8").reshape(len(slots), len(layout.packed))
            words[:, layout.packed.start : layout.packed.stop] = packed
        self.state.words[slots] = layout.finish(words)

    def _check_packed(self, rows: pa.RecordBatch) -> None:
        """Raise ConfigurationError if rows hold the state of other features."""
        if not self._layout.packed:
            return
        packed, size = rows.column(PACKED), 8 * len(self._layout.packed)
        if packed.null_count or (pc.binary_length(packed).to_numpy() != size).any():
            raise ConfigurationError(
                f"rows of users hold the state of another definition of {self._use_case.name}: their packed words have "
                f"another length than {size:,} bytes",
                remedy="go on with the use-case file that the rows were made with, or begin with new data",
            )

    def _empty_state(self, users: int) -> State:
        words = np.tile(self._layout.empty, (users, 1))
        return State(words, words.view(np.float64), np.zeros(users, np.bool_))


def texts(column: pa.Array) -> list[str]:
    """Return a column of text without nulls as a list: ten times as fast as `to_pylist`.

    >>> texts(pa.array(["a", "ü"]))
    ['a', 'ü']
    """
    result: list[str] = column.to_numpy(zero_copy_only=False).tolist()
    return result


def _packed(words: Int64s) -> pa.Array:
    """Return some words of each row as bytes, little-endian."""
    content = np.ascontiguousarray(words, "<i8")
    offsets = np.arange(len(words) + 1, dtype=np.int64) * (8 * words.shape[1])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise OverflowError(f"{len(words):,} rows of {8 * words.shape[1]:,} packed bytes are too many for one batch")
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(content)]
    return pa.Array.from_buffers(pa.binary(), len(words), buffers)


def _objects(column: pa.Array) -> npt.NDArray[np.object_]:
    """Return the column as Python objects, times as microseconds, nulls as None."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    if pa.types.is_string(column.type):
        strings: npt.NDArray[np.object_] = column.to_numpy(zero_copy_only=False)
        return strings
    objects = np.empty(len(column), object)
    objects[:] = column.to_pylist()
    return objects
