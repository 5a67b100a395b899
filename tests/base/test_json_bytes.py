"""The grammar over bytes reads what `json` and Python's UTF-8 read in the same way, or refuses it as doubtful."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelstream.base.arrays import gather
from modelstream.base.json_bytes import (
    MOST_DIGITS,
    Bytes,
    after_blanks,
    after_rune,
    digits_end,
    is_word,
    scalar_end,
    string_end,
)

END = b"\n"
"""What every value of bytes ends with."""


def array(content: bytes) -> Bytes:
    return np.frombuffer(content, np.uint8)


# Texts.


def rune_after(content: bytes, at: int) -> int:
    """Return where the character of several bytes at a place ends, -1 if Python reads none there."""
    for size in (2, 3, 4):
        try:
            if len(content[at : at + size].decode("utf-8")) == 1:
                return at + size
        except UnicodeDecodeError:
            continue
    return -1


def test_characters_are_those_of_python_for_all_beginnings() -> None:
    """Every first and second byte, with each kind of byte at the third and fourth place."""
    edges = [b"\x7f", b"\x80", b"\x8f", b"\x90", b"\x9f", b"\xa0", b"\xbf", b"\xc0"]
    for first in range(0x80, 0x100):
        for second in range(0x00, 0x100, 1):
            for third, fourth in [(edge, b"\x80") for edge in edges] + [(b"\x80", edge) for edge in edges]:
                content = bytes([first, second]) + third + fourth + END
                assert after_rune(array(content), 0) == rune_after(content, 0), content


def text_end(content: bytes, at: int, stop: int) -> int:
    end = content.find(b'"', at, stop)
    try:
        text = content[at:end].decode("utf-8")
    except UnicodeDecodeError:
        return -1
    return -1 if end < 0 or any(character < " " or character == "\\" for character in text) else end


PIECES = st.sampled_from(
    [*'ab /\x7f\x1f\t\\"ü☂😀\u0800\ud7ff\ue000\uffff\U0010ffff'.encode().split(b" "), b"\xc3", b"\xed\xa0\x80", b"\xff"]
)
TEXTS = st.lists(st.one_of(PIECES, st.characters(codec="utf-8").map(str.encode), st.binary(max_size=3)), max_size=8)


@settings(max_examples=500)
@given(TEXTS, st.integers(0, 6), st.integers(0, 20), st.booleans())
@example([b" ~\x7f", "ü☂😀".encode()], 0, 20, True)
def test_a_text_ends_at_its_quote_if_it_is_plain(pieces: list[bytes], at: int, stop: int, quoted: bool) -> None:
    content = b"".join(pieces) + b'"' * quoted + END
    at, stop = min(at, len(content) - 1), min(stop, len(content) - 1)
    assert string_end(array(content), at, stop) == text_end(content, at, stop)


# Numbers and words.


def value_end(text: str) -> int:
    """Return where a number, true, false or null ends for `json`; -1 if it is none, or goes on as if it were more."""
    try:
        end = json.JSONDecoder().raw_decode(text)[1]
    except json.JSONDecodeError:
        return -1
    token, following = text[:end], text[end]
    if token in ("true", "false", "null"):
        return end
    parts = re.fullmatch(r"-?(\d+)(?:\.(\d+))?(?:[eE][+-]?(\d+))?", token)
    if parts is None:  # NaN and Infinity, which only Python's parser takes
        return -1
    whole, fraction, exponent = parts.groups(default="")
    more = "" if exponent else "eE" if fraction else "eE.0123456789"
    doubtful = following in more or len(whole) > MOST_DIGITS or len(fraction) > MOST_DIGITS or len(exponent) > 2
    return -1 if doubtful else end


DIGITS = ["0", "1", "9", "00", "12345678", "123456789"]
NUMBERS = st.lists(st.sampled_from([*"-+.eE ,}a", *DIGITS]), max_size=7).map("".join)
WORDS = st.sampled_from(["true", "false", "null", "tru", "nulll", "True", "NaN", "Infinity", "-Infinity", "nan", ""])


@settings(max_examples=1000)
@given(st.one_of(NUMBERS, WORDS, st.integers().map(str), st.floats().map(repr), st.decimals().map(str)))
@example("1" * 18 + "." + "1" * 18 + "e-99")
@example("1" * 19)
@example("1." + "1" * 19)
@example("1e100")
@example("-01")
def test_a_value_ends_where_json_says(text: str) -> None:
    text += "\n"
    assert scalar_end(array(text.encode()), 0) == value_end(text)
    assert scalar_end(array(b"[" + text.encode()), 1) == (value_end(text) + 1 or -1)


@given(st.text(" \t\r\n\x0b\xa0x1", max_size=8), st.integers(0, 8))
def test_blanks_are_those_of_json_without_the_newline(text: str, at: int) -> None:
    content = text.encode() + END
    at = min(at, len(content) - 1)
    rest = content[at:]
    assert after_blanks(array(content), at) == at + len(rest) - len(rest.lstrip(b" \t\r"))


@given(st.text("0189/:٣x", max_size=8))
def test_digits_are_ascii(text: str) -> None:
    content = text.encode() + END
    assert digits_end(array(content), 0) == len(content) - len(content.lstrip(b"0123456789"))


@pytest.mark.parametrize(("content", "found"), [(b"true,", True), (b"tru\n", False), (b"t\n", False), (b"\n", False)])
def test_a_word_is_all_of_it(content: bytes, found: bool) -> None:
    assert is_word(array(content), 0, b"true") is found


# Pieces.


@given(st.data(), st.text(max_size=30))
def test_pieces_are_slices_and_null_where_nothing_is_known(data: st.DataObject, text: str) -> None:
    places = [0, *np.cumsum([len(character.encode()) for character in text]).tolist()]
    spans = [
        (min(pair), max(pair))
        for pair in data.draw(st.lists(st.tuples(st.sampled_from(places), st.sampled_from(places)), max_size=8))
    ]
    known = data.draw(st.one_of(st.none(), st.lists(st.booleans(), min_size=len(spans), max_size=len(spans))))
    content = text.encode()
    slices = [content[start:end] if known is None or known[i] else None for i, (start, end) in enumerate(spans)]
    starts, ends = (np.array([span[i] for span in spans], np.int64) for i in (0, 1))
    if known is not None:  # where nothing is known there may be any numbers
        starts[~np.array(known, np.bool_)], ends[~np.array(known, np.bool_)] = 77, -5
    mask = None if known is None else np.array(known, np.bool_)
    found = gather(array(content), starts, ends, pa.binary(), mask)
    found.validate(full=True)
    assert found.to_pylist() == slices
    texts = gather(array(content), starts, ends, pa.string(), mask)
    texts.validate(full=True)
    assert texts.to_pylist() == [None if one is None else one.decode() for one in slices]
