"""Turns JSON lines into typed events: fast for ordinary lines, and precise about the others.

A line goes through the first reader that takes it: the *flat* one (see `flat_lines`), the *strict* one (any JSON
with the fields of the use case), and last the *lenient* one, which keeps fields that the use case does not name as
JSON text and says precisely what is wrong with the others. All three give the same values, so which one took a line
can't be seen in the result.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelstream.base.times import INVALID, TIMESTAMP, parse_times
from modelstream.events.flat_lines import FlatReader
from modelstream.messages.codec import UnreadableError
from modelstream.messages.identity import Int64s
from modelstream.use_case.columns import EXTRA, INGESTED_AT, POSITION
from modelstream.use_case.declared import UseCase

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_JSON_TYPES: dict[str, Any] = {
    "key": str | int | None,
    "time": str | None,
    "text": str | None,
    "number": float | None,
    "integer": Int64 | None,
    "identifier": str | int | None,
    "boolean": bool | None,
}
_EXPECTED = {
    "key": "text or an integer",
    "time": "text with an ISO 8601 time",
    "text": "text",
    "number": "a finite number",
    "integer": "a 64-bit integer",
    "identifier": "text or an integer",
    "boolean": "true or false",
}
MAX_NESTING = 256
"""Levels of arrays and objects in a line, including the line's own. Without this limit Python's would hold, which also
counts the caller's frames: a line that is taken again after a crash might then be read differently."""

_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+"')
_BRACKET = re.compile(rb"[\[\]{}]")
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True)
class Reject:
    """A row that can never succeed."""

    index: int
    """The row's place in what was parsed, from 0."""
    reason: str


@dataclass(frozen=True)
class Parsed:
    """The result of parsing lines: the readable events, in order, and the rejects.

    `events` has `UseCase.event_schema`; `indices` (int64) are its rows' places among the lines.
    """

    events: pa.RecordBatch
    indices: npt.NDArray[np.int64]
    rejects: list[Reject]


class LineParser:
    """Parses lines of one use case."""

    def __init__(self, use_case: UseCase) -> None:
        self._use_case = use_case
        self._names = list(use_case.fields)
        self._flat = FlatReader(use_case)
        places = [(f"f{i}", _JSON_TYPES[kind], None) for i, kind in enumerate(use_case.fields.values())]
        renamed = {f"f{i}": name for i, name in enumerate(self._names)}
        struct = msgspec.defstruct("Event", places, rename=renamed, forbid_unknown_fields=True, gc=False)
        self._strict = msgspec.json.Decoder(struct)
        self._object = msgspec.json.Decoder(dict[str, msgspec.Raw])
        self._field = {name: msgspec.json.Decoder(_JSON_TYPES[kind]) for name, kind in use_case.fields.items()}

    def parse(self, lines: pa.BinaryArray | Sequence[bytes], positions: Int64s, ingested_at: int | Int64s) -> Parsed:
        """Parse `lines` (n JSON texts at `positions`, taken in at `ingested_at` microseconds, or int64[n])."""
        if not isinstance(lines, pa.Array):
            lines = pa.array(lines, pa.binary())
        count = len(lines)
        flat = self._flat.read(lines)
        columns = flat.columns
        columns[EXTRA] = pa.nulls(count, pa.string())
        rejects: list[Reject] = []
        if not flat.good.all():
            self._fill(columns, lines, np.flatnonzero(~flat.good), rejects)
        columns[POSITION] = pa.array(positions)
        columns[INGESTED_AT] = pa.array(np.full(count, ingested_at, np.int64)).view(TIMESTAMP)
        schema = self._use_case.event_schema
        events = pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)
        if not rejects:
            return Parsed(events, np.arange(count, dtype=np.int64), [])
        keep = np.ones(count, np.bool_)
        keep[[reject.index for reject in rejects]] = False
        return Parsed(events.filter(pa.array(keep)), np.flatnonzero(keep), rejects)

    def _fill(self, columns: dict[str, pa.Array], lines: pa.BinaryArray, others: Int64s, rejects: list[Reject]) -> None:
        """Read the lines that are not flat, and put their values into the columns."""
        rows: list[dict[str, Any]] = []
        places: list[int] = []
        for index in others.tolist():
            row = self._read(lines[index].as_py())
            if isinstance(row, str):
                rejects.append(Reject(index, row))
            else:
                places.append(index)
                rows.append(row)
        if not rows:
            return
        source = np.arange(len(lines))
        source[places] = len(lines) + np.arange(len(places))
        taken = pa.array(source)
        schema = self._use_case.event_schema
        for name in (*self._names, EXTRA):
            column = pa.array([row[name] for row in rows], schema.field(name).type)
            if column.null_count < len(column):
                columns[name] = pa.concat_arrays([columns[name], column]).take(taken)

    def _read(self, line: bytes) -> dict[str, Any] | str:
        """Return the values of a line, and its extra text; or the reason why it can't be read."""
        try:
            values = dict(zip(self._names, msgspec.structs.astuple(self._strict.decode(line)), strict=True))
            extra = None
        except _UNREADABLE:
            try:
                values, extra = self._read_leniently(line)
            except UnreadableError as error:
                return str(error)
        for name, value in values.items():
            kind = self._use_case.fields[name]
            if value is None:
                continue
            if kind == "time":
                values[name] = micros = int(parse_times(pa.array([value], pa.string()))[0])
                if micros == INVALID:
                    return f"{name}: not an ISO 8601 time: {_shown(value.encode())}"
            elif kind in ("key", "identifier"):
                values[name] = str(value)
        return values | {EXTRA: extra}

    def _read_leniently(self, line: bytes) -> tuple[dict[str, Any], str | None]:
        """Return a line's values and its extra text. Raises UnreadableError: the reason why it can't be read."""
        try:
            line.decode()
            found = self._object.decode(line)
        except msgspec.ValidationError:
            raise UnreadableError("not a JSON object") from None
        except UnicodeDecodeError as error:
            raise UnreadableError(f"not UTF-8 text: byte {error.start} of the line") from None
        except RecursionError:
            raise UnreadableError("JSON nested too deeply") from None
        except msgspec.DecodeError as error:
            raise UnreadableError(f"not JSON: {str(error).removeprefix('JSON is malformed: ')}") from None
        if _is_too_deep(line):
            raise UnreadableError("JSON nested too deeply")
        values: dict[str, Any] = {}
        for name in self._names:
            raw = found.pop(name, None)
            try:
                values[name] = None if raw is None else self._field[name].decode(raw)
            except _UNREADABLE:
                expected = _EXPECTED[self._use_case.fields[name]]
                raise UnreadableError(f"{name}: expected {expected}, got {_shown(bytes(raw or b''))}") from None
        parts = (f"{msgspec.json.encode(name).decode()}: {bytes(raw).decode()}" for name, raw in found.items())
        return values, "{" + ", ".join(parts) + "}" if found else None


