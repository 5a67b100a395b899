"""Features that need no state: what the event itself says, values looked up as it was taken in, and arithmetic.

They are computed over columns, after the kernel has filled in the features of groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from graphlib import TopologicalSorter

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from modelstream.use_case import arithmetic
from modelstream.use_case.declared import UseCase
from modelstream.use_case.durations import offset_microseconds
from modelstream.use_case.vocabulary import Category, Compute, Form, Hour, LookUp, Number, Weekday, names_of

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

HOUR, DAY = 3_600_000_000, 86_400_000_000
"""In microseconds."""
THURSDAY = 3
"""The day of the week of 1970-01-01."""


class OwnFeatures:
    """Fills in the features of a use case that are neither a group's nor looked up with the profile.

    >>> from modelstream.use_case.file import parse_use_case
    >>> use_case = parse_use_case('''
    ... {version: 2, name: heating, key: house, time: at, type: kind,
    ...  fields: {house: key, at: time, kind: text, celsius: number, room: text}, events: {reading: },
    ...  features: {celsius: {number: celsius}, hour: {hour: at, offset: "+01:00"},
    ...             room: {category: room, one_of: [bath]}, kelvin: {compute: celsius + 273}},
    ...  predict_on: [reading], model: {name: frost, prediction: will_freeze}}''')
    >>> use_case.computed
    ('celsius', 'hour', 'room_bath', 'room_other', 'kelvin')
    >>> events = pa.record_batch({"at": pa.array([0], pa.timestamp("us", "UTC")), "celsius": [20.0], "room": ["bath"]})
    >>> vectors = np.empty((5, 1))
    >>> OwnFeatures(use_case).fill(events, np.array([0]), vectors)
    >>> vectors[:, 0].tolist()
    [20.0, 1.0, 1.0, 0.0, 293.0]
    """

    def __init__(self, use_case: UseCase) -> None:
        self._place = {name: row for row, name in enumerate(use_case.computed)}
        self._forms: dict[str, Form] = {
            name: form
            for name, form in use_case.forms.items()
            if isinstance(form, Number | Hour | Weekday | Category) or name in use_case.event_lookups
        }
        self._categories = {name: _Categories(f) for name, f in self._forms.items() if isinstance(f, Category)}
        trees = {n: (arithmetic.parse(f.compute), f) for n, f in use_case.forms.items() if isinstance(f, Compute)}
        order = TopologicalSorter({name: arithmetic.names(tree) for name, (tree, _) in trees.items()}).static_order()
        self._computed = [(name, *trees[name]) for name in order if name in trees]

    @property
    def needed(self) -> bool:
        """Whether the use case has such features."""
        return bool(self._forms or self._computed)

    def fill(self, events: pa.RecordBatch, rows: Int64s, vectors: Float64s) -> None:
        """Fill in the features of vectors, float64[features, k], which followed from `rows`, int64[k], of `events`.

        A column that is missing in `events` is all null.
        """
        taken: dict[str, pa.Array | None] = {}

        def column(field: str) -> pa.Array | None:
            if field not in taken:
                there = field in events.schema.names
                taken[field] = events.column(field).take(pa.array(rows)) if there else None
            return taken[field]

        for name, form in self._forms.items():
            if name in self._categories:
                categories = self._categories[name]
                found = categories.columns(column(categories.field), len(rows))
            else:
                found = [_column(name, form, column, len(rows))]
            for feature, values in zip(names_of(name, form), found, strict=True):
                vectors[self._place[feature]] = values
        with np.errstate(all="ignore"):
            for name, tree, form in self._computed:
                computed = arithmetic.evaluate(tree, lambda feature: vectors[self._place[feature]])
                vectors[self._place[name]] = _finite(computed, form.otherwise)

    def readable(self, known: Mapping[str, Float64s], count: int) -> dict[str, pa.Array]:
        """Return these features of `count` stored rows: null where they need an event, or another that is null.

        `known` has the other features, by name; NaN stands for null.
        """
        found = {name: values for name, values in known.items() if name in self._place}
        nothing = np.full(count, np.nan)
        for name, form in self._forms.items():
            found |= dict.fromkeys(names_of(name, form), nothing)
        with np.errstate(all="ignore"):
            for name, tree, form in self._computed:
                computed = np.broadcast_to(arithmetic.evaluate(tree, found.__getitem__), count)
                missing = np.zeros(count, np.bool_)
                for used in arithmetic.names(tree):
                    missing |= np.isnan(found[used])
                found[name] = np.where(missing, np.nan, _finite(computed, form.otherwise))
        own = [*(feature for name, form in self._forms.items() for feature in names_of(name, form))]
        own += [name for name, *_ in self._computed]
        return {name: pa.array(found[name], mask=np.isnan(found[name])) for name in own}


def _finite(values: Float64s | float, otherwise: float) -> Float64s:
    return np.where(np.isfinite(values), values, otherwise)


def _column(name: str, form: Form, column: Callable[[str], pa.Array | None], count: int) -> Float64s:
    match form:
        case Number(field, otherwise):
            return _numbers(column(field), count, otherwise)
        case LookUp(_, _, _, otherwise):
            return _numbers(column(name), count, otherwise)
        case Hour(field, offset):
            times = _times(column(field), count, offset)
            return np.where(times == _NONE, 0.0, times // HOUR % 24)
        case Weekday(field, offset):
            times = _times(column(field), count, offset)
            return np.where(times == _NONE, 0.0, (times // DAY + THURSDAY) % 7)
    raise AssertionError(form)


_NONE = int(np.iinfo(np.int64).min)


def _numbers(column: pa.Array | None, count: int, otherwise: float) -> Float64s:
    if column is None:
        return np.full(count, otherwise)
    # Not safe: an integer that no float equals becomes the nearest one, which is what a model can be given.
    return _finite(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), otherwise)


def _times(column: pa.Array | None, count: int, offset: str) -> Int64s:
    """Return local times in microseconds; `_NONE` for null, which only a time field of the event's own can be."""
    if column is None:
        return np.full(count, _NONE)
    times: Int64s = column.cast(pa.int64()).fill_null(_NONE).to_numpy()
    return np.where(times == _NONE, _NONE, times + (offset_microseconds(offset) or 0))


