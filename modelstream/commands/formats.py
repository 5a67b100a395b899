"""Writes rows for other programs: CSV, JSON or Parquet, batch by batch, to a file or to standard output."""

from __future__ import annotations

import io
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from modelstream.base.timestamps import rows_of
from modelstream.commands.output import json_line
from modelstream.errors import ConfigurationError

_SUFFIXES = {".csv": "csv", ".json": "json", ".parquet": "parquet"}


class Writer(ABC):
    """Writes batches of one schema in a format. `end` completes what was written."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._file = file
        self._schema = schema

    @abstractmethod
    def write(self, batch: pa.RecordBatch) -> None:
        """Write the rows of a batch."""

    @abstractmethod
    def end(self) -> None:
        """Write what comes after the last row."""


class CsvWriter(Writer):
    """CSV with a header; times in ISO 8601, UTC."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        super().__init__(file, schema)
        self._write(schema.empty_table(), header=True)

    def write(self, batch: pa.RecordBatch) -> None:
        self._write(batch, header=False)

    def end(self) -> None:
        pass

    def _write(self, rows: pa.RecordBatch | pa.Table, *, header: bool) -> None:
        text = io.BytesIO()
        pa.csv.write_csv(rows, text, pa.csv.WriteOptions(include_header=header))
        self._file.write(text.getvalue())


class JsonWriter(Writer):
    """A JSON array with an object a line; numbers that JSON can't express (infinite, NaN) are null."""

    _between = b"["

    def write(self, batch: pa.RecordBatch) -> None:
        for row in rows_of(batch):
            self._file.write(self._between + b"\n" + json_line(row))
            self._between = b","

    def end(self) -> None:
        self._file.write(b"[]\n" if self._between == b"[" else b"\n]\n")


class ParquetWriter(Writer):
    """A Parquet file."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        super().__init__(file, schema)
        self._writer = pq.ParquetWriter(pa.PythonFile(file, mode="w"), schema, compression="zstd")

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def end(self) -> None:
        self._writer.close()


_WRITERS: dict[str, type[Writer]] = {"csv": CsvWriter, "json": JsonWriter, "parquet": ParquetWriter}


def format_of(output: Path | None, asked: str | None) -> str:
    """Return the format to write: what was asked for, or what the file's name says, or CSV.

    >>> format_of(Path("rows.parquet"), None), format_of(None, None), format_of(Path("a.parquet"), "json")
    ('parquet', 'csv', 'json')
    """
    if asked is not None:
        return asked
    return _SUFFIXES.get(output.suffix.lower(), "csv") if output else "csv"


def write(batches: Iterable[pa.RecordBatch], schema: pa.Schema, form: str, output: Path | None) -> int:
    """Write batches to a file, or to standard output; return the number of rows. Raises ConfigurationError."""
    rows = 0
    with _opened(output, form) as file:
        writer = _WRITERS[form](file, schema)
        for batch in batches:
            if batch.num_rows:
                writer.write(batch)
                rows += batch.num_rows
        writer.end()
    return rows


@contextmanager
def _opened(output: Path | None, form: str) -> Iterator[BinaryIO]:
    """Give a file to write; it gets its name only when it is complete."""
    if output is None:
        if form == "parquet" and sys.stdout.isatty():
            raise ConfigurationError("Parquet can't be shown on a terminal", remedy="give a file with --output")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    hidden = output.with_name(f".{output.name}.tmp")
    try:
        with hidden.open("wb") as file:
            yield file
        hidden.replace(output)
    except OSError as error:
        raise ConfigurationError(
            f"{output} can't be written: {error.strerror or error}", remedy="give another --output"
        ) from error
    finally:
        hidden.unlink(missing_ok=True)
