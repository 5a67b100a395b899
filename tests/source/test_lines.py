"""Lines and progress are the same however an input is cut into blocks."""

from __future__ import annotations

import itertools
from unittest import mock

import pytest
import xxhash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelstream.source.lines import Chunk, LineSplitter, Progress

LONG = 40
CUT = 8

SHORT = [b'{"k": "a"}', b'{"k": 1}', b"", b" ", b"\r", b"x\r", b"\xef\xbb\xbf", b"\xff", b"y" * LONG]
CUTS = [b"y" * (LONG + 1), b" " * (LONG + 1), b"z" * LONG + b"\r", b"w" * 200, b" " * 20 + b"v" * 100]
texts = st.sampled_from([*SHORT, *CUTS])
contents = st.tuples(st.booleans(), st.lists(texts, max_size=6), st.booleans()).map(
    lambda parts: b"\xef\xbb\xbf" * parts[0] + b"\n".join(parts[1]) + b"\n" * (parts[2] and len(parts[1]) > 0)
)


@pytest.fixture(autouse=True, scope="module")
def _short_cut() -> object:
    with mock.patch("modelstream.source.lines.CUT", CUT):
        yield


def split(blocks: list[bytes], start: tuple[Progress, bytes] | None = None) -> list[Chunk]:
    """Feed blocks to a splitter, from the start, or from where an input was read to."""
    splitter = LineSplitter("k", max_line=LONG)
    if start is not None:
        splitter.resume(start[0].lines, start[0].bytes, xxhash.xxh3_128(start[1]))
    return [*(splitter.feed(block) for block in blocks), splitter.feed(b"", last=True)]


def rows(chunks: list[Chunk]) -> list[tuple[int, bytes, int, int | None]]:
    """Position, text, bucket and true size (if it was cut) of each line."""
    return [
        (int(position), text, int(bucket), chunk.lines.truncated.get(int(position)))
        for chunk in chunks
        for position, text, bucket in zip(chunk.lines.positions, chunk.lines.texts(), chunk.lines.buckets, strict=True)
    ]


def expected(content: bytes) -> list[tuple[int, bytes, int | None]]:
    """Position, text and true size (if it must be cut), in the plainest way."""
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [
        (i, line[:CUT], len(line)) if len(line) > LONG else (i, line.removesuffix(b"\r"), None)
        for i, line in enumerate(lines)
        if len(line) > LONG or line.strip(b" \t\r")
    ]


def cut(content: bytes, at: list[int]) -> list[bytes]:
    places = [0, *sorted(place % (len(content) + 1) for place in at), len(content)]
    return [content[a:b] for a, b in itertools.pairwise(places)]


@settings(deadline=None)
@given(contents, st.lists(st.integers(0, 600), max_size=8))
@example(b'{"k": "a"}\r\n\r\n \t\n{"k": "b"}', [11])
@example(b"y" * 100 + b"\n" + b"y" * 100, [50, 60, 101, 150])
def test_lines_are_the_same_however_the_input_is_cut(content: bytes, at: list[int]) -> None:
    found = rows(split(cut(content, at)))
    assert [(position, text, size) for position, text, _, size in found] == expected(content)
    assert found == rows(split([content]))


@settings(deadline=None)
@given(contents, st.lists(st.integers(0, 600), max_size=8))
def test_reading_on_from_any_progress_gives_the_rest(content: bytes, at: list[int]) -> None:
    everything = rows(split([content]))
    sent = 0
    for chunk in split(cut(content, at)):
        for count in range(len(chunk.lines) + 1):
            progress = chunk.progress_at(count)
            read, rest = content[: progress.bytes], content[progress.bytes :]
            assert progress.digest == xxhash.xxh3_128_hexdigest(read)
            assert rows(split([rest], (progress, read))) == everything[sent + count :]
            if progress.lines and rest:
                assert read.endswith(b"\n")
        sent += len(chunk.lines)
    assert progress.finished
    assert progress.bytes == len(content)


def test_only_the_end_of_the_input_is_finished() -> None:
    chunks = split([b'{"k": 1}\n', b'{"k": 2}\n{"k": 3}'])
    assert [chunk.progress_at(len(chunk.lines)).finished for chunk in chunks] == [False, False, True]


def test_a_slice_shares_the_lines() -> None:
    lines = split([b'{"k": 1}\n{"k": 2}\n\n{"k": 3}\n'])[0].lines
    part = lines.slice(1, 3)
    assert part.texts() == [b'{"k": 2}', b'{"k": 3}']
    assert part.positions.tolist() == [1, 3]
    assert part.data is lines.data
