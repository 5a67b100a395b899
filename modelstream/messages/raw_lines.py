"""Raw lines as bytes: what readers append, from a single event of 100 bytes to ten thousand lines.

After four bytes that begin no text stand the size of the description, the description (a JSON object of texts), the
lines' positions (int64), where each line ends (int32), their text, and at last the number of lines and an XXH3 hash of
all before it. A message of one line takes some 90 bytes besides its text, and 2 us to read; as an Arrow IPC stream it
would take 650, and 30 us.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from modelstream.messages.identity import MAX_EVENTS_A_MESSAGE, MAX_POSITION, Int64s

MAGIC = b"\xff\xff\xff\x01"
"""The last byte is the version of the format. Arrow's messages begin with four of 255, text in UTF-8 or UTF-16 never
with three."""
LINE_BYTES = 12
"""Bytes that a line takes besides its text, for its position and its end."""

_HEAD = struct.Struct("<4sI")
_ONE = struct.Struct("<qi")
_TEXTS = msgspec.json.Decoder(dict[str, str])
_TAIL = 16

Int32s = npt.NDArray[np.int32]


@dataclass(frozen=True)
class RawLines:
    """Raw lines: the line i is `text[ends[i - 1]:ends[i]]`, at `positions[i]` of its origin (int64, rising)."""

    description: dict[str, str]
    positions: Int64s
    ends: Int32s
    text: memoryview


def pack(description: Mapping[str, str], positions: Int64s, ends: Int32s, text: bytes | memoryview) -> bytes:
    """Return the message of raw lines (see `RawLines`).

    >>> body = pack({"origin": "a"}, np.array([7, 9]), np.array([2, 4], np.int32), b"{}[]")
    >>> found = unpack(body)
    >>> found.description, found.positions.tolist(), found.ends.tolist(), bytes(found.text)
    ({'origin': 'a'}, [7, 9], [2, 4], b'{}[]')
    """
    told = msgspec.json.encode(description)
    count = len(positions).to_bytes(8, "little")
    parts = (
        _HEAD.pack(MAGIC, len(told)),
        told,
        positions.astype("<i8", copy=False).tobytes(),
        ends.astype("<i4", copy=False).tobytes(),
        text,
        count,
    )
    content = b"".join(parts)
    return content + xxhash.xxh3_64_digest(content)


def unpack(body: bytes) -> RawLines:
    """Return the lines of a message, without copying their text. Raises ValueError for anything else."""
    description, count, start = _begin(body)
    ends_at = start + 8 * count
    text_at = ends_at + 4 * count
    text = memoryview(body)[text_at:-_TAIL]
    if text_at > len(body) - _TAIL:
        raise ValueError("fewer lines than it says")
    positions = np.frombuffer(body, "<i8", count, start).astype(np.int64)  # a copy, which is aligned
    ends = np.frombuffer(body, "<i4", count, ends_at).astype(np.int32)
    if count and (positions[0] < 0 or positions[-1] > MAX_POSITION or (positions[1:] <= positions[:-1]).any()):
        raise ValueError("positions that don't rise")
    if (ends[-1] if count else 0) != len(text) or (count and ends[0] < 0) or (ends[1:] < ends[:-1]).any():
        raise ValueError("lines that end outside of the text")
    return RawLines(description, positions, ends, text)


def unpack_one(body: bytes) -> tuple[dict[str, str], int, bytes] | None:
    """Return the description, position and text of a message's only line; None if it has more or none.

    Raises ValueError like `unpack`, which would return the same in five times as long.

    >>> unpack_one(pack({"origin": "a"}, np.array([7]), np.array([2], np.int32), b"{}"))
    ({'origin': 'a'}, 7, b'{}')
    """
    if body[-16:-8] != b"\1\0\0\0\0\0\0\0":
        return None
    description, _, start = _begin(body)
    text = body[start + _ONE.size : -_TAIL]
    if start + _ONE.size > len(body) - _TAIL:
        raise ValueError("fewer lines than it says")
    position, end = _ONE.unpack_from(body, start)
    if not 0 <= position <= MAX_POSITION:
        raise ValueError("a position that no line has")
    if end != len(text):
        raise ValueError("a line that ends outside of the text")
    return description, position, text


def count_of(body: bytes) -> int:
    """Return how many lines a message says that it has, without looking at more of it."""
    return int.from_bytes(body[-_TAIL:-8], "little")


def _begin(body: bytes) -> tuple[dict[str, str], int, int]:
    """Return the description, the number of lines, and where their positions begin."""
    magic, size = _HEAD.unpack_from(body) if len(body) >= _HEAD.size + _TAIL else (b"", 0)
    start = _HEAD.size + size
    if magic != MAGIC or start > len(body) - _TAIL:
        raise ValueError("no message of raw lines of this version")
    count = count_of(body)
    if count > MAX_EVENTS_A_MESSAGE:
        raise ValueError(f"{count} rows in a message; {MAX_EVENTS_A_MESSAGE} are allowed")
    try:
        return _TEXTS.decode(body[_HEAD.size : start]), count, start
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"a description that can't be read: {error}") from error
