"""Makes a file of a log longer: a new file with all bytes of the old one, then new rows, then a new footer.

The old footer stays in it, between the rows. So whoever knows the old file in part finds what it expects: a
`pyarrow.dataset` that is kept has its rows where they were, and Polars, which looks at the size of a file first and
opens it later, finds the old footer at the old end. The bytes are copied as they are: this takes memory and encoding
for the new rows only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from modelstream.logs.file import FOOTER, Footer, encoding

COPIED_AT_ONCE = 1 << 20
_MAGIC = 4
"""The length of PAR1, with which a Parquet file begins and ends."""


def write_longer(old: Path, new: Path, table: pa.Table, footer: Footer, *, between: Callable[[], None]) -> None:
    """Write to `new` the Parquet file `old` with more rows, of the same schema, and another footer.

    `between` is called after every megabyte that was copied. Raises OSError, and ArrowException if `old` is broken.

    >>> import tempfile
    >>> from modelstream.logs.file import content, read_footer
    >>> footer = Footer(epoch=0, shard=3, number=0, commits=1, rows=2, offset=7, watermarks={}, counters={})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     old, new = Path(folder) / "old", Path(folder) / "new"
    ...     size = old.write_bytes(content(pa.table({"user": ["a", "b"]}), footer))
    ...     footer.rows = 3
    ...     write_longer(old, new, pa.table({"user": ["c"]}), footer, between=lambda: None)
    ...     read_footer(new)[0].rows, pq.read_table(new).to_pydict()
    (3, {'user': ['a', 'b', 'c']})
    """
    # Blanks, one more each time: without rows too, a longer file is longer, which is how others see that it changed.
    described = table.replace_schema_metadata({FOOTER: msgspec.json.encode(footer) + b" " * footer.groups})
    added: list[Any] = []
    with pa.OSFile(str(old)) as source, pa.OSFile(str(new), "wb") as sink:
        before = pq.read_metadata(source)
        with pq.ParquetWriter(sink, described.schema, metadata_collector=added, **encoding(table)) as writer:
            # The writer has written PAR1; its next rows begin where the sink stands then.
            _copy(source, sink, between)
            if table.num_rows:
                writer.write_table(described)
    with new.open("rb+") as file:
        file.truncate(_rows_end(file))
        file.seek(0, os.SEEK_END)
        file.write(_joined(described.schema, before, added[0]))


def _copy(source: pa.NativeFile, sink: pa.NativeFile, between: Callable[[], None]) -> None:
    source.seek(_MAGIC)
    while piece := source.read(COPIED_AT_ONCE):
        sink.write(piece)
        between()


def _rows_end(file: Any) -> int:
    """Return where the footer begins."""
    size: int = file.seek(0, os.SEEK_END)
    file.seek(size - 8)
    return size - 8 - int.from_bytes(file.read(4), "little")


def _joined(schema: pa.Schema, *parts: Any) -> memoryview:
    """Return a footer with the row groups of all parts, and the schema's metadata."""
    found: list[Any] = []
    with pq.ParquetWriter(pa.BufferOutputStream(), schema, metadata_collector=found):
        pass
    for part in parts:
        found[0].append_row_groups(part)
    sink = pa.BufferOutputStream()
    found[0].write_metadata_file(sink)
    return memoryview(sink.getvalue())[_MAGIC:]
