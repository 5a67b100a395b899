"""Lengths of time as use-case files write them: `90s`, `30m`, `24h`, `7d`, `1h30m`."""

from __future__ import annotations

import re

MICROSECONDS = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000}
"""The units, the longest first."""

DURATION = "write a time such as 90s, 30m, 24h, 7d or 1h30m"
"""What to do about a length of time that can't be read."""
_OFFSET = re.compile(r"([+-])([01][0-9]):([0-5][0-9])")
_WRITTEN = re.compile(r"(?:([0-9]{1,12})d)?(?:([0-9]{1,12})h)?(?:([0-9]{1,12})m)?(?:([0-9]{1,12}(?:\.[0-9]{1,6})?)s)?")


def microseconds(text: str) -> int | None:
    """Return the length that is written, in microseconds; None if it can't be read or is 0.

    >>> microseconds("1h30m"), microseconds("7d"), microseconds("0.5s"), microseconds("24"), microseconds("")
    (5400000000, 604800000000, 500000, None, None)
    """
    found = _WRITTEN.fullmatch(text)
    if not found:
        return None
    *whole, seconds = zip(found.groups(default="0"), MICROSECONDS.values(), strict=True)
    return sum(int(number) * unit for number, unit in whole) + round(float(seconds[0]) * seconds[1]) or None


def duration(length: int) -> str:
    """Return a length in microseconds as it is written, in the fewest units that say it exactly.

    Days are used only from three on: two are `48h`.

    >>> duration(5_400_000_000), duration(86_400_000_000), duration(604_800_000_000), duration(500_000)
    ('1h30m', '24h', '7d', '0.5s')
    """
    if length % MICROSECONDS["d"] == 0 and length >= 3 * MICROSECONDS["d"]:
        return f"{length // MICROSECONDS['d']}d"
    text = ""
    for unit in ("h", "m"):
        many, length = divmod(length, MICROSECONDS[unit])
        text += f"{many}{unit}" if many else ""
    return text + (f"{length / MICROSECONDS['s']:.6f}".rstrip("0").rstrip(".") + "s" if length else "") or "0s"


def offset_microseconds(text: str) -> int | None:
    """Return an offset from UTC, such as `+01:00`, in microseconds; None if it can't be read.

    >>> offset_microseconds("-03:30"), offset_microseconds("1")
    (-12600000000, None)
    """
    found = _OFFSET.fullmatch(text)
    if not found:
        return None
    length = int(found[2]) * MICROSECONDS["h"] + int(found[3]) * MICROSECONDS["m"]
    return -length if found[1] == "-" else length
