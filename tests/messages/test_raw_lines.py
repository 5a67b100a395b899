"""Raw lines are read as they were written, one by one or together, and nothing else is taken for them."""

from __future__ import annotations

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from modelstream.messages.codec import UnreadableError, decode, encode, one_line, row_count
from modelstream.messages.identity import MAX_EVENTS_A_MESSAGE, MAX_POSITION
from modelstream.messages.raw_lines import MAGIC, pack, unpack, unpack_one
from tests.raw_lines import as_arrow, lines_batch

TEXTS = st.dictionaries(st.text(), st.text(), max_size=3)


@given(TEXTS, st.dictionaries(st.integers(0, MAX_POSITION), st.binary(max_size=20), max_size=5))
def test_lines_are_read_as_they_were_written(description: dict[str, str], lines: dict[int, bytes]) -> None:
    positions = sorted(lines)
    ends = np.cumsum([len(lines[at]) for at in positions], dtype=np.int32)
    text = b"".join(lines[at] for at in positions)
    found = unpack(body := pack(description, np.array(positions, np.int64), ends, text))
    assert (found.description, found.positions.tolist()) == (description, positions)
    assert (found.ends.tolist(), bytes(found.text)) == (ends.tolist(), text)
    assert row_count(body) == max(1, len(lines))
    only = [(description, at, text) for at in positions] if len(lines) == 1 else [None]
    assert [unpack_one(body)] == only


def of(*numbers: tuple[int, int], text: bytes = b"{}[]", told: bytes = b'{"origin": "o"}', size: int = 0) -> bytes:
    """Return a message of (position, end), well-formed or not."""
    positions, ends = (np.array([pair[i] for pair in numbers], np.int64) for i in (0, 1))
    head = MAGIC + (size or len(told)).to_bytes(4, "little") + told
    return head + positions.tobytes() + ends.astype(np.int32).tobytes() + text + len(numbers).to_bytes(8, "little")


BROKEN = {
    "nothing": b"",
    "another version": b"\xff\xff\xff\x02" + of((1, 4))[4:],
    "positions that fall": of((2, 2), (1, 4)),
    "a position twice": of((2, 2), (2, 4)),
    "a negative position": of((-1, 4)),
    "a position too large": of((MAX_POSITION + 1, 4)),
    "an end after the text": of((1, 5)),
    "an end before the text": of((1, 3)),
    "ends that fall": of((1, 5), (2, 3), (3, 4)),
    "a negative end": of((1, -1), (2, 4)),
    "no line for a text": of(),
    "a description without end": of((1, 4), size=2**31),
    "a description of nothing": of((1, 4), told=b"["),
    "a description of numbers": of((1, 4), told=b'{"origin": 1}'),
    "a deep description": of((1, 4), told=b"[" * 100_000),
    "no origin": of((1, 4), told=b"{}"),
    "too many lines": of(*((i, 0) for i in range(MAX_EVENTS_A_MESSAGE + 1)), text=b""),
    "a count beyond the end": of((1, 4))[:-8] + (1000).to_bytes(8, "little"),
    "a count beyond all ends": of((1, 4))[:-8] + b"\xff" * 8,
    "text in place of positions": of(text=b"")[:-8] + (1).to_bytes(8, "little"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_any_other_bytes_are_unreadable(name: str) -> None:
    body = BROKEN[name] + xxhash.xxh3_64_digest(BROKEN[name])
    with pytest.raises(UnreadableError):
        decode(body)
    if body.startswith(MAGIC) and body[-16:-8] == (1).to_bytes(8, "little"):
        with pytest.raises(UnreadableError):
            one_line(body)


@given(st.binary(max_size=60))
def test_no_bytes_end_in_a_traceback(content: bytes) -> None:
    for body in (content, MAGIC + content, of((1, 2), told=content, text=b"{}")):
        sealed = body + xxhash.xxh3_64_digest(body)
        for read in (decode, one_line):
            try:
                read(sealed)
            except UnreadableError as error:
                assert str(error)


def test_a_message_of_an_event_of_100_bytes_takes_at_most_twice_as_much() -> None:
    text = b'{"user_id": "u1", "event_type": "bet", "event_time": "2026-03-28 20:00:00", "bet_amount": 12.75}  '
    assert len(encode("lines", "events.ndjson", lines_batch([text], [7]), ingested_at=str(10**15))) <= 2 * len(text)


def test_lines_that_an_earlier_version_sent_are_read() -> None:
    batch = lines_batch([b"{}", b"["], [3, 5])
    found = decode(as_arrow(batch, kind="lines", origin="a", version="1", ingested_at="5"))
    assert (found.kind, found.origin, dict(found.metadata)) == ("lines", "a", {"ingested_at": "5"})
    assert found.batch.equals(batch)
