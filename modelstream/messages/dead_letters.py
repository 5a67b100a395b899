"""Dead letters: rows that can never succeed, kept with the reason, their identity and their bytes.

A dead letter may be sent twice, when a crash repeats it. Its origin and position are its identity, and readers count
each identity once.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence

import msgspec

MAX_BYTES = 65_536
"""A dead letter keeps at most this many bytes of its row, which is all of nearly every event."""


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """One row that can never succeed."""

    reason: str
    origin: str
    position: int
    stream: str
    """Where the row was read: stream, shard, offset."""
    shard: int
    offset: int
    text: str = ""
    """The row, when it is UTF-8 text…"""
    base64: str = ""
    """…or else in base 64."""
    size: int = 0
    """Size of the whole row in bytes; larger than the text if that was cut."""

    def content(self) -> bytes:
        """Return the bytes that are kept."""
        return base64.b64decode(self.base64) if self.base64 else self.text.encode()


def letter(reason: str, origin: str, position: int, at: tuple[str, int, int], row: bytes, size: int = 0) -> DeadLetter:
    """Return the letter of a row that was read at (stream, shard, offset).

    >>> letter("not JSON", "a.ndjson", 7, ("generated", 0, 1), b"{").text
    '{'
    """
    kept = row[:MAX_BYTES]
    text, encoded = "", ""
    try:
        text = kept.decode()
    except UnicodeDecodeError:
        encoded = base64.b64encode(kept).decode()
    return DeadLetter(reason, origin, position, *at, text, encoded, size or len(row))


def encode_letters(letters: Sequence[DeadLetter], limit: int = 900_000) -> list[bytes]:
    """Return the letters as NDJSON messages of at most about `limit` bytes."""
    messages: list[bytes] = []
    lines: list[bytes] = []
    size = 0
    for item in letters:
        line = msgspec.json.encode(item)
        if size + len(line) > limit and lines:
            messages.append(b"\n".join(lines))
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    if lines:
        messages.append(b"\n".join(lines))
    return messages


_DECODER = msgspec.json.Decoder(DeadLetter)


def decode_letters(body: bytes) -> list[DeadLetter]:
    """Return the letters of a message."""
    letters: list[DeadLetter] = _DECODER.decode_lines(body)
    return letters


def once(letters: Iterable[DeadLetter]) -> Iterator[DeadLetter]:
    """Yield each identity once, the first time that it is seen. Takes letters of a shard in order.

    Only the highest position per origin and shard is remembered. That is enough, because a repeated letter comes after
    letters with higher positions.
    """
    seen: dict[tuple[str, int], int] = {}
    for item in letters:
        identity = (item.origin, item.shard)
        if item.position > seen.get(identity, -1):
            seen[identity] = item.position
            yield item
