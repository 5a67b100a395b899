"""The rows with the highest values of a column, and the users with the highest probability. Few rows are in memory."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from modelstream.commands.view import View
from modelstream.features.engine import features_of
from modelstream.logs.latest import latest_rows
from modelstream.use_case.columns import MODEL_VERSION, PREDICTED_AT


def highest(batches: Iterable[pa.RecordBatch | pa.Table], schema: pa.Schema, column: str, limit: int) -> pa.RecordBatch:
    """Return the `limit` rows with the highest values of a column, the highest first.

    Rows without a value are left out. Where values are equal, the order is that of the first column.

    >>> rows = pa.record_batch({"user": ["ann", "bob", "eve", "joe"], "n": [1, 2, 2, None]})
    >>> highest([rows.slice(0, 1), rows.slice(1)], rows.schema, "n", limit=2).to_pydict()
    {'user': ['bob', 'eve'], 'n': [2, 2]}
    """
    order = [(column, "descending"), (schema.names[0], "ascending")]
    best = schema.empty_table()
    for batch in batches:
        rows = pa.table(batch).select(schema.names).cast(schema)
        values = rows.column(column)
        if pa.types.is_floating(values.type):
            values = pc.if_else(pc.is_nan(values), None, values)
        rows = pa.concat_tables([best, rows.filter(pc.is_valid(values))])
        best = rows.sort_by(order).slice(0, limit).combine_chunks()
    (found,) = best.to_batches() or [pa.RecordBatch.from_pylist([], schema)]
    return found


def most_probable(view: View, limit: int) -> pa.RecordBatch:
    """Return the users whose latest prediction has the highest probability.

    That is key, probability, version of the model, when it was made, and prediction; then the features as they are now.
    """
    use_case = view.use_case
    names = [use_case.key, use_case.probability, MODEL_VERSION, PREDICTED_AT, use_case.prediction]
    schema = pa.schema([use_case.inference_log_schema.field(name) for name in names])
    shards = range(view.marker.shards) if view.epoch == 0 else None
    latest = latest_rows(view.inference_log, names, shards)
    best = highest((rows for rows in latest if rows.num_rows), schema, use_case.probability, limit)
    rows = features_of(view.features.get_many(best.column(0).to_pylist()), use_case)
    others = [name for name in rows.schema.names if name not in (use_case.key, *use_case.computed)]
    places = pc.index_in(best.column(0), value_set=rows.column(0))
    columns = [rows.column(name).take(places) for name in (*use_case.computed, *others)]
    fields = [rows.schema.field(name) for name in (*use_case.computed, *others)]
    return pa.RecordBatch.from_arrays([*best.columns, *columns], schema=pa.schema([*schema, *fields]))
