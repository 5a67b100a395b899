"""The grammar of JSON over bytes, for loops that numba compiles.

The functions here accept only JSON that every parser reads the same way. Anything doubtful (escapes, text that is not
UTF-8, numbers with many digits) they refuse, and a slower parser decides. They don't check for the end: the last byte
must be one that no value contains, such as a newline or the closing brace of the object.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelstream.base.compiled import compiled

Bytes = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]

TAB, NEWLINE, RETURN, BLANK = 9, 10, 13, 32
QUOTE, COMMA, MINUS, POINT, COLON = 34, 44, 45, 46, 58
OPEN, BACKSLASH, CLOSE = 123, 92, 125
NO_NAME = b'"'
"""A name that no flat object has: what has an escape in it is left to the slow parser."""
MOST_EXACT_DIGITS = 15
"""A whole number with at most this many digits is exact in float64."""
MOST_DIGITS = 18
"""A number with at most this many digits fits 64 bits; a longer one is left to the slow parser."""


_PLAIN = np.array([BLANK <= byte < 0x80 and byte not in (QUOTE, BACKSLASH) for byte in range(256)])
"""For each byte, whether it needs no escape in a JSON string."""


@compiled
def after_blanks(data: Bytes, at: int) -> int:
    while data[at] == BLANK or data[at] == TAB or data[at] == RETURN:
        at += 1
    return at


@compiled
def after_rune(data: Bytes, at: int) -> int:
    """Return the place after one UTF-8 character of several bytes, or -1 if it is not well-formed.

    Table 3-7 of the Unicode standard: no overlong forms, no surrogates, nothing above U+10FFFF.
    """
    first = int(data[at])
    low, high, more = 0x80, 0xBF, 1
    if first < 0xC2 or first > 0xF4:
        return -1
    if first >= 0xF0:
        more = 3
        low = 0x90 if first == 0xF0 else low
        high = 0x8F if first == 0xF4 else high
    elif first >= 0xE0:
        more = 2
        low = 0xA0 if first == 0xE0 else low
        high = 0x9F if first == 0xED else high
    if data[at + 1] < low or data[at + 1] > high:
        return -1
    for i in range(at + 2, at + 1 + more):
        if data[i] < 0x80 or data[i] > 0xBF:
            return -1
    return at + 1 + more


@compiled
def string_end(data: Bytes, at: int, stop: int) -> int:
    """Return the place of the quote that ends the text beginning at `at`; -1 for an escape, what is not valid, or
    none before `stop`.
    """
    while at < stop:
        if _PLAIN[data[at]]:
            at += 1
            continue
        if data[at] == QUOTE:
            return at
        if data[at] < 0x80:
            return -1
        at = after_rune(data, at)
        if at < 0:
            return -1
    return -1


@compiled
def digits_end(data: Bytes, at: int) -> int:
    while 48 <= data[at] <= 57:
        at += 1
    return at


@compiled
def whole_end(data: Bytes, start: int, end: int) -> int:
    """Return where the digits of the number data[start:end] end, if it is plainly a whole one; else -1.

    After the digits comes nothing, or a point and zeros, as pandas writes integers beside missing values.
    """
    at = digits_end(data, start + 1 if data[start] == MINUS else start)
    if at == end:
        return at
    if data[at] != POINT or at - start > MOST_EXACT_DIGITS:
        return -1
    zeros = at + 1
    while data[zeros] == 48:
        zeros += 1
    return at if zeros == end else -1


@compiled
def is_word(data: Bytes, at: int, word: bytes) -> bool:
    # The byte at the end stands in no word: the comparison stops there at the latest.
    for i in range(len(word)):  # noqa: SIM110 (numba compiles the loop, not `all`)
        if data[at + i] != word[i]:
            return False
    return True


@compiled
def scalar_end(data: Bytes, at: int) -> int:
    """Return the place after a number, true, false or null; -1 if it is none or doubtful."""
    if data[at] == 116:
        return at + 4 if is_word(data, at, b"true") else -1
    if data[at] == 102:
        return at + 5 if is_word(data, at, b"false") else -1
    if data[at] == 110:
        return at + 4 if is_word(data, at, b"null") else -1
    start = at + 1 if data[at] == MINUS else at
    at = digits_end(data, start)
    if at == start or at - start > MOST_DIGITS or (data[start] == 48 and at > start + 1):
        return -1
    if data[at] == POINT:
        start = at + 1
        at = digits_end(data, start)
        if at == start or at - start > MOST_DIGITS:
            return -1
    if data[at] == 69 or data[at] == 101:
        start = at + 2 if data[at + 1] == MINUS or data[at + 1] == 43 else at + 1
        at = digits_end(data, start)
        if at == start or at - start > 2:
            return -1
    return at
