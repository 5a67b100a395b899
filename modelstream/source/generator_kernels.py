"""The compiled loops of the generator: they draw the events, and write them as JSON.

Random numbers are hashes of (user, event, purpose) and not a sequence, so that every event can be drawn by
itself. All arithmetic stays within int64, so the functions give the same without numba.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from modelstream.base.compiled import compiled
from modelstream.base.json_bytes import Bytes, Int64s

FAR = np.iinfo(np.int64).max
"""The next time of a user who has no more events."""
KEY_BYTES = 36
"""Length of a key: the text of a UUID."""
TIME_BYTES = 26
"""Length of a time: `2026-11-20 12:00:00.000000`."""
NUMBER_BYTES = 20
PURPOSES = 8
"""Random numbers reserved for each event."""
STEP, PAUSE, PAUSE_HOURS, TYPE, VALUE = range(5)


class Rules(NamedTuple):
    """The distributions as numbers. A chance is scaled to 2^32; a range is its lowest value and its width."""

    steps: Int64s
    """(lowest, width) of the seconds between events."""
    spread: Int64s
    """(lowest, width) of a value, in percent."""
    values: Int64s
    """Typical value of each type of event with a value."""
    mix: Int64s
    """[groups, types]: the cumulative chance of each type."""
    pauses: Int64s
    """[groups, 4]: chance, lowest hours, width, and the last second at which a pause may begin."""


class GeneratedUsers(NamedTuple):
    """The users (int64, one entry or row each); `times` and `numbers` move on with the events."""

    seeds: Int64s
    """[n, 2]: 32 random bits each, from which all of a user's random numbers follow."""
    groups: Int64s
    times: Int64s
    """Second of the next event since 1970 UTC, or FAR."""
    numbers: Int64s
    """Number of the next event; 0 is the one with the profile."""
    shifts: Int64s
    """Seconds by which all of a user's events are earlier than drawn, so that none is after the end."""


@compiled
def _mixed(bits: int) -> int:
    """Return a hash of 32 bits in 32 bits: `lowbias32` of C. Wellons' hash prospector."""
    bits ^= bits >> 16
    bits = (bits * 0x7FEB352D) & 0xFFFFFFFF
    bits ^= bits >> 15
    bits = (bits * 0x846CA68B) & 0xFFFFFFFF
    return bits ^ (bits >> 16)


@compiled
def _random(seeds: Int64s, number: int, purpose: int) -> int:
    """Return 32 random bits of an event for a purpose."""
    counter = (int(seeds[0]) + (number * PURPOSES + purpose) * 0x9E3779B9) & 0xFFFFFFFF
    return _mixed(_mixed(counter) ^ int(seeds[1]))


@compiled
def _within(span: Int64s, random: int) -> int:
    """Return a whole number, evenly distributed, from (lowest, width) and 32 random bits."""
    return int(span[0]) + ((random * int(span[1])) >> 32)


@compiled
def _step(rules: Rules, seeds: Int64s, group: int, time: int, number: int) -> int:
    """Return the seconds from an event to the next."""
    pause = rules.pauses[group]
    if time <= pause[3] and _random(seeds, number, PAUSE) < pause[0]:
        return 3600 * _within(pause[1:3], _random(seeds, number, PAUSE_HOURS))
    return _within(rules.steps, _random(seeds, number, STEP))


@compiled
def end_by(rules: Rules, users: GeneratedUsers, end: int, last: int) -> None:
    """Move whoever's event number `last` would be after the second `end`, with all events, so that it is at the end.

    `users` are those before their first event.
    """
    for user in range(len(users.times)):
        time = int(users.times[user])
        for number in range(last):
            time += _step(rules, users.seeds[user], users.groups[user], time, number)
        shift = max(time - end, 0)
        users.times[user] -= shift
        users.shifts[user] = shift


