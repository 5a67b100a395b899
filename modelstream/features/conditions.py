"""Which events of a batch meet a condition of `where` or `share`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from modelstream.use_case.declared import FieldType, UseCase
from modelstream.use_case.vocabulary import Condition, Constant

Bools = npt.NDArray[np.bool_]
Int64s = npt.NDArray[np.int64]

_TEXTS = {FieldType.KEY, FieldType.TEXT, FieldType.IDENTIFIER}


class Conditions:
    """The conditions of a use case, met by the events of one batch; each is worked out once.

    >>> from modelstream.use_case.file import parse_use_case
    >>> use_case = parse_use_case('''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean, count],
    ...  fields: {house: key, at: time, kind: text, celsius: number},
    ...  events: {reading: {value: celsius}}, predict_on: [reading],
    ...  model: {name: frost, prediction: will_freeze}}''')
    >>> events = pa.RecordBatch.from_pydict({"celsius": [20.0, None, -5.0]})
    >>> conditions = Conditions(use_case, events, np.array([0, 0, 0]))
    >>> conditions.met({"celsius": Condition(below=0)}).tolist()
    [False, False, True]
    """

    def __init__(self, use_case: UseCase, events: pa.RecordBatch, codes: Int64s) -> None:
        self._use_case = use_case
        self._events = events
        self._codes = codes
        self._met: dict[tuple[str, Condition], Bools] = {}

    def met(self, conditions: Mapping[str, Condition]) -> Bools:
        """Return for each event whether it meets all conditions, bool[n]; one without the field does not."""
        result = np.ones(len(self._codes), np.bool_)
        for field, condition in conditions.items():
            if (field, condition) not in self._met:
                self._met[field, condition] = self._one(field, condition)
            result &= self._met[field, condition]
        return result

    def _one(self, field: str, condition: Condition) -> Bools:
        if field == self._use_case.type:
            return self._of_type(condition)
        if field not in self._events.schema.names:
            return np.zeros(len(self._codes), np.bool_)
        column = self._events.column(field)
        if self._use_case.fields[field] in _TEXTS:
            return _of_text(column, condition)
        return _of_number(column, condition)

    def _of_type(self, condition: Condition) -> Bools:
        """Types are compared by the names of events, so that an alias is the event that it stands for."""
        names = np.array([*self._use_case.event_names, ""], object)
        met = np.array([*map(bool, _of_text(pa.array(names[:-1], pa.string()), condition)), False])
        result: Bools = met[self._codes]  # an unknown type, -1, is the last
        return result


def _of_text(column: pa.Array, condition: Condition) -> Bools:
    met = column.is_valid()
    if condition.is_ is not None:
        met = pc.and_(met, pc.equal(column, _text(condition.is_)))
    if condition.is_not is not None:
        met = pc.and_(met, pc.not_equal(column, _text(condition.is_not)))
    if condition.in_ is not None:
        met = pc.and_(met, pc.is_in(column, pa.array(map(_text, condition.in_), pa.string())))
    result: Bools = met.fill_null(False).to_numpy(zero_copy_only=False)
    return result


def _text(constant: Constant) -> str:
    return str(constant)


def _of_number(column: pa.Array, condition: Condition) -> Bools:
    met: Bools = column.is_valid().to_numpy(zero_copy_only=False)
    values = column.fill_null(False if pa.types.is_boolean(column.type) else 0).to_numpy(zero_copy_only=False)
    if condition.is_ is not None:
        met = met & (values == condition.is_)
    if condition.is_not is not None:
        met = met & (values != condition.is_not)
    if condition.in_ is not None:
        met = met & np.logical_or.reduce([values == constant for constant in condition.in_])
    if condition.above is not None:
        met = met & (values > condition.above)
    if condition.below is not None:
        met = met & (values < condition.below)
    return met
