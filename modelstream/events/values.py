"""What a value of JSON is in a field of each type, and how an error says that it doesn't fit."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pyarrow as pa

from modelstream.base.times import INVALID, parse_times
from modelstream.base.timestamps import FIRST, LAST
from modelstream.messages.codec import UnreadableError
from modelstream.messages.json_text import identifier_text, whole
from modelstream.use_case.declared import Field, Unit

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_JSON_TYPES: dict[str, Any] = {
    "key": str | int | float | None,
    "time": str | None,
    "text": str | None,
    "number": float | None,
    "integer": Int64 | float | None,
    "identifier": str | int | float | None,
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
_MICROSECONDS = {
    Unit.SECONDS: Decimal(1_000_000),
    Unit.MILLISECONDS: Decimal(1000),
    Unit.MICROSECONDS: Decimal(1),
    Unit.NANOSECONDS: Decimal("0.001"),
}
_NUMBER = re.compile(rb"-?[0-9]{1,25}(\.[0-9]{1,25})?")


def json_type(field: Field) -> Any:
    """Return the type as which a field's value is decoded: what JSON may hold there."""
    return str | int | float | None if field.epoch else _JSON_TYPES[field.type]


def held(field: Field, value: Any) -> Any:
    """Return a decoded value (of `json_type`) as the field's column holds it; times in microseconds since 1970 UTC.

    Raises UnreadableError: why it doesn't fit.

    >>> held(Field("identifier"), 10001.0), held(Field("time", epoch=Unit.MILLISECONDS), 1500)
    ('10001', 1500000)
    """
    if value is None:
        return None
    if field.type == "time":
        return _micros(field, value)
    try:
        if field.type in ("key", "identifier"):
            return identifier_text(value)
        return whole(value) if field.type == "integer" else value
    except UnreadableError:
        raise UnreadableError(f"expected {_EXPECTED[field.type]}, got {value}") from None


def misfit(name: str, field: Field, raw: bytes) -> str:
    """Return why a value, as JSON text, does not fit a field, for one that is not of its `json_type`.

    >>> misfit("celsius", Field("number"), b'"9,50"')
    'expected a finite number, got "9,50"'
    """
    told = f"expected {_EXPECTED[field.type]}, got {shown(raw)}"
    if field.type != "time" or not _NUMBER.fullmatch(raw):
        return told
    size = abs(float(raw))
    unit = next((unit for unit, most in (("s", 1e11), ("ms", 1e14), ("us", 1e17)) if size < most), "ns")
    return f"{told}; if it counts from 1970, declare the unit: {name}: {{type: time, epoch: {unit}}}"


def shown(text: bytes, limit: int = 40) -> str:
    """Return the start of a text for an error message.

    >>> shown(b"x" * 50, limit=3)
    'xxx…'
    """
    start = text[:limit].decode("utf-8", "replace")
    return start + "…" if len(text) > limit else start


def _micros(field: Field, value: str | float) -> int:
    if isinstance(value, str):
        micros = int(parse_times(pa.array([value], pa.string()))[0])
        if micros != INVALID:
            return micros
        if value[:4] in ("0000", "0001", "9999") and parse_times(pa.array([f"2001{value[4:]}"]))[0] != INVALID:
            raise UnreadableError(f"outside the years 1 to 9999 in UTC: {shown(value.encode())}")
        raise UnreadableError(f"not an ISO 8601 time: {shown(value.encode())}")
    assert field.epoch is not None  # else a number is not of the field's `json_type`
    micros = math.floor(Decimal(repr(value)) * _MICROSECONDS[field.epoch])
    if not FIRST <= micros <= LAST:
        raise UnreadableError(f"outside the years 1 to 9999 in UTC: {value} {field.epoch} after 1970")
    return micros
