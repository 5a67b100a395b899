"""Loads the lookup table from a CSV file."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import pyarrow as pa

from modelstream.errors import ConfigurationError
from modelstream.tables import Tables
from modelstream.use_case.declared import FieldType, Lookup, UseCase
from modelstream.use_case.lookups import lookup_key, lookup_key_type


def load_enrichment(path: Path | str, use_case: UseCase, tables: Tables) -> int:
    """Put a CSV file's rows into the table that a use case looks up, over rows with the same key; return how many.

    The file's first line names its columns; the two named `lookup.by` and `lookup.value` are taken, or `key` and
    `value`, as `table` writes them. Keys are compared as `use_case.lookups` says: 10000.0, as pandas writes it, is
    10000. A value is a finite number, or empty for none. Raises ConfigurationError with the file and line, and
    for a use case that looks nothing up.
    """
    rows = check_enrichment(path, use_case)
    assert use_case.lookup is not None
    return tables.lookup(use_case.lookup.table).load([rows])


def check_enrichment(path: Path | str, use_case: UseCase) -> pa.RecordBatch:
    """Return the rows that `load_enrichment` would load. Raises as it does."""
    lookup = use_case.lookup
    if lookup is None:
        raise ConfigurationError(
            f"the use case {use_case.name} has no lookup, so an enrichment file is of no use",
            remedy="leave --enrichment out",
        )
    return read_enrichment(path, lookup, lookup_key_type(use_case))


def read_enrichment(path: Path | str, lookup: Lookup, kind: FieldType) -> pa.RecordBatch:
    """Return a CSV file's rows (key string, value float64 or null) with keys of a type; see `load_enrichment`."""
    rows = csv.reader(io.StringIO(_text(Path(path)), newline=""), strict=True)
    values: dict[str, float | None] = {}
    try:
        header = [name.strip() for name in next(rows, [])]
        names = next((pair for pair in ((lookup.by, lookup.value), ("key", "value")) if {*pair} <= {*header}), None)
        if names is None:
            found = ", ".join(header) or "nothing"
            raise _wrong(
                path, 1, f"the columns are {found}; it needs {lookup.by!r} and {lookup.value!r}, or 'key' and 'value'"
            )
        by, value = map(header.index, names)
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise _wrong(path, rows.line_num, f"{len(row)} columns, but the first line has {len(header)}")
            key, number = lookup_key(row[by], kind), _number(row[value], path, rows.line_num)
            if not key:
                raise _wrong(path, rows.line_num, f"{lookup.by} is empty")
            if values.setdefault(key, number) != number:
                raise _wrong(path, rows.line_num, f"{lookup.by} {key} has a different value in an earlier line")
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
