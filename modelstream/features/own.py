"""Features that need no state: what the event itself says, values looked up as it was taken in, and arithmetic.

They are computed over columns, after the kernel has filled in the features of groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from graphlib import TopologicalSorter

import numpy as np
import numpy.typing as npt
import pyarrow as pa

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
            for feature, values in zip(names_of(name, form), _columns(name, form, column, len(rows)), strict=True):
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


def _columns(name: str, form: Form, column: Callable[[str], pa.Array | None], count: int) -> Sequence[Float64s]:
    match form:
        case Number(field, otherwise):
            return [_numbers(column(field), count, otherwise)]
        case LookUp(_, _, _, otherwise):
            return [_numbers(column(name), count, otherwise)]
        case Hour(field, offset):
            times = _times(column(field), count, offset)
            return [np.where(times == _NONE, 0.0, times // HOUR % 24)]
        case Weekday(field, offset):
            times = _times(column(field), count, offset)
            return [np.where(times == _NONE, 0.0, (times // DAY + THURSDAY) % 7)]
        case Category():
            return _categories(form, column(form.category), count)
    raise AssertionError(form)


_NONE = int(np.iinfo(np.int64).min)


def _numbers(column: pa.Array | None, count: int, otherwise: float) -> Float64s:
    if column is None:
        return np.full(count, otherwise)
    values: Float64s = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return np.where(np.isnan(values), otherwise, values) if column.null_count else values


def _times(column: pa.Array | None, count: int, offset: str) -> Int64s:
    """Return local times in microseconds; `_NONE` for null, which only a time field of the event's own can be."""
    if column is None:
        return np.full(count, _NONE)
    times: Int64s = column.cast(pa.int64()).fill_null(_NONE).to_numpy()
    return np.where(times == _NONE, _NONE, times + (offset_microseconds(offset) or 0))


def _categories(form: Category, column: pa.Array | None, count: int) -> Sequence[Float64s]:
    if column is None:
        codes, texts = np.full(count, -1, np.int64), []
    else:
        encoded = column.cast(pa.string()).dictionary_encode()
        codes, texts = encoded.indices.fill_null(-1).to_numpy(), encoded.dictionary.to_pylist()
    if form.table is not None:
        values = np.array([*(form.values.get(text, form.otherwise) for text in texts), form.otherwise])
        return [values[codes]]
    place = {value: i for i, value in enumerate(form.one_of)}
    which = np.array([*(place.get(text, len(place)) for text in texts), len(place)])[codes]
    return [(which == i).astype(np.float64) for i in range(len(place) + 1)]
