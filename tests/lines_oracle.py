"""What must become of a line of JSON, told with `json` and `datetime`: nothing shared with the parser."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from modelstream.use_case.declared import Field, UseCase
from tests.oracle import Event

MAX_NESTING = 256
_TIME = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d|\d{4}-W\d\d-\d|(?P<basic>\d{8}|\d{4}W\d{3}))"
    r"([ Tt](?P<clock>\d\d:\d\d(?P<second>:\d\d)?|(?P<plain>\d{4}(?P<seconds>\d\d)?))([.,](?P<fraction>\d{1,9}))?"
    r"(?P<offset> ?([Zz]|UTC|(?P<sign>[+-])(?P<hours>\d\d)(:?(?P<minutes>\d\d))?))?)?",
    re.ASCII,
)
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
MOST_EXACT = 2**53
UNITS = {"s": Fraction(10**6), "ms": Fraction(10**3), "us": Fraction(1), "ns": Fraction(1, 1000)}


class Unreadable(ValueError):  # noqa: N818
    """A line that must become a dead letter."""


@dataclass(frozen=True)
class Expected:
    """What a readable line holds."""

    values: Event
    """Known fields that are not null; times in microseconds since 1970 UTC."""
    extra: dict[str, Any] | None
    """The other fields, None if there are none."""


def time_of(text: str) -> int | None:
    """Return the time that a text says in microseconds since 1970 UTC, None if it is not one.

    >>> time_of("1970-01-01 00:00:01.5"), time_of("1970-01-01T01:00+01"), time_of("1970-02-30 00:00")
    (1500000, 0, None)
    """
    match = _TIME.fullmatch(text)
    if match is None or (match["plain"] and not match["basic"]):
        return None
    if match["fraction"] and not (match["second"] or match["seconds"]):
        return None
    try:
        moment = datetime.fromisoformat(f"{match['date']}T{match['clock'] or '00:00'}").replace(tzinfo=UTC)
    except ValueError:
        return None
    offset = 0
    if match["sign"]:
        hours, minutes = int(match["hours"]), int(match["minutes"] or 0)
        if hours > 23 or minutes > 59:
            return None
        offset = (hours * 60 + minutes) * (-1 if match["sign"] == "-" else 1)
    micros = micros_of(moment) + int((match["fraction"] or "0")[:6].ljust(6, "0")) - offset * 60_000_000
    return micros if micros_of(FIRST) <= micros <= micros_of(LAST) else None


def micros_of(moment: datetime) -> int:
    """Return microseconds since 1970 UTC."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


class _Whole(int):
    """An integer as JSON wrote it; `text` may be too long for Python to convert."""

    text: str


def _whole(text: str) -> _Whole:
    number = _Whole(text[:4000])  # Python converts up to 4,300 digits
    number.text = text
    return number


def _refused(text: str) -> None:
    raise Unreadable(f"{text} is no JSON")


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def read_line(line: bytes, use_case: UseCase) -> Expected:
    """Return what a line holds. Raises `Unreadable` for one that must become a dead letter.

    A line cut by its reader is longer than anything that is read: leave it out.
    """
    try:
        found = json.loads(line.decode(), parse_constant=_refused, parse_int=_whole)
        json.dumps(found, ensure_ascii=False).encode()  # lone surrogates can't be stored
        deep = _depth(found)
    except (ValueError, RecursionError) as error:
        raise Unreadable(str(error)) from error
    if not isinstance(found, dict):
        raise Unreadable("not an object")
    if deep > MAX_NESTING:
        raise Unreadable("nested too deeply")
    values = {}
    for name, path in use_case.paths.items():
        value = _at(found, path)
        if value is not None:
            values[name] = _taken(value, use_case.declared[name])
    _check(values, use_case)
    return Expected(values, _without(found, [*use_case.paths.values()]))


def _at(found: Any, path: Sequence[str]) -> Any:
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _without(found: dict[str, Any], paths: Sequence[Sequence[str]]) -> dict[str, Any] | None:
    """Return an object without the values at these paths, None if nothing is left."""
    left = {}
    for name, value in found.items():
        inside = [path[1:] for path in paths if path[0] == name]
        if [] in map(list, inside):
            continue
        kept = _without(value, inside) if inside and isinstance(value, dict) else value
        if kept is not None or not (inside and isinstance(value, dict)):
            left[name] = kept
    return left or None


def _check(values: Event, use_case: UseCase) -> None:
    for name in (use_case.key, use_case.time, use_case.type):
        if name not in values:
            raise Unreadable(f"no {name}")
    if values[use_case.key] == "":
        raise Unreadable("an empty key")
    for name, event in use_case.events.items():
        for field in event.needs if values[use_case.type] in (name, *event.aliases) else ():
            if field not in values:
                raise Unreadable(f"no {field}")


def _taken(value: Any, field: Field) -> Any:
    """Return a field's value as it must be held."""
    kind = field.type
    if kind == "time" and field.epoch and isinstance(value, _Whole | float):
        exact = Fraction(value.text if isinstance(value, _Whole) else repr(value))
        micros = math.floor(exact * UNITS[field.epoch])
        if micros_of(FIRST) <= micros <= micros_of(LAST):
            return micros
        raise Unreadable(f"{value!r} is in no year from 1 to 9999")
    if isinstance(value, float) and kind in ("key", "identifier", "integer"):
        if not (abs(value) <= MOST_EXACT and value == math.floor(value)):
            raise Unreadable(f"{value!r} is no whole number")
        return int(value) if kind == "integer" else str(int(value))
    whole = isinstance(value, _Whole)
    if kind in ("key", "identifier"):
        if isinstance(value, str):
            return value
        if whole and len(value.text) < 4000:
            return str(int(value.text))
    elif kind == "text" and isinstance(value, str):
        return value
    elif kind == "time" and isinstance(value, str) and (time := time_of(value)) is not None:
        return time
    elif kind == "number" and (whole or isinstance(value, float)):
        number = float(value.text) if whole else value
        if math.isfinite(number):
            return number + 0.0 if whole else number
    elif kind == "integer" and whole and len(value.text) < 30 and -(2**63) <= int(value.text) < 2**63:
        return int(value.text)
    elif kind == "boolean" and isinstance(value, bool):
        return value
    raise Unreadable(f"{value!r} is no {kind}")
