"""Times as values: their type, the years that can be told, and rows with times for people.

Text is made a time in `times`, which needs compiled loops; this module needs none.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

FIRST, LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The first and the last microsecond of the years 1 to 9999 in UTC: other times fit neither Python's datetime nor most
databases."""
TIMESTAMP = pa.timestamp("us", tz="UTC")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_WITHOUT_ZONE = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)


def datetime_of(microseconds: int) -> datetime:
    """Return a time in us since 1970 UTC as a datetime: exactly, or the nearest in the years 1 to 9999.

    >>> datetime_of(1_763_640_000_000_001).isoformat()
    '2025-11-20T12:00:00.000001+00:00'
    """
    return _EPOCH + timedelta(microseconds=min(max(microseconds, FIRST), LAST))


def microseconds_of(at: datetime) -> int:
    """Return a datetime in us since 1970 UTC, exactly. One without a zone is in UTC.

    >>> microseconds_of(datetime(2025, 11, 20, 12, 0, 0, 1))
    1763640000000001
    """
    return (at - (_EPOCH if at.tzinfo else _EPOCH_WITHOUT_ZONE)) // _MICROSECOND


def rows_of(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return rows as Python values. A time outside the years 1 to 9999, which no datetime holds, is ISO 8601 text.

    Such times are refused now; logs and tables that earlier versions wrote may hold them.

    >>> rows_of(pa.record_batch({"at": pa.array([LAST + 1], TIMESTAMP)}))
    [{'at': '10000-01-01T00:00:00.000000Z'}]
    """
    columns = [_values(column) for column in batch.columns]
    return [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(column: pa.Array) -> list[Any]:
    values: list[Any]
    if pa.types.is_timestamp(column.type) and column.type.unit == "us":
        inside = [micros is None or FIRST <= micros <= LAST for micros in column.view(pa.int64()).to_pylist()]
        if not all(inside):
            texts = column.cast(pa.string()).to_pylist()
            return [column[i].as_py() if exact else texts[i].replace(" ", "T") for i, exact in enumerate(inside)]
    values = column.to_pylist()
    return values
