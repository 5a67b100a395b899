"""The vectors that the model is asked about: one after each event that calls for a prediction, with the notebook's own
features."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelstream.base.hooks import MOST_SHOWN, call_hook, defined_at, row_text
from modelstream.base.timestamps import rows_of
from modelstream.errors import ConfigurationError, HookError
from modelstream.features.engine import Applied
from modelstream.messages.codec import column_or_nulls
from modelstream.use_case.columns import EXTRA, INGESTED_AT, POSITION
from modelstream.use_case.declared import UseCase

Derive = Callable[[pa.RecordBatch, pa.RecordBatch], pa.RecordBatch]
"""A hook for features that the use-case file can't express: (events, their vectors) to vectors, row by row.

It gets the event of each vector (`UseCase.event_schema` without `extra`) and the vectors without the features that the
use case lists as `derived`; it returns `UseCase.vector_schema`.
"""


class Vectors:
    """Makes batches of vectors from the results of the feature engine, with the notebook's hook if there is one.

    >>> from modelstream.features.engine import no_lookup, replay
    >>> from modelstream.use_case.file import parse_use_case
    >>> use_case = parse_use_case('''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean, count],
    ...  fields: {house: key, at: time, kind: text, celsius: number},
    ...  events: {reading: {value: celsius}}, predict_on: [reading],
    ...  model: {name: frost, prediction: will_freeze}}''')
    >>> rows = [(0, 5, "h1", 3, "reading", 20.0), (1, 5, "h1", 4, "reading", 21.0)]  # times in us since 1970 UTC
    >>> batch = pa.record_batch([*zip(*rows)], schema=pa.schema(list(use_case.event_schema)[:-1]))
    >>> ((events, applied),) = replay(use_case, [batch], no_lookup)
    >>> Vectors(use_case).batch(events, applied).select(["house", "reading_mean", "reading_count"]).to_pylist()[1]
    {'house': 'h1', 'reading_mean': 20.5, 'reading_count': 2.0}
    """

    def __init__(self, use_case: UseCase, derive: Derive | None = None) -> None:
        """Raise ConfigurationError if the use case lists features that no hook adds."""
        if use_case.derived and derive is None:
            raise ConfigurationError(
                f"the use case {use_case.name} lists derived features, but no hook computes them: "
                f"{', '.join(use_case.derived)}",
                remedy="write derive(batch, vectors) in the notebook of stream-to-features, or empty the list "
                "`derived`",
            )
        self._use_case = use_case
        self._types = pa.array(use_case.event_names)
        self._derive = derive
        self._events = pa.schema([field for field in use_case.event_schema if field.name != EXTRA])
        self._computed = pa.schema([f for f in use_case.vector_schema if f.name not in use_case.derived])

    def batch(self, events: pa.RecordBatch, applied: Applied) -> pa.RecordBatch:
        """Return the vectors that followed from events, in `UseCase.vector_schema`. Raises HookError."""
        use_case = self._use_case
        which = pa.array(applied.indices)
        names = [POSITION, INGESTED_AT, use_case.key, use_case.time]
        columns = [column_or_nulls(events, self._computed.field(name)).take(which) for name in names]
        columns.append(self._types.take(pa.array(applied.codes)))
        columns += [pa.array(applied.vectors[:, i]) for i in range(applied.vectors.shape[1])]
        vectors = pa.RecordBatch.from_arrays(columns, schema=self._computed)
        if self._derive is None or not vectors.num_rows:
            return vectors
        return self._derived(self._derive, events, which, vectors)

    def _derived(
        self, derive: Derive, events: pa.RecordBatch, which: pa.Array, vectors: pa.RecordBatch
    ) -> pa.RecordBatch:
        # Gathering the events is the dearest step of the stage.
        columns = [column_or_nulls(events, field).take(which) for field in self._events]
        asked = pa.RecordBatch.from_arrays(columns, schema=self._events)
        changed = call_hook(
            "derive(batch, vectors)",
            lambda first, last: derive(asked.slice(first, last - first), vectors.slice(first, last - first)),
            vectors.num_rows,
            partial(_row_text, vectors),
        )
        wanted = self._use_case.vector_schema
        if not isinstance(changed, pa.RecordBatch) or changed.num_rows != vectors.num_rows:
            raise HookError(
                f"{defined_at(derive)}derive(batch, vectors) did not return one row for each vector",
                remedy="return a pyarrow.RecordBatch with the rows of `vectors`, in their order",
            )
        if not changed.schema.equals(wanted):
            raise HookError(
                f"{defined_at(derive)}derive(batch, vectors) returned the columns {', '.join(changed.schema.names)}",
                remedy=f"return {', '.join(wanted.names)}; list new features, float64, under `derived` in the use case",
            )
        for name in self._use_case.features:
            _check_numbers(name, changed.column(name), vectors)
        return changed


def _check_numbers(name: str, column: pa.Array, before: pa.RecordBatch) -> None:
    """Raise HookError if a hook made something of a feature that the model, which takes float32, can't use."""
    bad = ~_is_usable(column)
    if before.schema.get_field_index(name) >= 0:
        bad &= _is_usable(before.column(name))  # else it is the engine's own, such as a lookup that found nothing
    if bad.any():
        row = int(np.argmax(bad))
        what = f"derive(batch, vectors) returned {column[row].as_py()} for {name!r}"
        need = "a model takes finite numbers up to 3.4e38"
        raise HookError(
            f"{what} at the row {_row_text(before, row)[:MOST_SHOWN]}; {need}",
            logged=f"{what}; {need}",
            remedy="return another number there, such as 0 where you divide by 0 (pyarrow.compute.if_else)",
        )


def _row_text(vectors: pa.RecordBatch, row: int) -> str:
    return row_text(rows_of(vectors.slice(row, 1).drop_columns([INGESTED_AT]))[0])


def _is_usable(column: pa.Array) -> npt.NDArray[np.bool_]:
    """Return for each value whether it is a finite float32; null is NaN here."""
    usable: npt.NDArray[np.bool_] = np.abs(column.to_numpy(zero_copy_only=False)) <= np.finfo(np.float32).max
    return usable
