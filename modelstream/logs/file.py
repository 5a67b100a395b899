"""One file of a log: its name, its footer, and how its rows are encoded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from modelstream.errors import ConfigurationError
from modelstream.messages.identity import Checkpoint, Watermarks

VERSION = 2
"""Version 2 has parts, and files that get longer; files of version 1 are read and go on."""
FOOTER = b"modelstream"
"""The key of our part of a file's metadata: JSON, see `Footer`."""

SAMPLE_ROWS = 1024
"""Rows sampled to choose the encoding of a column: this takes 0.2 ms per file; 4,096 rows took a tenth of the writing
time."""

_NAME = re.compile(r"(\d{2})-(\d{2})-(\d{8})\.(parquet|part)")


class LogFile(NamedTuple):
    """The identity of a log file. Sorted, they are in the order of replay.

    >>> LogFile(0, 3, 17).name, LogFile.of("00-03-00000017.parquet"), LogFile.of("notes.txt")
    ('00-03-00000017.parquet', LogFile(epoch=0, shard=3, number=17), None)
    >>> LogFile(0, 3, 17).part, LogFile.of_part("00-03-00000017.part"), LogFile.of("00-03-00000017.part")
    ('00-03-00000017.part', LogFile(epoch=0, shard=3, number=17), None)
    """

    epoch: int
    shard: int
    number: int

    @property
    def name(self) -> str:
        """The name of the file."""
        return f"{self.epoch:02d}-{self.shard:02d}-{self.number:08d}.parquet"

    @property
    def part(self) -> str:
        """The name of the part with this number: parts have numbers of their own."""
        return f"{self.epoch:02d}-{self.shard:02d}-{self.number:08d}.part"

    @property
    def key(self) -> tuple[int, int]:
        """The epoch and the shard."""
        return self.epoch, self.shard

    @classmethod
    def of(cls, name: str) -> LogFile | None:
        """Return the identity that a file name says, None if it is not a file of a log."""
        return cls._of(name, "parquet")

    @classmethod
    def of_part(cls, name: str) -> LogFile | None:
        """Return the identity that the name of a part says, None if it is none."""
        return cls._of(name, "part")

    @classmethod
    def _of(cls, name: str, ending: str) -> LogFile | None:
        match = _NAME.fullmatch(name)
        return cls(*map(int, match.groups()[:3])) if match and match[4] == ending else None


class Footer(msgspec.Struct, kw_only=True):
    """The metadata of a file: its identity, and the checkpoint after its rows.

    `read_footer` has an example.
    """

    version: int = VERSION
    epoch: int
    shard: int
    number: int
    """The number of the file; of a part, the number that it has if it becomes a file by itself, or -1."""
    commits: int | None = None
    """How many commits there were in this epoch and shard, with those of this file; None in version 1."""
    groups: int = 1
    """How many times rows were put into this file."""
    definition: str = ""
    """Hash of the definition that made the rows of this file (`use_case.meaning`); empty if nobody knew it."""
    rows: int
    """Rows in this file and all earlier ones of the same epoch and shard."""
    offset: int
    watermarks: dict[str, dict[str, int]]
    counters: dict[str, int]

    @property
    def file(self) -> LogFile:
        """Which file of the log it was written as."""
        return LogFile(self.epoch, self.shard, self.number)

    @property
    def end(self) -> int:
        """The number of the next commit. In version 1 each commit was a file."""
        return self.number + 1 if self.commits is None else self.commits

    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint after the rows of this file."""
        return Checkpoint(self.offset, Watermarks.from_json(self.watermarks), dict(self.counters))


def content(table: pa.Table, footer: Footer) -> pa.Buffer:
    """Return a table as a Parquet file, with a row group for each million rows.

    `read_footer` has an example.
    """
    sink = pa.BufferOutputStream()
    described = table.replace_schema_metadata({FOOTER: msgspec.json.encode(footer)})
    pq.write_table(described, sink, **encoding(table))
    return sink.getvalue()


def encoding(table: pa.Table) -> dict[str, Any]:
    """Return how a table is written, as arguments of `pyarrow.parquet.ParquetWriter`.

    >>> encoding(pa.table({"user": ["a"], "at": [7]}))["column_encoding"]
    {'at': 'DELTA_BINARY_PACKED'}
    """
    dictionary = _repetitive(table)
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": dictionary,
        "column_encoding": {
            # Times and positions rise: as differences they take a third of the space.
            field.name: "DELTA_BINARY_PACKED"
            for field in table.schema
            if field.name not in dictionary and (pa.types.is_int64(field.type) or pa.types.is_timestamp(field.type))
        },
    }


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
    return footer_of(path, metadata.metadata), schema


def footer_of(path: Path | str, metadata: Mapping[bytes, bytes] | None) -> Footer:
    """Return the footer that stands in a file's metadata; raises as `read_footer`, which has an example."""
    stored = msgspec.json.Decoder(dict[str, object])
    try:
        ours = (metadata or {})[FOOTER]
        version = stored.decode(ours).get("version")
        if isinstance(version, int) and version > VERSION:
            raise ConfigurationError(
                f"{path} has version {version} of the log format; this program reads up to {VERSION}",
                remedy="update modelstream, or give another folder",
            )
        return msgspec.json.decode(ours, type=Footer)
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
