"""Arrow record batches as rows of SQLite and back: int64, timestamp (as INTEGER), float64, bool, string, binary.

And what every table has in common: how its rows are counted and read in batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from modelstream.clients.sqlite import File, guarded, quoted
from modelstream.errors import ConfigurationError


def column_type(field: pa.Field) -> str:
    """Return the type of an SQLite column.

    >>> column_type(pa.field("x", pa.timestamp("us", tz="UTC"))), column_type(pa.field("x", pa.float64()))
    ('INTEGER', 'REAL')
    """
    kind = field.type
    if pa.types.is_float64(kind):
        return "REAL"
    if pa.types.is_int64(kind) or pa.types.is_boolean(kind) or _is_time(kind):
        return "INTEGER"
    if pa.types.is_string(kind):
        return "TEXT"
    if pa.types.is_binary(kind):
        return "BLOB"
    raise ConfigurationError(f"column {field.name!r} can't be stored as {kind}", remedy="use another type")


def rows_of(batch: pa.RecordBatch) -> list[tuple[Any, ...]]:
    """Return the rows of a batch as SQLite takes them.

    SQLite would store NaN as NULL, so NaN is stored as text; it stores -0.0 as 0.0.

    >>> rows_of(pa.record_batch({"key": ["a", "b", "c"], "x": [0.5, None, float("nan")]}))
    [('a', 0.5), ('b', None), ('c', 'NaN')]
    """
    return list(zip(*(_values(column) for column in batch.columns), strict=True))


def batch_of(rows: Iterable[Sequence[Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Return the rows that SQLite gave as a batch of a schema.

    >>> batch_of([("a", 0.5), ("c", "NaN")], pa.schema([("key", pa.string()), ("x", pa.float64())]))["x"][1]
    <pyarrow.DoubleScalar: nan>
    """
    columns: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.RecordBatch.from_arrays(
        [_array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
    )


def parts(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the keys in parts of a few sizes, so that SQLite has few statements to compile.

    A key costs 1.5 us in a part of many, and 5 us alone.

    >>> list(parts(["a", "b"]))
    [['a'], ['b']]
    """
    at = 0
    for size in (512, 64, 8, 1):
        while len(keys) - at >= size:
            yield keys[at : at + size]
            at += size


def count_rows(file: File, table: str) -> int:
    """Return the number of rows of a table. Raises UnavailableError while the file is locked.

    `sqlite.SqliteTables` has an example.
    """
    connection = file.connection
    with guarded(file.path):
        count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return count


def scan_rows(file: File, table: str, schema: pa.Schema, batch_size: int, after: str = "") -> Iterator[pa.RecordBatch]:
    """Yield the rows after a key in batches, with one statement per batch: a long one would keep the write-ahead log
    from being cut.

    `sqlite.SqliteTables` has an example.
    """
    key = quoted(schema.field(0).name)
    columns = ", ".join(quoted(name) for name in schema.names)
    last: tuple[str, ...] = (after,) if after else ()
    while True:
        where = f"WHERE {key} > ?" if last else ""
        connection = file.connection
        with guarded(file.path):
            rows = connection.execute(
                f"SELECT {columns} FROM {table} {where} ORDER BY {key} LIMIT {batch_size}", last
            ).fetchall()
        if rows:
            yield batch_of(rows, schema)
        if len(rows) < batch_size:
            return
        last = (rows[-1][0],)


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind))


def _values(column: pa.Array) -> list[Any]:
    if _is_time(column.type):
        column = column.view(pa.int64())
    # Through numpy it is 10 times as fast as to_pylist, and half of a commit was spent there.
    if pa.types.is_string(column.type):
        values: list[Any] = column.to_numpy(zero_copy_only=False).tolist()
    elif not pa.types.is_primitive(column.type) or pa.types.is_boolean(column.type):
        values = column.to_pylist()
    elif column.null_count:
        objects = column.fill_null(0).to_numpy().astype(object)
        objects[column.is_null().to_numpy(zero_copy_only=False)] = None
        values = objects.tolist()
    else:
        values = column.to_numpy().tolist()
    if pa.types.is_float64(column.type) and pc.any(pc.is_nan(column)).as_py():
        values = ["NaN" if value != value else value for value in values]
    return values


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if _is_time(kind):
        return pa.array(values, pa.int64()).view(kind)
    if pa.types.is_boolean(kind):
        return pa.array([None if value is None else bool(value) for value in values], pa.bool_())
    if pa.types.is_float64(kind) and "NaN" in values:
        return pa.array([math.nan if value == "NaN" else value for value in values], kind)
    return pa.array(values, kind)
