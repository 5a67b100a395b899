"""Loads a lookup table from a CSV file."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from modelstream.errors import ConfigurationError
from modelstream.tables import Tables
from modelstream.use_case.declared import FieldType, UseCase
from modelstream.use_case.lookups import lookup_key, lookup_tables

Files = str | Path | Sequence[str | Path] | None
"""A CSV file, several, or none."""
Pair = tuple[str, str]
"""The names of the column with the keys and of that with the values."""


def load_enrichment(path: Path | str, use_case: UseCase, tables: Tables, table: str = "") -> int:
    """Put a CSV file's rows into a table that a use case looks up, over rows with the same key; return how many.

    The file's first line names its columns; the two are taken that are called as the field to look up by and as the
    feature, or `key` and `value`, as `table` writes them. If the use case looks up several tables and `table` doesn't
    say which, the columns do. Keys are compared as `use_case.lookups` says: 10000.0, as pandas writes it, is 10000. A
    value is a finite number, or empty for none. Raises ConfigurationError with the file and line, and for a use case
    that looks nothing up.
    """
    name, rows = check_enrichment(path, use_case, table)
    return tables.lookup(name).load([rows])


def load_enrichment_files(files: Files, use_case: UseCase, tables: Tables) -> list[str]:
    """Load CSV files, each into the table that its columns name; return these tables.

    All files are read before the first is loaded. Raises as `load_enrichment` does.
    """
    found = [check_enrichment(path, use_case) for path in files_of(files)]
    for table, rows in found:
        tables.lookup(table).load([rows])
    return [table for table, _ in found]


def files_of(files: Files) -> list[Path | str]:
    """Return the files of an option or parameter, which may be one or several.

    >>> files_of("codes.csv"), files_of(["a.csv", "b.csv"]), files_of(None)
    (['codes.csv'], ['a.csv', 'b.csv'], [])
    """
    if files is None:
        return []
    return [files] if isinstance(files, str | Path) else [*files]


def check_enrichment(path: Path | str, use_case: UseCase, table: str = "") -> tuple[str, pa.RecordBatch]:
    """Return the table and the rows that `load_enrichment` would load. Raises as it does."""
    known = {
        name: [(lookup.by, feature) for feature, lookup in features.items()]
        for name, features in lookup_tables(use_case).items()
    }
    if not known:
        raise ConfigurationError(
            f"the use case {use_case.name} has no lookup, so an enrichment file is of no use",
            remedy="leave --enrichment out",
        )
    table = table or (next(iter(known)) if len(known) == 1 else _table_of(path, known, use_case))
    kinds = {use_case.fields[by] for by, _ in known[table]}
    return table, read_enrichment(path, known[table], FieldType.TEXT if kinds == {FieldType.TEXT} else kinds.pop())


def _table_of(path: Path | str, known: Mapping[str, Sequence[Pair]], use_case: UseCase) -> str:
    """Return the table that a file is for, by its columns."""
    try:
        header = {
            name.strip() for name in next(csv.reader(io.StringIO(_text(Path(path)), newline=""), strict=True), [])
        }
    except csv.Error as error:
        raise _wrong(path, 1, str(error)) from None
    found = [table for table, pairs in known.items() if any({*pair} <= header for pair in pairs)]
    if len(found) == 1:
        return found[0]
    raise ConfigurationError(
        f"the enrichment file {path}: its columns don't say for which of the tables {', '.join(known)} it is, "
        f"which the use case {use_case.name} looks up",
        remedy="call them as the field to look up by and as the feature; or `python pipeline.py table load NAME FILE`",
    )


def read_enrichment(path: Path | str, pairs: Sequence[Pair], kind: FieldType) -> pa.RecordBatch:
    """Return a CSV file's rows (key string, value float64 or null) with keys of a type; see `load_enrichment`.

    `pairs` are what its two columns may be called, besides `key` and `value`.
    """
    rows = csv.reader(io.StringIO(_text(Path(path)), newline=""), strict=True)
    values: dict[str, float | None] = {}
    try:
        header = [name.strip() for name in next(rows, [])]
        names = next((pair for pair in (*pairs, ("key", "value")) if {*pair} <= {*header}), None)
        if names is None:
            found, wanted = ", ".join(header) or "nothing", ", ".join(f"{by!r} and {name!r}" for by, name in pairs)
            raise _wrong(path, 1, f"the columns are {found}; it needs {wanted}, or 'key' and 'value'")
        by, value = map(header.index, names)
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise _wrong(path, rows.line_num, f"{len(row)} columns, but the first line has {len(header)}")
            key, number = lookup_key(row[by], kind), _number(row[value], path, rows.line_num)
            if not key:
                raise _wrong(path, rows.line_num, f"{names[0]} is empty")
            if values.setdefault(key, number) != number:
                raise _wrong(path, rows.line_num, f"{names[0]} {key} has a different value in an earlier line")
    except csv.Error as error:
        raise _wrong(path, rows.line_num, str(error)) from None
    return pa.record_batch({"key": pa.array(values, pa.string()), "value": pa.array(values.values(), pa.float64())})


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"the enrichment file {path} can't be read: {error.strerror or error}",
            remedy="give the path of a CSV file that this user may read",
        ) from error
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _wrong(path, line, "not UTF-8 text") from None


def _number(text: str, path: Path | str, line: int) -> float | None:
    text = text.strip()
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or "_" in text:
        raise _wrong(path, line, f"{text!r} is not a finite number")
    return number


def _wrong(path: Path | str, line: int, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"the enrichment file {path}, line {line}: {what}",
        remedy="give a CSV file (UTF-8, commas) whose first line names the columns",
    )
