"""Splits raw JSON into lines and finds each line's key in one pass over the bytes, without parsing.

A reader needs the key of a line only to send the line to its shard; the event-handler parses it later. Both must find
the same key. The pass reads *flat* objects (no nesting, no escapes, no ambiguous numbers or text) by the grammar of
JSON, so it finds what parsing finds. Any other line is left to `json_text.key_of`, slower (1.6 µs a line, not 0.2 µs)
and always right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelstream.base.arrays import gather
from modelstream.base.compiled import compiled
from modelstream.base.json_bytes import (
    CLOSE,
    COLON,
    COMMA,
    NEWLINE,
    NO_NAME,
    OPEN,
    QUOTE,
    RETURN,
    Bytes,
    Int64s,
    after_blanks,
    scalar_end,
    string_end,
    whole_end,
)
from modelstream.messages.identity import bucket_of, buckets_of
from modelstream.messages.json_text import key_of


@compiled
def _flat_object(data: Bytes, at: int, name: Bytes, key: Int64s) -> int:
    """Read the line at `at` as a flat object; return the place of its newline, or -1 for the slow way.

    `key` takes where its value begins and ends: text without the quotes, or digits; empty if there is none. If a name
    occurs twice, the last one counts, as in every JSON parser.
    """
    key[0] = key[1] = at
    at = after_blanks(data, at)
    if data[at] != OPEN:
        return -1
    at = after_blanks(data, at + 1)
    more = data[at] != CLOSE
    while more:
        if data[at] != QUOTE:
            return -1
        start = at + 1
        at = string_end(data, start, len(data))
        if at < 0:
            return -1
        is_key = at - start == len(name)
        i = 0
        while is_key and i < len(name):
            is_key = data[start + i] == name[i]
            i += 1
        at = after_blanks(data, at + 1)
        if data[at] != COLON:
            return -1
        at = after_blanks(data, at + 1)
        start = at
        if data[at] == QUOTE:
            start = at + 1
            end = string_end(data, start, len(data))
            at = end + 1
        else:
            end = scalar_end(data, start)
            at = end
            if is_key and end >= 0:
                end = whole_end(data, start, end) if 48 <= data[start] <= 57 else -1
        if end < 0:
            return -1
        if is_key:
            key[0] = start
            key[1] = end
        at = after_blanks(data, at)
        more = data[at] == COMMA
        if more:
            at = after_blanks(data, at + 1)
        elif data[at] != CLOSE:
            return -1
    at = after_blanks(data, at + 1)
    return at if data[at] == NEWLINE else -1


@compiled
def _scan(data: Bytes, name: Bytes, max_line: int, cut: int, cut_first: bool, rows: Int64s) -> tuple[int, int]:
    """Fill `rows` (one per line that is not blank) and return how many rows, and how many lines there are.

    A row: line number, first byte, end (without the line break), next line's first byte, key's first byte
    (-1: not known), key's end. `data` ends with a newline.
    """
    key = np.zeros(2, np.int64)
    count = 0
    number = 0
    at = 0
    while at < len(data):
        newline = _flat_object(data, at, name, key)
        known = newline >= 0
        if not known:
            newline = at
            while data[newline] != NEWLINE:
                newline += 1
        end = newline - 1 if newline > at and data[newline - 1] == RETURN else newline
        long = newline - at > max_line
        if long or (cut_first and number == 0):
            known = False
        if long:
            end = at + cut
        if known or long or (cut_first and number == 0) or after_blanks(data, at) != newline:
            row = rows[count]
            row[0] = number
            row[1] = at
            row[2] = end
            row[3] = newline + 1
            row[4] = key[0] if known else -1
            row[5] = key[1]
            count += 1
        number += 1
        at = newline + 1
    return count, number


@dataclass(frozen=True)
class Found:
    """The lines in a block of bytes that are not blank; all arrays have one entry for each."""

    data: Bytes
    numbers: Int64s
    """Line numbers in the block, from 0; blank lines count."""
    starts: Int64s
    ends: Int64s
    """Where the text of a line begins and ends in `data`; without its line break."""
    nexts: Int64s
    """Where the line after it begins."""
    buckets: npt.NDArray[np.uint8]
    lines: int
    """Lines in the block, blank ones too."""
    slow: int = 0
    """The number of lines whose key had to be found by parsing."""


class KeyFinder:
    r"""Finds the lines of a block and the bucket of each one's key.

    >>> finder = KeyFinder("id")
    >>> found = finder.find(b'{"id": "u1"}\n\n{"id": 7}\n')
    >>> found.numbers.tolist(), found.buckets.tolist() == [bucket_of("u1"), bucket_of("7")]
    ([0, 2], True)
    """

    def __init__(self, key_field: str, *, max_line: int = 1_000_000, cut: int = 4096) -> None:
        """`key_field` is the key's name, or its path, such as `after.house`.

        Of a line of more than `max_line` bytes the first `cut` are kept.
        """
        self._field = key_field
        name = NO_NAME if "." in key_field else key_field.encode()  # a key in an envelope is in no flat line
        self._name = np.frombuffer(name, np.uint8)
        self._max_line = max_line
        self._cut = cut

    def find(self, block: bytes, *, cut_first: bool = False) -> Found:
        """Return the lines of a block, which ends with a newline.

        `cut_first` says that the first line is what was kept of a longer one: a line even if it is blank.
        """
        data = np.frombuffer(block, np.uint8)
        # As many rows as lines of one byte would be; memory is only taken for those that are filled.
        rows = np.empty((len(block) // 2 + 1, 6), np.int64)
        count, lines = _scan(data, self._name, self._max_line, self._cut, cut_first, rows)
        numbers, starts, ends, nexts, key_starts, key_ends = np.ascontiguousarray(rows[:count].T)
        slow = np.flatnonzero(key_starts < 0)
        key_ends[slow] = key_starts[slow] = 0
        buckets = buckets_of(gather(data, key_starts, key_ends, pa.string()))
        for row in slow:
            buckets[row] = bucket_of(key_of(block[starts[row] : ends[row]], self._field))
        return Found(data, numbers, starts, ends, nexts, buckets, lines, len(slow))
