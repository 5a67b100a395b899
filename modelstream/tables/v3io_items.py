"""Shared by the tables in V3IO: the schema for other readers, scans, counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from modelstream.clients.v3io import Container
from modelstream.tables.v3io_rows import FLOATS, attribute_type

SEGMENTS = 4
"""Number of segments of a table that are read at once, as in v3io-frames. When a page of 1,000 items takes 30 ms,
90,000 items take 7 s in one segment and 4 s in four. When pages take no time it makes no difference; then our own
decoding, 1.3 s, dominates."""


def make_schema(container: Container, table: str, schema: pa.Schema) -> None:
    """Write the object `.#schema`, without which v3io-frames can't read a table that it didn't write.

    Raises as `Container.call` does. An example would need V3IO: `tests/contract/test_v3io_tables.py` runs on a
    stand-in for it.
    """
    fields = [
        {"name": field.name, "type": attribute_type(field), "nullable": number > 0}
        for number, field in enumerate(schema)
    ]
    fields.append({"name": FLOATS, "type": "string", "nullable": True})
    container.call("kv", "create_schema", table_path=container.path(table), key=schema.field(0).name, fields=fields)


def scan_sorted(
    container: Container,
    table: str,
    schema: pa.Schema,
    batch_size: int,
    read: Callable[[Sequence[dict[str, Any]]], pa.RecordBatch],
    after: str = "",
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a table after a key, in the order of their keys. V3IO has no order, so all are read first.

    `read` makes rows of items. Raises as `Container.scan` does. An example would need V3IO: see `make_schema`.
    """
    key = schema.field(0).name
    pages = [read([item for item in page if key in item]) for page in container.scan(table, segments=SEGMENTS)]
    rows = pa.Table.from_batches(pages, schema).combine_chunks()
    if after:
        rows = rows.filter(pc.greater(rows.column(key), after))
    rows = rows.take(pc.sort_indices(rows, [(key, "ascending")])).combine_chunks()
    for start in range(0, rows.num_rows, batch_size):
        yield rows.slice(start, batch_size).to_batches()[0]


def count_items(container: Container, table: str, key: str) -> int:
    """Return the number of items that have a key as an attribute: the table's schema is among its items.

    Raises as `Container.scan` does. An example would need V3IO: see `make_schema`.
    """
    return sum(len(page) for page in container.scan(table, "__name", f"exists({key})"))