class _Categories:
    """Turns the categories of events into numbers: a column for each of some and for all others, or by a table."""

    def __init__(self, form: Category) -> None:
        self.field = form.category
        self._numbers = None if form.table is None else np.array([*form.values.values(), form.otherwise])
        self._names = [*form.values] if form.table is not None else [*form.one_of]
        self._places = {name: place for place, name in enumerate(self._names)}
        self._known = pa.array(self._names, pa.string())

    def columns(self, column: pa.Array | None, count: int) -> Sequence[Float64s]:
        """Return the columns, float64[count] each; a category that is null is like an unknown one."""
        which = np.full(count, len(self._names)) if column is None else self._which(column.cast(pa.string()))
        if self._numbers is not None:
            return [self._numbers[which]]
        return [(which == place).astype(np.float64) for place in range(len(self._names) + 1)]

    def _which(self, column: pa.Array) -> Int64s:
        """Return the place of each category among those that are known, their number for another."""
        others = len(self._names)
        if others <= 8 * len(column):
            # Arrow hashes all that is known, 20 ns each, but then takes a tenth of Python's time for each category.
            found = pc.index_in(column, value_set=self._known)
            return found.fill_null(others).to_numpy()  # type: ignore[no-any-return]
        encoded = column.dictionary_encode()
        places = np.array([*(self._places.get(text, others) for text in encoded.dictionary.to_pylist()), others])
        return places[encoded.indices.fill_null(len(places) - 1).to_numpy()]  # type: ignore[no-any-return]
