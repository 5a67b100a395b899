"""Parses times: many ISO 8601 texts at once, to microseconds; and a time, or how long ago, as a person writes it."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelstream.base.compiled import compiled
from modelstream.errors import ConfigurationError

INVALID = np.iinfo(np.int64).min
TIMESTAMP = pa.timestamp("us", tz="UTC")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def datetime_of(microseconds: int) -> datetime:
    """Return a time in us since 1970 UTC as a datetime, exactly.

    >>> datetime_of(1_763_640_000_000_001).isoformat()
    '2025-11-20T12:00:00.000001+00:00'
    """
    return _EPOCH + timedelta(microseconds=microseconds)


@compiled
def _digits(text: npt.NDArray[np.uint8], start: int, count: int) -> int:
    """Return the number that `count` digits from `start` make, or -1."""
    value = 0
    for i in range(start, start + count):
        digit = int(text[i]) - 48
        if digit < 0 or digit > 9:
            return -1
        value = value * 10 + digit
    return value


@compiled
def _days(year: int, month: int, day: int) -> int:
    """Return days since 1970-01-01 in the proleptic Gregorian calendar (H. Hinnant's days_from_civil)."""
    y = year - (1 if month <= 2 else 0)
    era = y // 400
    of_era = y - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


@compiled
def _days_in_month(year: int, month: int) -> int:
    if month == 2:
        return 29 if (year % 4 == 0 and year % 100 != 0) or year % 400 == 0 else 28
    return 30 if month in (4, 6, 9, 11) else 31


@compiled
def _offset_seconds(text: npt.NDArray[np.uint8], at: int, end: int) -> int:
    """Return the seconds of a UTC offset text[at:end] (Z, ±HH, ±HHMM, ±HH:MM), or a million if it is none."""
    none = 1_000_000
    size = end - at
    if size == 1 and (text[at] == 90 or text[at] == 122):
        return 0
    if size not in (3, 5, 6) or (text[at] != 43 and text[at] != 45):
        return none
    if size == 6 and text[at + 3] != 58:
        return none
    hours = _digits(text, at + 1, 2)
    minutes = 0 if size == 3 else _digits(text, end - 2, 2)
    if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
        return none
    seconds = hours * 3600 + minutes * 60
    return -seconds if text[at] == 45 else seconds


@compiled
def parse_time(text: npt.NDArray[np.uint8], start: int, end: int) -> int:
    """Return microseconds since 1970 UTC of the time text[start:end], or `INVALID` (see `parse_times`)."""
    if end - start < 16 or text[start + 4] != 45 or text[start + 7] != 45 or text[start + 13] != 58:
        return INVALID
    if text[start + 10] != 32 and text[start + 10] != 84 and text[start + 10] != 116:
        return INVALID
    year = _digits(text, start, 4)
    month = _digits(text, start + 5, 2)
    day = _digits(text, start + 8, 2)
    hour = _digits(text, start + 11, 2)
    minute = _digits(text, start + 14, 2)
    if year < 1 or month < 1 or month > 12 or day < 1 or hour < 0 or hour > 23 or minute < 0 or minute > 59:
        return INVALID
    if day > _days_in_month(year, month):
        return INVALID
    at = start + 16
    second = 0
    micros = 0
    if at < end and text[at] == 58:
        second = _digits(text, at + 1, 2) if at + 3 <= end else -1
        if second < 0 or second > 59:
            return INVALID
        at += 3
        if at < end and (text[at] == 46 or text[at] == 44):
            at += 1
            places = 0
            while at < end and 48 <= text[at] <= 57:
                if places < 6:
                    micros = micros * 10 + int(text[at]) - 48
                places += 1
                at += 1
            if places == 0 or places > 9:
                return INVALID
            for _ in range(places, 6):
                micros *= 10
    offset = 0
    if at < end:
        offset = _offset_seconds(text, at, end)
        if offset == 1_000_000:
            return INVALID
    seconds = (_days(year, month, day) * 24 + hour) * 3600 + minute * 60 + second - offset
    return seconds * 1_000_000 + micros


@compiled
def _parse_all(
    text: npt.NDArray[np.uint8],
    ends: npt.NDArray[np.int32],
    valid: npt.NDArray[np.bool_],
    out: npt.NDArray[np.int64],
) -> None:
    for i in range(len(out)):
        out[i] = parse_time(text, ends[i], ends[i + 1]) if valid[i] else INVALID


def parse_times(texts: pa.StringArray) -> npt.NDArray[np.int64]:
    """Return microseconds since 1970 UTC of each text (int64, same length); `INVALID` where it is not a time.

    A time is `YYYY-MM-DD`, a blank or `T`, `HH:MM`, then optionally `:SS`, a fraction of up to nine digits
    (kept to the microsecond, the rest cut off) and an offset (`Z`, `±HH:MM`, `±HHMM`, `±HH`); without an
    offset it is UTC. A null is `INVALID`.

    >>> parse_times(pa.array(["1970-01-01 00:00:01", "1970-01-01T01:00:00.5+01:00"])).tolist()
    [1000000, 500000]
    >>> bool(parse_times(pa.array(["1970-02-30 00:00:00"]))[0] == INVALID)
    True
    """
    count = len(texts)
    out = np.empty(count, np.int64)
    if not count:
        return out
    _, ends, text = texts.buffers()
    positions = np.frombuffer(ends, np.int32)[texts.offset : texts.offset + count + 1]
    content = np.frombuffer(text, np.uint8) if text is not None and text.size else np.zeros(1, np.uint8)
    valid = np.ones(count, np.bool_) if texts.null_count == 0 else texts.is_valid().to_numpy(zero_copy_only=False)
    _parse_all(content, positions, valid, out)
    return out


def time_given(text: str, name: str, now: float | None = None) -> int:
    """Return microseconds since 1970 UTC for a time, or for how long ago, as a person writes it.

    A time is as in `parse_times`, or a date alone, which means its first moment. "How long ago" is a number of seconds,
    minutes, hours or days, such as 90s, 15m, 6h, 7d, counted back from `now` (seconds since 1970). Raises
    ConfigurationError, with the `name` of the option, for anything else.

    >>> time_given("1970-01-01T00:00:01Z", "--since"), time_given("1.5h", "--since", now=10_000)
    (1000000, 4600000000)
    """
    text = text.strip()
    if found := _DURATION.fullmatch(text):
        seconds = (time.time() if now is None else now) - float(found[1]) * _SECONDS[found[2]]
        return round(seconds * 1e6)
    parsed = int(parse_times(pa.array([f"{text} 00:00" if len(text) == 10 else text], pa.string()))[0])
    if parsed == INVALID:
        raise ConfigurationError(
            f"{name} {text!r} is neither a time nor a duration",
            remedy="give a time such as 2026-11-20 or '2026-11-20 12:00' (UTC), or how long ago: 90s, 15m, 6h, 7d",
        )
    return parsed