class Checker:
    """Finds the events that lack what every event of their type must have."""

    def __init__(self, use_case: UseCase) -> None:
        self._use_case = use_case
        self._values: dict[str, list[str]] = {}
        for name, code in use_case.event_codes.items():
            field = use_case.value_field(use_case.event_names[code])
            if field is not None:
                self._values.setdefault(field, []).append(name)

    def check(self, events: pa.RecordBatch) -> list[Reject]:
        """Return the rejects among `events`: those without a key (or with an empty one), time or type, or without a
        finite value where their type has one.
        """
        rejects: dict[int, str] = {}
        use_case = self._use_case
        types = events.column(use_case.type)
        for field, names in self._values.items():
            values = events.column(field).to_numpy(zero_copy_only=False)  # NaN where there is none
            lacking = ~np.isfinite(values)
            if lacking.any():
                needing = pa.compute.is_in(types, value_set=pa.array(names)).to_numpy(zero_copy_only=False)
                missing = _is_missing(events.column(field))
                for index in np.flatnonzero(lacking & needing).tolist():
                    rejects[index] = f"{field}: {'missing' if missing[index] else 'not a finite number'}"
        for field in (use_case.type, use_case.time, use_case.key):
            missing = _is_missing(events.column(field))
            rejects.update(dict.fromkeys(np.flatnonzero(missing).tolist(), f"{field}: missing"))
        empty = pa.compute.equal(events.column(use_case.key), "").fill_null(False).to_numpy(zero_copy_only=False)
        rejects.update(dict.fromkeys(np.flatnonzero(empty).tolist(), f"{use_case.key}: empty"))
        return [Reject(index, rejects[index]) for index in sorted(rejects)]


def _is_missing(column: pa.Array) -> npt.NDArray[np.bool_]:
    if column.null_count == 0:
        return np.zeros(len(column), np.bool_)
    missing: npt.NDArray[np.bool_] = column.is_null().to_numpy(zero_copy_only=False)
    return missing


def _is_too_deep(line: bytes) -> bool:
    """Tell whether a line, which is JSON, is nested deeper than `MAX_NESTING`."""
    if line.count(b"[") + line.count(b"{") <= MAX_NESTING:
        return False
    depth = 0
    for bracket in _BRACKET.findall(_TEXT.sub(b"", line)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_NESTING:
            return True
    return False


def _shown(text: bytes, limit: int = 40) -> str:
    """Return the start of a text for an error message."""
    shown = text[:limit].decode("utf-8", "replace")
    return shown + "…" if len(text) > limit else shown
