"""Part of a test tool (see README.md): attribute values as V3IO types them, and what it can't keep.

Stricter than its clients' tests: a number keeps 15 digits (the documentation promises 14), text has at most 61,199
characters and no NUL, and there is neither null, NaN nor infinity among the stored numbers.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from typing import Any

from .errors import invalid

Attributes = dict[str, Any]
"""Values by name: str, bool, int, float, bytes, or Time."""

MAX_TEXT = 61_199
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_TIME = re.compile(r"(-?[0-9]+):([0-9]+)")
_ARRAY = struct.Struct("<IIII")
_ARRAY_MAGIC, _LONG, _DOUBLE = 11223344, 259, 261


class Time(tuple[int, int]):
    """A time: seconds and nanoseconds since 1970 UTC."""


def decode(item: Any) -> Attributes:
    """Return the attributes of a request's typed item."""
    if not isinstance(item, dict):
        raise invalid("Item is not an object")
    return {_checked_name(name): _decode_value(name, typed) for name, typed in item.items()}


def encode(attributes: Attributes) -> dict[str, dict[str, Any]]:
    """Return attributes as a response's typed item."""
    return {name: _encode_value(value) for name, value in attributes.items()}


def stored_number(value: float) -> float:
    """Return what is left of a float when it is stored."""
    if not math.isfinite(value):
        raise invalid(f"{value} is not a number that can be stored")
    return float(f"{value:.15g}")


def read_array(blob: Any) -> list[int] | list[float]:
    """Return the elements of a blob that holds an array."""
    if isinstance(blob, list):
        return blob
    if not isinstance(blob, bytes) or len(blob) < _ARRAY.size:
        raise invalid("not an array")
    magic, version, size, kind = _ARRAY.unpack_from(blob)
    if (magic, version) != (_ARRAY_MAGIC, 1) or size != len(blob) - _ARRAY.size or kind not in (_LONG, _DOUBLE):
        raise invalid("not an array")
    return list(struct.unpack_from(f"<{size // 8}{'q' if kind == _LONG else 'd'}", blob, _ARRAY.size))


def write_array(values: list[int] | list[float]) -> bytes:
    """Return an array as the blob that is stored."""
    whole = all(isinstance(value, int) for value in values)
    header = _ARRAY.pack(_ARRAY_MAGIC, 1, 8 * len(values), _LONG if whole else _DOUBLE)
    return header + struct.pack(f"<{len(values)}{'q' if whole else 'd'}", *values)


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name) or len(name) > 255:
        raise invalid(f"attribute name {name!r}")
    return name


def _decode_value(name: str, typed: Any) -> Any:
    if not isinstance(typed, dict) or len(typed) != 1:
        raise invalid(f"attribute {name!r} needs one typed value")
    ((kind, value),) = typed.items()
    try:
        if kind == "S" and isinstance(value, str) and len(value) <= MAX_TEXT and "\0" not in value:
            return value
        if kind == "BOOL" and isinstance(value, bool):
            return value
        if kind == "B":
            return base64.b64decode(value, validate=True)
        if kind == "TS" and (found := _TIME.fullmatch(value)):
            return Time((int(found[1]), int(found[2])))
        if kind == "N" and isinstance(value, str):
            if not _INTEGER.fullmatch(value):
                return stored_number(float(value))
            if -(1 << 63) <= int(value) < 1 << 63:
                return int(value)
    except (ValueError, TypeError, binascii.Error) as error:
        raise invalid(f"attribute {name!r}: {error}") from error
    raise invalid(f"attribute {name!r} can't be {kind} {str(value)[:50]!r}")


def _encode_value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, bytes):
        return {"B": base64.b64encode(value).decode()}
    if isinstance(value, Time):
        return {"TS": f"{value[0]}:{value[1]}"}
    return {"N": repr(value)}
