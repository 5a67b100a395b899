"""Reads ordinary JSON lines into columns, in one pass over the bytes.

Ordinary lines are *flat* objects of a use case's fields: no nesting, no escapes, no other fields, and values of the
fields' types that can be read in only one way (see `base.json_bytes`). It takes 0.3 µs per line. Any other line is only
marked, and left to `parsing`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelstream.base.arrays import fixed_width, gather, nulls
from modelstream.base.compiled import compiled, unwritable
from modelstream.base.json_bytes import (
    BLANK,
    CLOSE,
    COLON,
    COMMA,
    MINUS,
    NEWLINE,
    NO_NAME,
    OPEN,
    POINT,
    QUOTE,
    RETURN,
    TAB,
    Bytes,
    Int64s,
    after_blanks,
    scalar_end,
    string_end,
    whole_end,
)
from modelstream.base.times import INVALID, parse_time
from modelstream.base.timestamps import FIRST, LAST
from modelstream.messages.json_text import MOST_EXACT
from modelstream.use_case.declared import UseCase

TEXT, IDENTIFIER, TIME, NUMBER, INTEGER, BOOLEAN = range(6)
_CODES = {
    "key": IDENTIFIER,
    "time": TIME,
    "text": TEXT,
    "number": NUMBER,
    "integer": INTEGER,
    "identifier": IDENTIFIER,
    "boolean": BOOLEAN,
}
_EPOCHS = {None: 0, "s": 1_000_000, "ms": 1000, "us": 1, "ns": -1000}
"""What makes microseconds of a number in a time: a factor, less than 0 a divisor, 0 if numbers are no times."""
MOST_FIELDS = 64
"""For this many places in a line, the field that was there in the previous line is remembered and tried first."""
_POWERS = np.array([float(10**i) for i in range(23)])

_NOTHING = np.frombuffer(b"\n", np.uint8)

Float64s = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@compiled
def _same(data: Bytes, start: int, end: int, names: Bytes, first: int, last: int) -> bool:
    if end - start != last - first:
        return False
    for i in range(end - start):  # noqa: SIM110 (numba compiles the loop, not `all`)
        if data[start + i] != names[first + i]:
            return False
    return True


@compiled
def _field(data: Bytes, start: int, end: int, names: Bytes, ends: Int64s, guess: int) -> int:
    """Return the number of the field whose name is data[start:end], trying `guess` first; -1 for none."""
    if _same(data, start, end, names, ends[guess], ends[guess + 1]):
        return guess
    for field in range(len(ends) - 1):
        if _same(data, start, end, names, ends[field], ends[field + 1]):
            return field
    return -1


@compiled
def _number(data: Bytes, start: int, end: int) -> float:
    """Return the JSON number data[start:end]; NaN if float64 arithmetic might round it incorrectly."""
    digits, power, negative = 0, 0, data[start] == MINUS
    at = start + 1 if negative else start
    while at < end and 48 <= data[at] <= 57:
        digits = digits * 10 + int(data[at]) - 48
        at += 1
    if digits > MOST_EXACT:
        return np.nan
    if at < end and data[at] == POINT:
        at += 1
        while at < end and 48 <= data[at] <= 57:
            digits = digits * 10 + int(data[at]) - 48
            power -= 1
            at += 1
            if digits > MOST_EXACT:
                return np.nan
    if at < end:
        exponent = 0
        down = data[at + 1] == MINUS
        for place in range(at + 1 if 48 <= data[at + 1] <= 57 else at + 2, end):
            exponent = exponent * 10 + int(data[place]) - 48
        power += -exponent if down else exponent
    if power < -22 or power > 22 or (negative and digits == 0):
        return np.nan
    value = float(-digits if negative else digits)
    return value / float(_POWERS[-power]) if power < 0 else value * float(_POWERS[power])


@compiled
def _integer(data: Bytes, start: int, end: int) -> int:
    value = 0
    for at in range(start + 1 if data[start] == MINUS else start, end):
        value = value * 10 + int(data[at]) - 48
    return -value if data[start] == MINUS else value


@compiled
def _since_1970(count: int, epoch: int) -> int:
    """Return the microseconds of a count of units (see `_EPOCHS`), `INVALID` outside the years 1 to 9999."""
    if epoch < 0:
        count //= -epoch
    elif epoch == 0 or abs(count) > LAST // epoch:  # the product of a larger one may not fit 64 bits
        return INVALID
    else:
        count *= epoch
    return count if FIRST <= count <= LAST else INVALID


@compiled
def _scalar(data: Bytes, at: int, kind: int, epoch: int, value: Int64s, number: Float64s) -> int:
    """Read a value of this kind that is not text, or null. Return its end, or -1 to leave the line to `parsing`.

    `value` takes what `_line` says, `value[2]` whether there is one; `number` one of kind NUMBER.
    """
    end = scalar_end(data, at)
    if end < 0 or data[at] == 110:
        value[2] = 0
        return end
    value[2] = 1
    first = data[at]
    if first == 116 or first == 102:
        value[0] = first == 116
        return end if kind == BOOLEAN else -1
    if kind == NUMBER:
        number[0] = _number(data, at, end)
        return -1 if np.isnan(number[0]) else end
    if kind != IDENTIFIER and kind != INTEGER and kind != TIME:
        return -1
    digits = whole_end(data, at, end)
    if digits < 0 or (kind == IDENTIFIER and first == MINUS):  # -0 is the identifier 0
        return -1
    if kind == IDENTIFIER:
        value[0], value[1] = at, digits
        return end
    value[0] = _integer(data, at, digits)
    if kind == TIME:
        value[0] = _since_1970(value[0], epoch)
        return -1 if value[0] == INVALID else end
    return end


@compiled
def _value(data: Bytes, at: int, stop: int, kind: int, epoch: int, value: Int64s, number: Float64s) -> int:
    """Read the value at `at`; return its end, -1 for the slow way."""
    if data[at] != QUOTE:
        return _scalar(data, at, kind, epoch, value, number)
    start = at + 1
    end = string_end(data, start, stop)
    if end < 0 or kind > TIME:
        return -1
    value[0], value[1], value[2] = start, end, 1
    if kind == TIME:
        value[0] = parse_time(data, start, end)
        if value[0] == INVALID:
            return -1
    return end + 1


@compiled
def _line(
    data: Bytes,
    at: int,
    stop: int,
    row: int,
    fields: tuple[Bytes, Int64s, Int64s, Int64s, Int64s],
    values: tuple[Int64s, Int64s, Float64s, Bools],
    value: Int64s,
    number: Float64s,
) -> bool:
    """into row `row` of the fields' values; return whether it is an ordinary line.

    `fields`: names, where they end, kinds, what numbers are as times, and the field that stood at each place of the
    line before.
    `values` (all [fields, rows]): text and keys are data[firsts:lasts]; a time in microseconds, an integer or a truth
    value is in `firsts`, a number in `numbers`; `known` tells which there are.
    """
    names, name_ends, kinds, epochs, order = fields
    firsts, lasts, numbers, known = values
    while stop > at and (data[stop - 1] == BLANK or NEWLINE >= data[stop - 1] >= TAB or data[stop - 1] == RETURN):
        stop -= 1
    if stop == at or data[stop - 1] != CLOSE:  # the functions below read up to this brace at the most
        return False
    at = after_blanks(data, at)
    if data[at] != OPEN:
        return False
    at = after_blanks(data, at + 1)
    place, more = 0, data[at] != CLOSE
    while more:
        if data[at] != QUOTE:
            return False
        end = string_end(data, at + 1, stop)
        if end < 0:
            return False
        field = _field(data, at + 1, end, names, name_ends, order[place])
        if field < 0:
            return False
        if place < MOST_FIELDS - 1:
            order[place] = field
            place += 1
        at = after_blanks(data, end + 1)
        if data[at] != COLON:
            return False
        at = _value(data, after_blanks(data, at + 1), stop, kinds[field], epochs[field], value, number)
        if at < 0:
            return False
        firsts[field, row], lasts[field, row], known[field, row] = value[0], value[1], value[2] == 1
        numbers[field, row] = number[0]
        at = after_blanks(data, at)
        more = data[at] == COMMA
        if more:
            at = after_blanks(data, at + 1)
        elif data[at] != CLOSE:
            return False
    return at + 1 == stop


@compiled
def _read(
    data: Bytes,
    ends: npt.NDArray[np.int32],
    names: Bytes,
    name_ends: Int64s,
    kinds: Int64s,
    epochs: Int64s,
    firsts: Int64s,
    lasts: Int64s,
    numbers: Float64s,
    known: Bools,
    good: Bools,
    needed: Int64s,
    types: Bytes,
    type_ends: Int64s,
    needs: Int64s,
    needs_ends: Int64s,
) -> bool:
    """Read lines into rows; return whether all are ordinary, and have what each event must have.

    `needed` are the fields that all events have (the first with text that is not empty, the last with the type);
    `types` and where they end are the names of the declared events, and `needs[needs_ends[i]:needs_ends[i + 1]]` the
    fields that the i-th must have.
    """
    complete = True
    fields = (names, name_ends, kinds, epochs, np.zeros(MOST_FIELDS, np.int64))
    values = (firsts, lasts, numbers, known)
    value, number = np.empty(3, np.int64), np.empty(1, np.float64)
    for row in range(len(good)):
        good[row] = _line(data, int(ends[row]), int(ends[row + 1]), row, fields, values, value, number)
        if not good[row]:
            known[:, row] = False
        for field in needed:
            complete &= known[field, row]
        if complete:
            first, last = firsts[needed[-1], row], lasts[needed[-1], row]
            event = _field(data, first, last, types, type_ends, 0)
            complete = lasts[needed[0], row] > firsts[needed[0], row]
            if event >= 0:
                for place in range(needs_ends[event], needs_ends[event + 1]):
                    complete &= known[needs[place], row]
    return complete


@dataclass(frozen=True)
class Flat:
    """What `FlatReader.read` found in n lines."""

    columns: dict[str, pa.Array]
    """The values of every field; null where a line lacks the field, and in lines that are not ordinary."""
    good: Bools
    """Which lines are ordinary (bool[n])."""
    complete: bool
    """Whether all are, and have a key, a time, a type, and what an event of their type needs."""


class FlatReader:
    """Reads lines that are flat objects of a use case's fields."""

    def __init__(self, use_case: UseCase) -> None:
        schema = use_case.event_schema
        self._fields = [(name, _CODES[kind], schema.field(name).type) for name, kind in use_case.fields.items()]
        # A field in an envelope is in no flat line.
        names = [NO_NAME if len(path) > 1 else path[0].encode() for path in use_case.paths.values()]
        self._names = np.frombuffer(b"".join(names), np.uint8)
        self._name_ends = np.cumsum([0, *map(len, names)])
        self._kinds = np.array([code for _, code, _ in self._fields], np.int64)
        self._epochs = np.array([_EPOCHS[field.epoch] for field in use_case.declared.values()], np.int64)
        places = {name: place for place, (name, _, _) in enumerate(self._fields)}
        self._needed = np.array([places[name] for name in (use_case.key, use_case.time, use_case.type)], np.int64)
        types = [
            (name.encode(), [places[field] for field in use_case.needs(use_case.event_names[code])])
            for name, code in use_case.event_codes.items()
        ]
        self._types = np.frombuffer(b"".join(name for name, _ in types), np.uint8)
        self._type_ends = np.cumsum([0, *(len(name) for name, _ in types)])
        self._needs: Int64s = np.array([place for _, needs in types for place in needs], np.int64)
        self._needs_ends: Int64s = np.cumsum([0, *(len(needs) for _, needs in types)])
        self._has_types = bool(types) and self._kinds[self._needed[-1]] <= IDENTIFIER

    def read(self, lines: pa.BinaryArray) -> Flat:
        """Return the fields of n lines."""
        count, width = len(lines), len(self._fields)
        known, good = np.zeros((width, count), np.bool_), np.empty(count, np.bool_)
        firsts, lasts = np.empty((width, count), np.int64), np.empty((width, count), np.int64)
        numbers = np.empty((width, count), np.float64)
        _, ends, data = lines.buffers()
        content = unwritable(np.frombuffer(data, np.uint8) if data is not None and data.size else _NOTHING)
        places = unwritable(np.frombuffer(ends, np.int32)[lines.offset : lines.offset + count + 1])
        fields = (self._names, self._name_ends, self._kinds, self._epochs)
        events = (self._needed, self._types, self._type_ends)
        found = _read(
            content, places, *fields, firsts, lasts, numbers, known, good, *events, self._needs, self._needs_ends
        )
        complete = found and self._has_types
        columns: dict[str, pa.Array] = {}
        some, whole = known.any(axis=1).tolist(), known.all(axis=1).tolist()
        for field, (name, code, kind) in enumerate(self._fields):
            have = None if whole[field] else known[field]
            if not some[field]:
                columns[name] = nulls(count, kind)
            elif code <= IDENTIFIER:
                columns[name] = gather(content, firsts[field], lasts[field], kind, have)
            else:
                values = numbers[field] if code == NUMBER else firsts[field]
                columns[name] = fixed_width(values.astype(np.bool_) if code == BOOLEAN else values, kind, have)
        return Flat(columns, good, complete)
