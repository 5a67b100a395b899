"""One file of a log: its name, its footer, and how its rows are encoded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from modelstream.errors import ConfigurationError

VERSION = 1
FOOTER = b"modelstream"
"""The key of our part of a file's metadata: JSON, see `Footer`."""

SAMPLE_ROWS = 1024
"""Rows sampled to choose the encoding of a column: this takes 0.2 ms per file; 4,096 rows took a tenth of the writing
time."""

_NAME = re.compile(r"(\d{2})-(\d{2})-(\d{8})\.parquet")


class LogFile(NamedTuple):
    """The identity of a log file. Sorted, they are in the order of replay.

    >>> LogFile(0, 3, 17).name, LogFile.of("00-03-00000017.parquet"), LogFile.of("notes.txt")
    ('00-03-00000017.parquet', LogFile(epoch=0, shard=3, number=17), None)
    """

    epoch: int
    shard: int
    number: int

    @property
    def name(self) -> str:
        """The name of the file."""
        return f"{self.epoch:02d}-{self.shard:02d}-{self.number:08d}.parquet"

    @classmethod
    def of(cls, name: str) -> LogFile | None:
        """Return the identity that a file name says, None if it is not a file of a log."""
        match = _NAME.fullmatch(name)
        return cls(*map(int, match.groups())) if match else None


class Footer(msgspec.Struct, kw_only=True):
    """The metadata of a file: its identity, and the checkpoint after its rows.

    `read_footer` has an example.
    """

    version: int = VERSION
    epoch: int
    shard: int
    number: int
    rows: int
    """Rows in this file and all earlier ones of the same epoch and shard."""
    offset: int
    watermarks: dict[str, dict[str, int]]
    counters: dict[str, int]

    @property
    def file(self) -> LogFile:
        """Which file of the log it was written as."""
        return LogFile(self.epoch, self.shard, self.number)


def content(table: pa.Table, footer: Footer) -> pa.Buffer:
    """Return a table as a Parquet file, with a row group for each million rows.

    `read_footer` has an example.
    """
    dictionary = _repetitive(table)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata({FOOTER: msgspec.json.encode(footer)}),
        sink,
        compression="zstd",
        compression_level=1,
        use_dictionary=dictionary,
        column_encoding={
            # Times and positions rise: as differences they take a third of the space.
            field.name: "DELTA_BINARY_PACKED"
            for field in table.schema
            if field.name not in dictionary and (pa.types.is_int64(field.type) or pa.types.is_timestamp(field.type))
        },
    )
    return sink.getvalue()


def _repetitive(table: pa.Table) -> list[str]:
    """Return the columns worth a dictionary: text, and numbers that occur twice or more on average.

    For other columns it would be built in vain: with one for all columns, writing takes a third longer and the files
    are a seventh larger (docs/performance.md).
    """
    sample = table.slice(max(0, table.num_rows - SAMPLE_ROWS) // 2, SAMPLE_ROWS)
    return [
        field.name
        for field, column in zip(sample.schema, sample.columns, strict=True)
        if pa.types.is_string(field.type) or 2 * pc.count_distinct(column, mode="all").as_py() <= len(column)
    ]


def read_footer(path: Path | str, end: pa.Buffer | None = None) -> tuple[Footer, pa.Schema]:
    """Return the footer of a file and the schema of its rows; for a file that is elsewhere, `end` is its last part.

    Raises ConfigurationError for a file that is broken, of a newer version, or not of a log.

    >>> footer = Footer(epoch=0, shard=3, number=0, rows=2, offset=7, watermarks={}, counters={"events": 2})
    >>> file = content(pa.table({"user": ["a", "b"]}), footer)
    >>> found, schema = read_footer("in memory", end=file)
    >>> found.file.name, found.rows, found.offset, schema.names
    ('00-03-00000000.parquet', 2, 7, ['user'])
    """
    with readable(path):
        metadata = pq.read_metadata(path if end is None else pa.BufferReader(end))
        schema = metadata.schema.to_arrow_schema().remove_metadata()
    stored = msgspec.json.Decoder(dict[str, object])
    try:
        ours = (metadata.metadata or {})[FOOTER]
        version = stored.decode(ours).get("version")
        if isinstance(version, int) and version > VERSION:
            raise ConfigurationError(
                f"{path} has version {version} of the log format; this program reads up to {VERSION}",
                remedy="update modelstream, or give another folder",
            )
        return msgspec.json.decode(ours, type=Footer), schema
    except (KeyError, msgspec.DecodeError) as error:
        raise ConfigurationError(
            f"{path} was not written by this pipeline", remedy="move it out of the folder of the log"
        ) from error


@contextmanager
def readable(path: Path | str) -> Iterator[None]:
    """Turn the errors of a broken Parquet file into ConfigurationError.

    >>> with readable("a.parquet"):
    ...     pq.ParquetFile(pa.BufferReader(b"PAR1 and no more"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    modelstream.errors.ConfigurationError: a.parquet can't be read: Parquet magic bytes not found in footer. ...
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ConfigurationError(
            f"{path} can't be read: {str(error).splitlines()[0]}",
            remedy="restore it from a copy: the log can't continue without it",
        ) from error
