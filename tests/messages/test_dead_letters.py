"""A letter keeps what can't be read, byte for byte, and is counted once however often it was sent."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstream.messages.dead_letters import (
    MAX_BYTES,
    DeadLetter,
    decode_letters,
    encode_letters,
    letter,
    once,
)

AT = ("generated", 3, 17)


def numbered(position: int, origin: str = "a", shard: int = 0) -> DeadLetter:
    return letter("not JSON", origin, position, ("generated", shard, 0), b"{")


@given(st.one_of(st.binary(max_size=200), st.text(max_size=50).map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_a_letter_keeps_the_bytes_of_the_row(row: bytes) -> None:
    written = letter("why", "o", 5, AT, row)
    (read,) = decode_letters(encode_letters([written])[0])
    assert read == written
    assert read.content() == row
    assert (read.reason, read.origin, read.position) == ("why", "o", 5)
    assert (read.stream, read.shard, read.offset) == AT
    assert read.size == len(row)


@pytest.mark.parametrize(
    "row", [b"x" * 200_000, "ü".encode() * 100_000, b"x" + "ü".encode() * 100_000, b"\xff" * 200_000]
)
def test_a_letter_keeps_the_beginning_of_a_long_row_and_its_size(row: bytes) -> None:
    (read,) = decode_letters(encode_letters([letter("why", "o", 5, AT, row)])[0])
    assert read.content() == row[:MAX_BYTES]
    assert read.size == len(row)


def test_a_letter_of_a_row_that_its_reader_cut_says_how_long_it_was() -> None:
    assert letter("too long", "o", 5, AT, b"x" * 4096, 20_000_000).size == 20_000_000


@settings(max_examples=30)
@given(st.lists(st.integers(0, MAX_BYTES), max_size=60), st.integers(1, 300_000))
def test_messages_of_letters_fit_a_stream(sizes: list[int], limit: int) -> None:
    letters = [letter("why", "o", i, AT, b"\x00" * size) for i, size in enumerate(sizes)]
    messages = encode_letters(letters, limit)
    assert [read for message in messages for read in decode_letters(message)] == letters
    for message in messages:
        assert len(message) <= limit or len(decode_letters(message)) == 1


def test_the_largest_letter_fits_a_message() -> None:
    """Worst are control characters: six bytes each as JSON."""
    assert all(
        len(m) < 1_000_000 for m in encode_letters([letter("why", "o", i, AT, b"\x01" * 10**6) for i in range(9)])
    )


@given(st.lists(st.integers(0, 20), max_size=20))
def test_letters_sent_again_after_a_crash_count_once(sent_again_from: list[int]) -> None:
    """A stage that goes on from its checkpoint repeats a run of letters, then comes to new ones."""
    sent: list[int] = []
    for start in sent_again_from:
        sent.extend(range(min(start, max(sent, default=-1) + 1), max(sent, default=-1) + 3))
    assert [found.position for found in once(map(numbered, sent))] == sorted(set(sent))


def test_the_same_position_in_another_origin_or_shard_is_another_row() -> None:
    letters = [numbered(1), numbered(1, "b"), numbered(1, "a", 2), numbered(1), numbered(1, "b"), numbered(1, "a", 2)]
    assert list(once(letters)) == letters[:3]
