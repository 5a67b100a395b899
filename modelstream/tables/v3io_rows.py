"""Rows of Arrow as items of V3IO and back: names of items, attributes and their types.

V3IO keeps 14 digits of a float. So a row has its floats twice: as numbers, for people and data frames, and all of them
exactly in the text `_floats`, from which we read. It is text (Base64), as bytes are, because v3io-frames can neither
read nor write a blob; one in a table's schema makes the table unreadable for it.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelstream.errors import ConfigurationError

FLOATS = "_floats"
MAX_NAME = 255
"""Bytes of an item's name."""
MAX_TEXT = 61_199
"""Characters of a text attribute; v3io-py checks it."""

_PLAIN = re.compile(r"[A-Za-z0-9_-](?:[A-Za-z0-9_@+ -]*[A-Za-z0-9_@+-])?")
_BYTE = re.compile(rb"[^A-Za-z0-9_@+-]")
_ATTRIBUTE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_RESERVED = {"and", "in", "or", "out", "not", "remove", "set", "exists", "idx", "raw_data"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXACT_MICROS = 1_000_000 << 32
"""v3io-py makes a float of a time: within 2^32 s of 1970 it is still right to the microsecond."""


def item_name(key: str) -> str:
    """Return the name of a key's item: the key itself, with =XX for bytes that a name can't have.

    A period would split the name into two keys, and a slash would make a path. A name that would be too long ends with
    a hash.

    >>> item_name("10115"), item_name("a.b@c"), item_name(""), item_name("ä ")
    ('10115', 'a=2Eb@c', '=', '=C3=A4=20')
    """
    if _PLAIN.fullmatch(key) and len(key) <= MAX_NAME:
        return key
    name = _BYTE.sub(lambda found: b"=%02X" % found[0][0], key.encode("utf-8", "surrogatepass")).decode() or "="
    if len(name) <= MAX_NAME:
        return name
    return f"{name[:180]}=={hashlib.blake2b(key.encode('utf-8', 'surrogatepass'), digest_size=32).hexdigest()}"


def check_columns(schema: pa.Schema) -> None:
    """Raise ConfigurationError for a column that can't be an attribute.

    >>> check_columns(pa.schema([("user", pa.string()), ("paid.sum", pa.float64())]))
    Traceback (most recent call last):
    modelstream.errors.ConfigurationError: the column 'paid.sum' can't be an attribute in V3IO
    """
    for field in schema:
        if not _ATTRIBUTE.fullmatch(field.name) or field.name.startswith("__") or field.name.lower() in _RESERVED:
            raise ConfigurationError(
                f"the column {field.name!r} can't be an attribute in V3IO",
                remedy="use letters, digits and _, begin with a letter or _, and avoid the keywords of V3IO's "
                "expressions",
            )
        attribute_type(field)


def attribute_type(field: pa.Field) -> str:
    """Return the type of a column in a table's schema (as v3io-frames and Spark read it).

    >>> attribute_type(pa.field("x", pa.float64()))
    'double'
    """
    kind = field.type
    if pa.types.is_timestamp(kind):
        return "timestamp"
    for test, name in (
        (pa.types.is_float64, "double"),
        (pa.types.is_int64, "long"),
        (pa.types.is_boolean, "boolean"),
        (pa.types.is_string, "string"),
        (pa.types.is_binary, "string"),  # Base64
    ):
        if test(kind):
            return name
    raise ConfigurationError(f"column {field.name!r} can't be stored as {kind}", remedy="use another type")


def attributes_of(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return the attributes of each row, as v3io-py takes them. A null is no attribute.

    >>> attributes_of(pa.record_batch({"key": ["a"], "n": [5], "x": pa.array([None], pa.float64())}))
    [{'key': 'a', 'n': 5, '_floats': 'AAAAAAAAAAAA'}]
    """
    rows: list[dict[str, Any]] = [{} for _ in range(batch.num_rows)]
    for field, column in zip(batch.schema, batch.columns, strict=True):
        for row, value in zip(rows, _values(column), strict=True):
            if value is not None:
                row[field.name] = value
    packed = _pack_floats([column for column in batch.columns if pa.types.is_float64(column.type)], batch.num_rows)
    for row, floats in zip(rows, packed, strict=False):
        row[FLOATS] = floats
    return rows


def batch_of(items: Sequence[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Return items, typed as they are in a response's body, as a batch.

    >>> items = [{"key": {"S": "a"}, "n": {"N": "5"}}, {"key": {"S": "b"}}]
    >>> batch_of(items, pa.schema([("key", pa.string()), ("n", pa.int64())])).to_pylist()
    [{'key': 'a', 'n': 5}, {'key': 'b', 'n': None}]
    """
    exact = iter(_unpack_floats(items, sum(pa.types.is_float64(kind) for kind in schema.types)))
    arrays = []
    for field in schema:
        values: list[Any] = [read_value(item.get(field.name)) for item in items]
        if pa.types.is_float64(field.type):
            for row, (known, value) in enumerate(zip(*next(exact), strict=True)):
                if known >= 0:
                    values[row] = float(value) if known else None
        if pa.types.is_timestamp(field.type):
            arrays.append(pa.array(values, pa.int64()).view(field.type))
        elif pa.types.is_float64(field.type):
            arrays.append(pa.array([None if value is None else float(value) for value in values], pa.float64()))
        elif pa.types.is_binary(field.type):
            decoded = [None if value is None else base64.b64decode(value) for value in values]
            arrays.append(pa.array(decoded, field.type))
        else:
            arrays.append(pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def read_value(typed: dict[str, Any] | None) -> Any:
    """Return a typed value as Python's, None for none: a time as microseconds, a blob as text.

    >>> read_value({"N": "5"}), read_value({"TS": "1:500000"}), read_value(None)
    (5, 1000500, None)
    """
    if typed is None:
        return None
    ((kind, value),) = typed.items()
    if kind == "N":
        try:
            return int(value)
        except ValueError:
            return float(value)
    if kind == "TS":
        seconds, nanoseconds = value.split(":")
        return int(seconds) * 1_000_000 + (int(nanoseconds) + 500) // 1000
    if kind == "B":
        return base64.b64decode(value).decode("utf-8", "surrogatepass")
    return value


def text_value(text: str) -> str | bytes:
    r"""Return a text as it is stored: as a blob where V3IO takes no such text.

    >>> text_value("ann"), text_value("a\0b")
    ('ann', b'a\x00b')
    """
    if "\0" in text or len(text) > MAX_TEXT:
        return text.encode("utf-8", "surrogatepass")
    return text


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_string(column.type):
        return [None if text is None else text_value(text) for text in column.to_pylist()]
    if pa.types.is_timestamp(column.type):
        return [None if micros is None else _time(micros) for micros in column.view(pa.int64()).to_pylist()]
    values: list[Any] = column.to_pylist()
    if pa.types.is_binary(column.type):
        return [None if value is None else base64.b64encode(value).decode() for value in values]
    if pa.types.is_float64(column.type):
        return [value if value is not None and math.isfinite(value) else None for value in values]
    return values


def _time(micros: int) -> datetime | int:
    return _EPOCH + timedelta(microseconds=micros) if abs(micros) < _EXACT_MICROS else micros


def _pack_floats(columns: Sequence[pa.Array], rows: int) -> list[str]:
    """Return for each row its floats, in Base64: for every column a byte, 1 where it is not null, then 8 bytes each."""
    if not columns:
        return []
    known = np.empty((rows, len(columns)), np.uint8)
    values = np.empty((rows, len(columns)), "<f8")
    for number, column in enumerate(columns):
        known[:, number] = column.is_valid().to_numpy(zero_copy_only=False)
        values[:, number] = column.fill_null(0.0).to_numpy(zero_copy_only=False)
    return [base64.b64encode(a.tobytes() + b.tobytes()).decode() for a, b in zip(known, values, strict=True)]


def _unpack_floats(
    items: Sequence[dict[str, Any]], columns: int
) -> list[tuple[npt.NDArray[np.int8], npt.NDArray[np.float64]]]:
    """Return for each column the value, and whether it is known exactly (1), known to be null (0), or not known (-1).

    It is not known in items that others wrote.
    """
    known = np.full((len(items), columns), -1, np.int8)
    values = np.zeros((len(items), columns))
    for row, item in enumerate(items):
        packed = base64.b64decode(item.get(FLOATS, {}).get("S", ""))
        if columns and len(packed) == 9 * columns:
            known[row] = np.frombuffer(packed, np.int8, columns)
            values[row] = np.frombuffer(packed, "<f8", columns, columns)
    return [(known[:, number], values[:, number]) for number in range(columns)]
