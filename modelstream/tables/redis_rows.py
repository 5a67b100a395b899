"""The format of rows in Redis: a position of 16 digits, then readable JSON.

`0000000000081923 {"since":"2023-11-14 22:13:20.000000","age":31,"member":true,"paid_sum":0.5}`. Positions of equal
width compare as text, which is exact: Lua's numbers are float64. Times are UTC; NaN and the infinities, which JSON
doesn't have, are text, and bytes are Base64.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from modelstream.base.timestamps import FIRST, LAST
from modelstream.errors import ConfigurationError

WIDTH = 16
"""Digits of a position: it is below 2^53 (see `identity`)."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[dict[str, Any]]).decode


def stamped(position: int, content: Mapping[str, Any]) -> bytes:
    """Return a value that can be compared by its position.

    >>> stamped(7, {"vectors": 3})
    b'0000000000000007 {"vectors":3}'
    """
    return fixed(position) + b" " + _encode(content)


def fixed(position: int) -> bytes:
    """Return a position as text of a fixed width. Raises ValueError for one that has no place in it.

    >>> fixed(81_923)
    b'0000000000081923'
    """
    if not 0 <= position < 10**WIDTH:
        raise ValueError(f"no position of a stream: {position}")
    return b"%0*d" % (WIDTH, position)


def position_of(value: bytes) -> int:
    """Return the position of a value.

    >>> position_of(b'0000000000000007 {"vectors":3}')
    7
    """
    return int(value[:WIDTH])


def check_types(schema: pa.Schema) -> None:
    """Raise ConfigurationError for a column that can't be stored.

    >>> check_types(pa.schema([("user", pa.string()), ("tags", pa.list_(pa.string()))]))
    Traceback (most recent call last):
    modelstream.errors.ConfigurationError: column 'tags' can't be stored as list<item: string>
    """
    for field in schema:
        kind = field.type
        known = pa.types.is_string(kind) or pa.types.is_int64(kind) or pa.types.is_boolean(kind)
        if not (known or pa.types.is_float64(kind) or pa.types.is_binary(kind) or _is_time(kind)):
            raise ConfigurationError(f"column {field.name!r} can't be stored as {kind}", remedy="use another type")


def values_of(batch: pa.RecordBatch) -> dict[str, bytes]:
    """Return {key: value} for rows with a key, a position, and the columns to keep.

    If a key occurs twice, the row with the higher position counts.

    >>> values_of(pa.record_batch({"user": ["a"], "applied": [5], "paid_sum": [0.5]}))
    {'a': b'0000000000000005 {"paid_sum":0.5}'}
    """
    names = batch.schema.names[2:]
    contents = zip(*(_plain(column) for column in batch.columns[2:]), strict=True) if names else [()] * len(batch)
    found: dict[str, bytes] = {}
    for key, position, content in zip(batch[0].to_pylist(), batch[1].to_pylist(), contents, strict=True):
        value = stamped(position, dict(zip(names, content, strict=True)))
        found[key] = max(value, found[key]) if key in found else value
    return found


def batch_of(keys: Sequence[str], values: Sequence[bytes], schema: pa.Schema) -> pa.RecordBatch:
    """Return the rows that `values_of` encoded. Raises ValueError for any other value.

    >>> schema = pa.schema([("user", pa.string()), ("applied", pa.int64()), ("paid_sum", pa.float64())])
    >>> batch_of(["a"], [b'0000000000000005 {"paid_sum":0.5}'], schema).to_pylist()
    [{'user': 'a', 'applied': 5, 'paid_sum': 0.5}]
    """
    try:
        contents = _decode(b"[" + b",".join([value[WIDTH + 1 :] for value in values]) + b"]")
        columns = [pa.array(keys, pa.string()), pa.array([position_of(value) for value in values], pa.int64())]
        columns += [_column([content[field.name] for content in contents], field.type) for field in list(schema)[2:]]
        return pa.RecordBatch.from_arrays(columns, schema=schema)
    except (msgspec.DecodeError, KeyError, TypeError, pa.ArrowException) as error:
        raise ValueError(str(error)) from error


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind))


def _plain(column: pa.Array) -> list[Any]:
    """Return the values of a column as JSON takes them."""
    if _is_time(column.type):
        numbers = column.view(pa.int64())
        bounds = pc.min_max(numbers).as_py()
        if bounds["min"] is None or (bounds["min"] >= FIRST and bounds["max"] <= LAST):
            texts: list[Any] = numbers.view(pa.timestamp("us")).cast(pa.string()).to_pylist()
            return texts
        return [value if value is None or not FIRST <= value <= LAST else _text(value) for value in numbers.to_pylist()]
    # Through numpy it is 10 times as fast as to_pylist.
    if column.null_count or not pa.types.is_primitive(column.type) or pa.types.is_boolean(column.type):
        values: list[Any] = column.to_pylist()
    else:
        values = column.to_numpy().tolist()
    if pa.types.is_binary(column.type):
        return [None if value is None else base64.b64encode(value).decode() for value in values]
    if pa.types.is_float64(column.type) and not pc.all(pc.is_finite(column)).as_py():
        values = [value if value is None or math.isfinite(value) else str(value) for value in values]
    return values


def _text(microseconds: int) -> str:
    text: str = pa.scalar(microseconds, pa.timestamp("us")).cast(pa.string()).as_py()
    return text


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if _is_time(kind):
        if any(type(value) is int for value in values):
            numbers = [
                pa.scalar(value).cast(pa.timestamp("us")).value if type(value) is str else value for value in values
            ]
            return pa.array(numbers, pa.int64()).view(kind)
        return pa.array(values, pa.string()).cast(pa.timestamp("us")).view(pa.int64()).view(kind)
    if pa.types.is_binary(kind):
        values = [None if value is None else base64.b64decode(value, validate=True) for value in values]
    if pa.types.is_float64(kind):
        values = [float(value) if type(value) is str else value for value in values]
    return pa.array(values, kind)
