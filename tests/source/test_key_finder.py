"""The key that a reader finds without parsing is the key that parsing finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelstream.messages.identity import bucket_of
from modelstream.messages.json_text import key_of
from modelstream.source.key_finder import Found, KeyFinder

GOLDEN = Path(__file__).parents[1] / "golden"

names = st.sampled_from(["user_id", "user_id2", "user", "x", "ключ", 'a"user_id', "", "\\"])
keys: st.SearchStrategy[object] = st.one_of(
    st.sampled_from(["u1", "", " ", "0", "ümlaut ☂", "😀", '"', "a\\b", "\x7f", "\x1f", "\ud7ff", "\ue000"]),
    st.integers(-3, 12345),
    st.sampled_from([2**63, -(2**63), 10**18, 10**17, 10**30, True, None, 1.0, -0.0, 1e300, [], {}, ["user_id"]]),
    st.sampled_from([10001.0, 123456789012345.0, 2.0**53, 2.0**60, 1.5, -7.0, {"user_id": "u2"}, {"user_id": {}}]),
    st.uuids().map(str),
)
blanks = st.sampled_from(["", "", "", " ", "\t", "\r", "  "])
NUMBERS = """0 -0 00 01 1. .5 1.5 -1.5e3 1e5 1E+5 1e --1 1e400 +1 NaN 9999999999999999999 tru true nul null false falsey
    Infinity 'a' 0x1 truefalse"""
numbers = st.sampled_from(NUMBERS.split())


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """A line like those that come in, sometimes damaged."""
    fields = draw(st.lists(st.tuples(names, keys), max_size=4))
    texts = []
    for name, value in fields:
        ascii_only = draw(st.booleans())
        text = draw(numbers) if draw(st.integers(0, 9)) == 0 else json.dumps(value, ensure_ascii=ascii_only)
        parts = (json.dumps(name, ensure_ascii=ascii_only), ":", text)
        texts.append("".join(draw(blanks) + part for part in parts) + draw(blanks))
    line = f"{draw(blanks)}{{{','.join(texts)}}}{draw(blanks)}".encode("utf-8", "surrogatepass")
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(line)))
        cut = draw(st.integers(0, 2))
        piece = draw(st.sampled_from([b"", b'"', b"\\", b"{", b"}", b",", b":", b"[", b"\xff", b"\xc3", b"\x00", b"1"]))
        line = line[:at] + piece + line[at + cut :]
    return line.replace(b"\n", b"")


def slow_truth(block: bytes, key_field: str) -> list[tuple[int, bytes, int]]:
    """Number, text and bucket of every line, found in the plainest way."""
    rows = []
    for number, line in enumerate(block.split(b"\n")[:-1]):
        text = line.removesuffix(b"\r")
        if line.strip(b" \t\r"):
            rows.append((number, text, bucket_of(key_of(text, key_field))))
    return rows


def rows_of(found: Found, block: bytes) -> list[tuple[int, bytes, int]]:
    spans = zip(found.numbers, found.starts, found.ends, found.buckets, strict=True)
    return [(int(number), block[start:end], int(bucket)) for number, start, end, bucket in spans]


@settings(deadline=None)
@given(st.lists(lines(), max_size=6))
@example([b'[{"user_id": "u1"}]', b'[{"user_id": "u1"}'])
@example([b'{"user_id": "u1"} {"user_id": "u2"}'])
@example(
    [b'{"user_id": "u1", "user_id": "u2"}', b'{"user_id": "u1", "user_id": 1.5}', b'{"user_id": "a", "user_id": ""}']
)
@example([b'{"x": {"user_id": "u1"}}', b'{"x": "\\"user_id\\": 1"}', b'{"user\\u005fid": "u1"}', b'"user_id": "u1"'])
@example(
    [
        b'{"user_id": "\xed\xa0\x80"}',
        b'{"user_id": "\xc0\x80"}',
        b'{"user_id": "\xf4\x90\x80\x80"}',
        b'{"user_id": "\xe2',
    ]
)
@example(
    [
        b'{"user_id": "u1",}',
        b'{"user_id" "u1"}',
        b'{user_id: "u1"}',
        b'{"user_id": u1}',
        b'{"user_id": 0123}',
        b"{",
        b"}",
    ]
)
def test_lines_and_keys_are_those_of_parsing(some: list[bytes]) -> None:
    block = b"".join(line + b"\n" for line in some)
    assert rows_of(KeyFinder("user_id").find(block), block) == slow_truth(block, "user_id")


@settings(deadline=None)
@given(lines())
def test_any_key_name_is_found(line: bytes) -> None:
    for name in ("ключ", "x", 'a"user_id', "", "x.user_id", "user.user_id.user_id"):
        block = line + b"\n"
        assert rows_of(KeyFinder(name).find(block), block) == slow_truth(block, name)


@pytest.mark.parametrize("file", ["reference_events.ndjson", "edge_events.ndjson"])
def test_real_events_are_found_as_by_parsing(file: str) -> None:
    block = (GOLDEN / file).read_bytes()
    assert rows_of(KeyFinder("user_id").find(block), block) == slow_truth(block, "user_id")


def test_no_real_event_takes_the_slow_way() -> None:
    assert KeyFinder("user_id").find((GOLDEN / "reference_events.ndjson").read_bytes()).slow == 0


@pytest.mark.parametrize(
    "line",
    [
        b'{"user_id": "u1"}',
        b'\t { "a" : -1.25e-09 , "user_id" : 123 , "b":null} \r',
        b'{"user_id":"\xc3\xbcmlaut \xe2\x98\x82 \xf0\x9f\x98\x80","x":true,"y":false,"z":0}',
        b'{"x": "u1", "user_id": 0}',
        b"{}",
        b'{"x": 123456789012345678}',
        b'{"user_id": 10001.0}',
    ],
)
def test_flat_lines_take_the_fast_way(line: bytes) -> None:
    found = KeyFinder("user_id").find(line + b"\n")
    assert found.slow == 0
    assert found.buckets.tolist() == [bucket_of(key_of(line, "user_id"))]


def test_blank_lines_count_and_line_breaks_of_both_kinds_go() -> None:
    block = b'\n{"user_id":"u1"}\r\n \t\r\n\r\n{"user_id":"u2"}\n\x0b\n'
    found = KeyFinder("user_id").find(block)
    assert [row[:2] for row in rows_of(found, block)] == [
        (1, b'{"user_id":"u1"}'),
        (4, b'{"user_id":"u2"}'),
        (5, b"\x0b"),
    ]
    assert found.lines == 6


def test_nothing_in_nothing_out() -> None:
    assert KeyFinder("user_id").find(b"").lines == 0


def test_a_long_line_is_cut_and_gets_the_key_that_is_left() -> None:
    block = b'{"user_id": "u1"}' + b" " * 100 + b'\n{"user_id": "u2", "x": "' + b"y" * 100 + b'"}\n{"user_id": "u3"}\n'
    found = KeyFinder("user_id", max_line=50, cut=20).find(block)
    assert [row[1] for row in rows_of(found, block)] == [
        b'{"user_id": "u1"}   ',
        b'{"user_id": "u2", "x',
        b'{"user_id": "u3"}',
    ]
    assert found.buckets.tolist() == [bucket_of("u1"), bucket_of(""), bucket_of("u3")]
