"""Rows for people and programs: a table that fits the terminal, CSV, JSON, or Parquet, written batch by batch."""

from __future__ import annotations

import io
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelstream.errors import ConfigurationError

FORMATS = ("csv", "json", "parquet")
_SUFFIXES = {".csv": "csv", ".json": "json", ".parquet": "parquet"}

MOST_CHARACTERS = 50
"""Characters of a text that is shown in a table, or more where the terminal is wide."""
LEAST_CHARACTERS = 20
"""Room for which a text is worth to be cut."""

Row = Mapping[str, Any]


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
        """Write what stands behind the rows."""


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
        for row in batch.to_pylist():
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
    """Give a file that appears under its name only when it is complete."""
    if output is None:
        if form == "parquet" and sys.stdout.isatty():
            raise ConfigurationError("Parquet is nothing to read on a terminal", remedy="give a file with --output")
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


def json_line(row: Row) -> bytes:
    """Return a row as JSON, times in ISO 8601.

    >>> json_line({"user": "u1", "sum": float("inf")})
    b'{"user":"u1","sum":null}'
    """
    return msgspec.json.encode(row)


def table(rows: Sequence[Row], width: int, title: str = "") -> Table:
    """Return a table of as many columns as fit `width` characters; the title names those that don't.

    Columns in which every row is null are left out; the last one that fits is cut if it is text.
    """
    every = dict.fromkeys(name for row in rows for name in row)
    names = [name for name in every if any(row.get(name) is not None for row in rows)]
    longest = max(MOST_CHARACTERS, width - MOST_CHARACTERS)
    texts = {name: [shown(row.get(name), longest) for row in rows] for name in names}
    fitting: list[str] = []
    left = width - 1
    for name in names:
        wanted = max(len(name), *(len(text) for text in texts[name])) + 3
        is_text = any(isinstance(row.get(name), str) for row in rows)
        if wanted > left and is_text and left >= len(name) + 3 and left >= LEAST_CHARACTERS:
            texts[name] = [shown(text, left - 3) for text in texts[name]]
        elif wanted > left and fitting:
            break
        fitting.append(name)
        left -= wanted
    hidden = names[len(fitting) :]
    if hidden:
        title += f"  (more columns: {', '.join(hidden)})"
    made = Table(title=Text(title.strip()) if title else None, title_justify="left", title_style="bold")
    for name in fitting:
        right = any(isinstance(row.get(name), int | float) for row in rows)
        made.add_column(name, justify="right" if right else "left", no_wrap=True)
    for i in range(len(rows)):
        made.add_row(*(Text(texts[name][i]) for name in fitting))
    return made


def shown(value: object, longest: int = MOST_CHARACTERS) -> str:
    """Return a value as a person reads it.

    >>> shown(1234.5678901), shown(None), shown(True), shown(3.0)
    ('1234.57', '', 'yes', '3')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(" ", "milliseconds").removesuffix(".000")
    text = str(value)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def is_terminal() -> bool:
    """Tell whether a person reads standard output."""
    return sys.stdout.isatty()


def console() -> Console:
    """Return the console to print to: as wide as the terminal, and wide enough for anything where there is none."""
    return Console(highlight=False, width=None if is_terminal() else 1000)
