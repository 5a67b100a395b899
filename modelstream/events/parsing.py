"""Turns JSON lines into typed events: fast for ordinary lines, and precise about the others.

A line goes through the first reader that takes it: the *flat* one (see `flat_lines`), the *strict* one (any JSON
with the fields of the use case), and last the *lenient* one, which looks into envelopes, keeps fields that the use case
does not name as JSON text, and says precisely what is wrong with the others. All three give the same values, so which
one took a line can't be seen in the result.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelstream.base.arrays import fixed_width, nulls
from modelstream.base.timestamps import TIMESTAMP
from modelstream.events.flat_lines import FlatReader
from modelstream.events.values import held, json_type, misfit
from modelstream.messages.codec import UnreadableError
from modelstream.messages.identity import Int64s
from modelstream.messages.json_text import utf_16, why_not_json
from modelstream.use_case.columns import EXTRA, INGESTED_AT, POSITION
from modelstream.use_case.declared import UseCase

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
class Unfit:
    """A value that does not fit its field: a reject, unless the hook `transform` fills the field."""

    index: int
    """The row's place in what was parsed, from 0."""
    field: str
    reason: str


@dataclass(frozen=True)
class Parsed:
    """The result of parsing lines: the readable events, in order, and the rejects.

    `events` has `UseCase.event_schema`; `indices` (int64) are its rows' places among the lines.
    """

    events: pa.RecordBatch
    indices: npt.NDArray[np.int64]
    rejects: list[Reject]
    unfit: list[Unfit]
    """Values of `events` that are null because they did not fit; `extra` has them as they came."""
    complete: bool
    """Whether it is known that no event lacks anything that `Checker` looks for."""


Row = tuple[dict[str, Any], dict[str, str]]
"""A line's values by field and `extra`, and the reasons why some are null although the line has them."""