@compiled
def advance(rules: Rules, users: GeneratedUsers, until: int, last: int, rows: Int64s) -> int:
    """Make each user's events up to a second (exclusive) or to event number `last`; return how many `rows` were filled.

    A row: time, user, type (0: the profile, else 1 + index of the type), value. Rows are in order of user.
    """
    count = 0
    for user in range(len(users.times)):
        seeds = users.seeds[user]
        group = users.groups[user]
        time = int(users.times[user])
        number = int(users.numbers[user])
        shift = int(users.shifts[user])
        while time < until:
            row = rows[count]
            row[0] = time
            row[1] = user
            row[2] = 0
            row[3] = 0
            if number > 0:
                random = _random(seeds, number, TYPE)
                kind = 0
                while random >= rules.mix[group, kind]:
                    kind += 1
                row[2] = 1 + kind
                percent = _within(rules.spread, _random(seeds, number, VALUE))
                row[3] = int(rules.values[kind]) * percent // 100
            count += 1
            time = time + _step(rules, seeds, group, time + shift, number) if number < last else FAR
            number += 1
        users.times[user] = time
        users.numbers[user] = number
    return count


@compiled
def _put(out: Bytes, at: int, text: Bytes) -> int:
    target = out[at : at + len(text)]
    for i in range(len(text)):
        target[i] = text[i]
    return at + len(text)


@compiled
def _put_digits(out: Bytes, at: int, value: int, digits: int) -> int:
    """Write a number with at least this many digits."""
    places = digits
    rest = value // 10**digits
    while rest > 0:
        places += 1
        rest //= 10
    for i in range(places):
        out[at + places - 1 - i] = 48 + value % 10
        value //= 10
    return at + places


@compiled
def _put_date(out: Bytes, days: int) -> None:
    """Write the date so many days after 1970-01-01 (H. Hinnant's civil_from_days), and a blank."""
    shifted = days + 719468
    era = shifted // 146097
    of_era = shifted - era * 146097
    year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    at = _put_digits(out, 0, year + era * 400 + (1 if month >= 10 else 0), 4)
    out[at] = 45
    at = _put_digits(out, at + 1, month + (3 if month < 10 else -9), 2)
    out[at] = 45
    at = _put_digits(out, at + 1, of_year - (153 * month + 2) // 5 + 1, 2)
    out[at] = 32


@compiled
def _put_time(out: Bytes, at: int, second: int, date: Bytes, fraction: Bytes) -> int:
    at = _put(out, at, date)
    at = _put_digits(out, at, second // 3600, 2)
    out[at] = 58
    at = _put_digits(out, at + 1, second // 60 % 60, 2)
    out[at] = 58
    at = _put_digits(out, at + 1, second % 60, 2)
    return _put(out, at, fraction)


@compiled
def format_lines(
    rows: Int64s,
    keys: npt.NDArray[np.uint8],
    parts: tuple[Bytes, Int64s],
    profiles: tuple[Bytes, Int64s],
    fraction: Bytes,
    out: Bytes,
    starts: Int64s,
) -> int:
    """Write each row's JSON and a newline into `out`, and where it begins into `starts`; return the bytes written.

    `parts` are texts and their ends: what stands before the key, then for each type what stands before the time
    and after it. `profiles` are texts and their ends: how the lines of type 0 go on, one for each in `rows`.
    `fraction` is what follows the seconds of every time.
    """
    text, ends = parts
    profile_text, profile_ends = profiles
    date = np.zeros(11, np.uint8)
    day = -1
    profile = 0
    at = 0
    for i in range(len(rows)):
        starts[i] = at
        time, user, kind, value = rows[i]
        if time // 86400 != day:
            day = time // 86400
            _put_date(date, day)
        at = _put(out, at, text[: ends[0]])
        at = _put(out, at, keys[user])
        at = _put(out, at, text[ends[2 * kind] : ends[2 * kind + 1]])
        at = _put_time(out, at, time % 86400, date, fraction)
        at = _put(out, at, text[ends[2 * kind + 1] : ends[2 * kind + 2]])
        if kind == 0:
            at = _put(out, at, profile_text[profile_ends[profile] : profile_ends[profile + 1]])
            profile += 1
        else:
            at = _put_digits(out, at, value, 1)
        out[at] = 125
        out[at + 1] = 10
        at += 2
    return at
