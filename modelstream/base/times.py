"""Parses times: many ISO 8601 texts at once, to microseconds; and a time, or how long ago, as a person writes it."""

from __future__ import annotations

import re
import time

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelstream.base.compiled import compiled, unwritable
from modelstream.base.timestamps import FIRST, LAST
from modelstream.errors import ConfigurationError

INVALID = np.iinfo(np.int64).min
_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


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
def _week_1(year: int) -> int:
    """Return the Monday of a year's first ISO week, in days since 1970-01-01: the week that holds 4 January."""
    fourth = _days(year, 1, 4)
    return fourth - (fourth + 3) % 7


@compiled
def _date(text: npt.NDArray[np.uint8], start: int, end: int) -> tuple[int, int]:
    """Return the date at text[start:end], in days since 1970-01-01, and the place after it; -1 as the place if there is
    none.
    """
    none = (0, -1)
    if end - start < 8:
        return none
    year = _digits(text, start, 4)
    dashes = 1 if text[start + 4] == 45 else 0
    if year < 1 or (dashes and end - start < 10):
        return none
    at = start + 4 + dashes
    if text[at] == 87:
        week, day = _digits(text, at + 1, 2), _digits(text, at + 3 + dashes, 1)
        if (dashes and text[at + 3] != 45) or week < 1 or day < 1 or day > 7:
            return none
        days = _week_1(year) + (week - 1) * 7 + day - 1
        if days >= _week_1(year + 1) or days * 86_400_000_000 > LAST:
            return none
        return days, at + 4 + dashes
    month, day = _digits(text, at, 2), _digits(text, at + 2 + dashes, 2)
    if (dashes and text[at + 2] != 45) or month < 1 or month > 12 or day < 1 or day > _days_in_month(year, month):
        return none
    return _days(year, month, day), at + 4 + dashes


@compiled
def _offset_seconds(text: npt.NDArray[np.uint8], at: int, end: int) -> int:
    """Return the seconds of a UTC offset text[at:end] (Z, UTC, ±HH, ±HHMM, ±HH:MM, after a blank or not), or a million
    if it is none.
    """
    none = 1_000_000
    if text[at] == 32:
        at += 1
    size = end - at
    if size == 1 and (text[at] == 90 or text[at] == 122):
        return 0
    if size == 3 and text[at] == 85 and text[at + 1] == 84 and text[at + 2] == 67:
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
def _clock(text: npt.NDArray[np.uint8], at: int, end: int, colons: bool) -> int:
    """Return the microseconds of the clock and offset text[at:end], less than 0 for an early one with an offset;
    `INVALID` if it is none. Without `colons` they may be missing.
    """
    if end - at < 4:
        return INVALID
    colon = 1 if text[at + 2] == 58 else 0
    if (colons and not colon) or end - at < 4 + colon:
        return INVALID
    hour, minute, second, micros = _digits(text, at, 2), _digits(text, at + 2 + colon, 2), 0, 0
    at += 4 + colon
    if at < end and (text[at] == 58 if colon else 48 <= text[at] <= 57):
        second = _digits(text, at + colon, 2) if at + 2 + colon <= end else -1
        at += 2 + colon
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
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
        return INVALID
    offset = _offset_seconds(text, at, end) if at < end else 0
    if offset == 1_000_000:
        return INVALID
    return (hour * 3600 + minute * 60 + second - offset) * 1_000_000 + micros


@compiled
def parse_time(text: npt.NDArray[np.uint8], start: int, end: int) -> int:
    """Return microseconds since 1970 UTC of the time text[start:end], or `INVALID` (see `parse_times`)."""
    days, at = _date(text, start, end)
    if at < 0:
        return INVALID
    micros = 0
    if at < end:
        if text[at] != 32 and text[at] != 84 and text[at] != 116:
            return INVALID
        micros = _clock(text, at + 1, end, text[start + 4] == 45)
        if micros == INVALID:
            return INVALID
    micros += days * 86_400_000_000
    return micros if FIRST <= micros <= LAST else INVALID


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

    A time is a date, then optionally a blank or `T`, `HH:MM`, `:SS`, a fraction of up to nine digits (kept to the
    microsecond, the rest cut off) and an offset (`Z`, `UTC`, `±HH:MM`, `±HHMM`, `±HH`, after a blank or not); without
    an offset it is UTC, without a clock it is midnight. A date is `YYYY-MM-DD`, an ISO week date (`YYYY-Www-D`), or one
    of them without dashes, after which the clock needs no colons. A time outside the years 1 to 9999 in UTC is
    `INVALID`, and so is a null.

    >>> parse_times(pa.array(["1970-01-01 00:00:01 UTC", "1970-01-01T01:00:00.5+01:00"])).tolist()
    [1000000, 500000]
    >>> parse_times(pa.array(["1970-01-02", "1970-W01-5", "19700102T000000Z"])).tolist()
    [86400000000, 86400000000, 86400000000]
    >>> bool(parse_times(pa.array(["1970-02-30 00:00:00"]))[0] == INVALID)
    True
    """
    count = len(texts)
    out = np.empty(count, np.int64)
    if not count:
        return out
    _, ends, text = texts.buffers()
    positions = unwritable(np.frombuffer(ends, np.int32)[texts.offset : texts.offset + count + 1])
    content = unwritable(np.frombuffer(text, np.uint8) if text is not None and text.size else np.zeros(1, np.uint8))
    valid = np.ones(count, np.bool_) if texts.null_count == 0 else texts.is_valid().to_numpy(zero_copy_only=False)
    _parse_all(content, positions, valid, out)
    return out


def time_given(text: str, name: str, now: float | None = None) -> int:
    """Return microseconds since 1970 UTC for a time, or for how long ago, as a person writes it.

    A time is as in `parse_times`. "How long ago" is a number of seconds, minutes, hours or days, such as 90s, 15m, 6h,
    7d, counted back from `now` (seconds since 1970). Raises ConfigurationError, with the `name` of the option, for
    anything else.

    >>> time_given("1970-01-01T00:00:01Z", "--since"), time_given("1.5h", "--since", now=10_000)
    (1000000, 4600000000)
    """
    text = text.strip()
    if found := _DURATION.fullmatch(text):
        seconds = (time.time() if now is None else now) - float(found[1]) * _SECONDS[found[2]]
        return round(seconds * 1e6)
    parsed = int(parse_times(pa.array([text], pa.string()))[0])
    if parsed == INVALID:
        raise ConfigurationError(
            f"{name} {text!r} is neither a time nor a duration",
            remedy="give a time such as 2026-11-20 or '2026-11-20 12:00' (UTC), or how long ago: 90s, 15m, 6h, 7d",
        )
    return parsed