class LineParser:
    """Parses lines of one use case."""

    def __init__(self, use_case: UseCase, *, keep_unfit: bool = False) -> None:
        """With `keep_unfit`, a line with a value that doesn't fit its field is an event without it (see `Unfit`)."""
        self._use_case = use_case
        self._keep_unfit = keep_unfit
        self._names = list(use_case.fields)
        self._flat = FlatReader(use_case)
        types = {name: json_type(declared) for name, declared in use_case.declared.items()}
        self._object = msgspec.json.Decoder(dict[str, msgspec.Raw])
        self._field = {name: msgspec.json.Decoder(type_) for name, type_ in types.items()}
        self._strict: msgspec.json.Decoder[Any] | None = None
        if all(len(path) == 1 for path in use_case.paths.values()):
            places = [(f"f{i}", type_, None) for i, type_ in enumerate(types.values())]
            renamed = {f"f{i}": path[0] for i, path in enumerate(use_case.paths.values())}
            struct = msgspec.defstruct("Event", places, rename=renamed, forbid_unknown_fields=True, gc=False)
            self._strict = msgspec.json.Decoder(struct)

    def parse(self, lines: pa.BinaryArray | Sequence[bytes], positions: Int64s, ingested_at: int | Int64s) -> Parsed:
        """Parse `lines` (n JSON texts at `positions`, taken in at `ingested_at` microseconds, or int64[n])."""
        if not isinstance(lines, pa.Array):
            lines = pa.array(lines, pa.binary())
        count = len(lines)
        flat = self._flat.read(lines)
        columns = flat.columns
        columns[EXTRA] = nulls(count, pa.string())
        # Never from the line: a field of such a name stands in `extra`.
        columns |= {name: nulls(count, pa.float64()) for name in self._use_case.event_lookups}
        rejects: list[Reject] = []
        unfit: list[Unfit] = []
        if not flat.complete and not flat.good.all():
            self._fill(columns, lines, np.flatnonzero(~flat.good), rejects, unfit)
        columns[POSITION] = fixed_width(positions, pa.int64())
        columns[INGESTED_AT] = fixed_width(np.full(count, ingested_at, np.int64), TIMESTAMP)
        schema = self._use_case.event_schema
        events = pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)
        if not rejects:
            return Parsed(events, np.arange(count, dtype=np.int64), [], unfit, flat.complete)
        keep = np.ones(count, np.bool_)
        keep[[reject.index for reject in rejects]] = False
        return Parsed(events.filter(pa.array(keep)), np.flatnonzero(keep), rejects, unfit, False)

    def _fill(
        self,
        columns: dict[str, pa.Array],
        lines: pa.BinaryArray,
        others: Int64s,
        rejects: list[Reject],
        unfit: list[Unfit],
    ) -> None:
        """Read the lines that are not flat, and put their values into the columns."""
        rows: list[dict[str, Any]] = []
        places: list[int] = []
        for index in others.tolist():
            try:
                row, reasons = self._read(lines[index].as_py())
                if reasons and not self._keep_unfit:
                    raise UnreadableError(next(iter(reasons.values())))
            except UnreadableError as error:
                rejects.append(Reject(index, str(error)))
                continue
            unfit += [Unfit(index, name, reason) for name, reason in reasons.items()]
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

    def _read(self, line: bytes) -> Row:
        """Return what a line holds. Raises UnreadableError: the reason why it can't be read."""
        if self._strict is not None:
            try:
                found = zip(self._names, msgspec.structs.astuple(self._strict.decode(line)), strict=True)
                declared = self._use_case.declared
                return {name: held(declared[name], value) for name, value in found} | {EXTRA: None}, {}
            except (*_UNREADABLE, UnreadableError):
                pass
        return self._read_leniently(line)

    def _read_leniently(self, line: bytes) -> Row:
        try:
            line.decode()
            found = self._object.decode(line)
        except msgspec.ValidationError:
            raise UnreadableError("not a JSON object") from None
        except UnicodeDecodeError as error:
            raise UnreadableError(f"not UTF-8 text: byte {error.start} of the line{utf_16(line)}") from None
        except RecursionError:
            raise UnreadableError("JSON nested too deeply") from None
        except msgspec.DecodeError as error:
            raise UnreadableError(why_not_json(line, error)) from None
        if _is_too_deep(line):
            raise UnreadableError("JSON nested too deeply")
        envelopes: dict[tuple[str, ...], dict[str, Any]] = {(): found}
        values: dict[str, Any] = {}
        unfit: dict[str, str] = {}
        for name, path in self._use_case.paths.items():
            envelope = self._envelope(envelopes, path[:-1])
            raw, values[name] = envelope.get(path[-1]), None
            if raw is None:
                continue
            declared = self._use_case.declared[name]
            try:
                values[name] = held(declared, self._field[name].decode(raw))
                del envelope[path[-1]]
            except UnreadableError as error:
                unfit[name] = f"{name}: {error}"
            except _UNREADABLE:
                unfit[name] = f"{name}: {misfit(name, declared, bytes(raw))}"
        return values | {EXTRA: _text(found)}, unfit

    def _envelope(self, known: dict[tuple[str, ...], dict[str, Any]], path: tuple[str, ...]) -> dict[str, Any]:
        """Return the object at a path, which then takes its text's place in what holds it; an empty one if there is
        none.
        """
        if path not in known:
            outer = self._envelope(known, path[:-1])
            known[path] = {}
            if path[-1] in outer:
                with contextlib.suppress(*_UNREADABLE):
                    outer[path[-1]] = known[path] = self._object.decode(outer[path[-1]])
        return known[path]


def _text(found: dict[str, Any]) -> str | None:
    """Return what is left of a line as JSON text, without envelopes of which nothing is left; None if it is nothing."""
    parts = []
    for name, value in found.items():
        text = _text(value) if isinstance(value, dict) else bytes(value).decode()
        if text is not None:
            parts.append(f"{msgspec.json.encode(name).decode()}: {text}")
    return "{" + ", ".join(parts) + "}" if parts else None


class Checker:
    """Finds the events that lack what every event of their type must have."""

    def __init__(self, use_case: UseCase) -> None:
        self._use_case = use_case
        self._needing: dict[str, list[str]] = {}
        """By field the names of the types that need it, in the order of the fields."""
        for field in use_case.fields:
            for name, code in use_case.event_codes.items():
                if field in use_case.needs(use_case.event_names[code]):
                    self._needing.setdefault(field, []).append(name)

    def check(self, events: pa.RecordBatch) -> list[Reject]:
        """Return the rejects among `events`: those without a key (or with an empty one), time or type, or without a
        field that their type needs, which is finite if it is a number. Of several such fields the first is told.
        """
        rejects: dict[int, str] = {}
        use_case = self._use_case
        types = events.column(use_case.type)
        for field, names in self._needing.items():
            missing = _is_missing(events.column(field))
            lacking = missing
            if use_case.fields[field] == "number":  # NaN where there is none
                lacking = ~np.isfinite(events.column(field).to_numpy(zero_copy_only=False))
            if lacking.any():
                needing = pa.compute.is_in(types, value_set=pa.array(names)).to_numpy(zero_copy_only=False)
                for index in np.flatnonzero(lacking & needing).tolist():
                    what = "missing" if missing[index] else "not a finite number"
                    rejects.setdefault(index, f"{field}: {what}")
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
