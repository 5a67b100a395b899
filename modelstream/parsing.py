"""JSON lines to typed events: fast for a line as it should be, exact about one that is not.

A line goes through the first decoder that takes it: the *narrow* one (key, time, type and the value fields:
what most events carry), the *wide* one (every field of the use case), and last the *lenient* one, which keeps
fields that the use case does not name as JSON text and says precisely what is wrong with the others. All three
give the same values, so which one took a line can't be seen in the result.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelstream.columns import EXTRA, INGESTED_AT, POSITION
from modelstream.identity import Int64s
from modelstream.times import INVALID, TIMESTAMP, parse_times
from modelstream.use_case import UseCase

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
"""Levels of arrays and objects in a line, itself included. Without a limit of our own it would be Python's, which
counts the caller's frames too: a line taken again after a crash might be read differently."""

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
    """What lines gave: the readable events, in order, and the rejects.

    `events` has `UseCase.event_schema`; `indices` (int64) are its rows' places among the lines.
    """

    events: pa.RecordBatch
    indices: npt.NDArray[np.int64]
    rejects: list[Reject]


class LineParser:
    """Parses lines of one use case. Keeps no state but which decoder to try first."""

    def __init__(self, use_case: UseCase) -> None:
        self._use_case = use_case
        values = {use_case.value_field(event) for event in use_case.event_names} - {None}
        self._all = list(use_case.fields)
        narrow = {use_case.key, use_case.time, use_case.type, *values}
        self._narrow = [name for name in self._all if name in narrow]
        self._rare = [name for name in self._all if name not in narrow]
        self._decode_narrow = self._decoder("Narrow", self._narrow)
        self._decode_wide = self._decoder("Wide", self._all)
        self._object = msgspec.json.Decoder(dict[str, msgspec.Raw])
        self._field = {name: msgspec.json.Decoder(_JSON_TYPES[kind]) for name, kind in use_case.fields.items()}
        self._wide_first = False

    def _decoder(self, name: str, fields: Sequence[str]) -> Callable[[bytes], Any]:
        places = [(f"f{i}", _JSON_TYPES[self._use_case.fields[field]], None) for i, field in enumerate(fields)]
        renamed = {f"f{i}": field for i, field in enumerate(fields)}
        struct = msgspec.defstruct(name, places, rename=renamed, forbid_unknown_fields=True, gc=False)
        return msgspec.json.Decoder(struct).decode

    def parse(self, lines: Sequence[bytes], positions: Int64s, ingested_at: int | Int64s) -> Parsed:
        """Parse `lines` (n JSON texts at `positions`, taken in at `ingested_at` microseconds, or int64[n])."""
        rejects: list[Reject] = []
        columns, extra = self._decode(lines, rejects)
        events = self._batch(columns, extra, positions, ingested_at, rejects)
        if not rejects:
            return Parsed(events, np.arange(len(lines), dtype=np.int64), [])
        keep = np.ones(len(lines), np.bool_)
        keep[[reject.index for reject in rejects]] = False
        rejects.sort(key=lambda reject: reject.index)
        return Parsed(events.filter(pa.array(keep)), np.flatnonzero(keep), rejects)

    def _decode(
        self, lines: Sequence[bytes], rejects: list[Reject]
    ) -> tuple[dict[str, list[Any]], dict[int, tuple[dict[str, Any], str | None]]]:
        """Return the narrow columns (lists of n), and the whole row and the extra text of each other line."""
        others: dict[int, tuple[dict[str, Any], str | None]] = {}
        structs: list[Any] = []
        decode, blank = self._decode_narrow, self._decode_narrow(b"{}")
        if self._wide_first:
            pending: Sequence[int] = range(len(lines))
            structs = [blank] * len(lines)
        else:
            pending = failed = []
            decoded = map(decode, lines)
            while len(structs) < len(lines):
                try:
                    structs.extend(decoded)  # keeps what came before a failure; a loop here costs 50 ns a line
                except _UNREADABLE:
                    failed.append(len(structs))
                    structs.append(blank)
        for index in pending:
            row = self._decode_other(lines[index])
            if isinstance(row, str):
                rejects.append(Reject(index, row))
            else:
                others[index] = row
        self._wide_first = len(pending) * 4 > len(lines)
        columns = dict(zip(self._narrow, _transposed(structs, len(self._narrow)), strict=True))
        for index, (values, _) in others.items():
            for name in self._narrow:
                columns[name][index] = values[name]
        return columns, others

    def _decode_other(self, line: bytes) -> tuple[dict[str, Any], str | None] | str:
        """Return a line's values and its extra text, or the reason why it can't be read."""
        try:
            return dict(zip(self._all, msgspec.structs.astuple(self._decode_wide(line)), strict=True)), None
        except _UNREADABLE:
            pass
        try:
            line.decode()
            found = self._object.decode(line)
        except msgspec.ValidationError:
            return "not a JSON object"
        except UnicodeDecodeError as error:
            return f"not UTF-8 text: byte {error.start} of the line"
        except RecursionError:
            return "JSON nested too deeply"
        except msgspec.DecodeError as error:
            return f"not JSON: {str(error).removeprefix('JSON is malformed: ')}"
        if _is_too_deep(line):
            return "JSON nested too deeply"
        values: dict[str, Any] = {}
        for name in self._all:
            raw = found.pop(name, None)
            try:
                values[name] = None if raw is None else self._field[name].decode(raw)
            except _UNREADABLE:
                return f"{name}: expected {_EXPECTED[self._use_case.fields[name]]}, got {_shown(bytes(raw or b''))}"
        parts = (f"{msgspec.json.encode(name).decode()}: {bytes(raw).decode()}" for name, raw in found.items())
        return values, "{" + ", ".join(parts) + "}" if found else None

    def _batch(
        self,
        columns: dict[str, list[Any]],
        others: dict[int, tuple[dict[str, Any], str | None]],
        positions: Int64s,
        ingested_at: int | Int64s,
        rejects: list[Reject],
    ) -> pa.RecordBatch:
        count = len(positions)
        schema = self._use_case.event_schema
        arrays: dict[str, pa.Array] = {
            POSITION: pa.array(positions),
            INGESTED_AT: pa.array(np.full(count, ingested_at, np.int64)).cast(TIMESTAMP),
        }
        for name in self._narrow:
            arrays[name] = self._column(name, columns[name], rejects)
        if not others:
            rare = [*self._rare, EXTRA]
            arrays |= {name: pa.nulls(count, schema.field(name).type) for name in rare}
            return pa.record_batch([arrays[name] for name in schema.names], schema)
        places = list(others)
        spread = np.full(count, -1, np.int64)
        spread[places] = np.arange(len(places))
        taken = pa.array(spread, mask=spread < 0)
        for name in self._rare:
            arrays[name] = self._rare_column(name, [row[name] for row, _ in others.values()], places, taken, rejects)
        arrays[EXTRA] = pa.array([extra for _, extra in others.values()], pa.string()).take(taken)
        return pa.record_batch([arrays[name] for name in schema.names], schema)

    def _rare_column(
        self, name: str, values: list[Any], places: list[int], taken: pa.Array, rejects: list[Reject]
    ) -> pa.Array:
        wrong: list[Reject] = []
        column = self._column(name, values, wrong).take(taken)
        refused = {reject.index for reject in rejects}
        found = (Reject(places[reject.index], reject.reason) for reject in wrong)
        rejects.extend(reject for reject in found if reject.index not in refused)
        return column

    def _column(self, name: str, values: list[Any], rejects: list[Reject]) -> pa.Array:
        kind = self._use_case.fields[name]
        if kind == "time":
            return self._time_column(name, values, rejects)
        if kind in ("key", "identifier"):
            return _texts(values)
        return pa.array(values, self._use_case.event_schema.field(name).type)

    def _time_column(self, name: str, values: list[Any], rejects: list[Reject]) -> pa.Array:
        texts = pa.array(values, pa.string())
        micros = parse_times(texts)
        invalid = micros == INVALID
        if invalid.any():
            known = texts.is_valid().to_numpy(zero_copy_only=False)
            refused = {reject.index for reject in rejects}
            for index in np.flatnonzero(invalid & known):
                if index not in refused:
                    shown = _shown(str(values[index]).encode())
                    rejects.append(Reject(int(index), f"{name}: not an ISO 8601 time: {shown}"))
            return pa.array(micros, mask=invalid).cast(TIMESTAMP)
        return pa.array(micros).cast(TIMESTAMP)


class Checker:
    """Tells which events of a use case lack what every event of their type must have."""

    def __init__(self, use_case: UseCase) -> None:
        self._use_case = use_case
        self._values: dict[str, list[str]] = {}
        for name, code in use_case.event_codes.items():
            field = use_case.value_field(use_case.event_names[code])
            if field is not None:
                self._values.setdefault(field, []).append(name)

    def check(self, events: pa.RecordBatch) -> list[Reject]:
        """Return the rejects among `events`: no key, an empty key, no time, no type, or no
        finite value where one counts.
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


def _transposed(structs: list[Any], width: int) -> list[list[Any]]:
    """Return the values of each field. (Attribute by attribute: zip over tuples takes three times as long.)"""
    return [list(map(operator.attrgetter(f"f{i}"), structs)) for i in range(width)]


def _texts(values: list[Any]) -> pa.Array:
    """Return text and integers as text."""
    try:
        return pa.array(values, pa.string())
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return pa.array([value if value is None else str(value) for value in values], pa.string())


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
