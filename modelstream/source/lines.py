"""Cuts blocks of bytes into whole lines, and keeps track of how far an input was read.

A line's position is its number in the input, from 0. Blank lines (blanks, tabs, carriage returns) count but
are not sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from modelstream.base.json_bytes import Bytes, Int64s
from modelstream.messages.json_text import BYTE_ORDER_MARK, MAX_LINE
from modelstream.source.key_finder import KeyFinder

CUT = 4096
"""Bytes that are kept of a line that is longer than `MAX_LINE`."""

_JSON = msgspec.json.Decoder(msgspec.Raw)


@dataclass(frozen=True)
class Progress:
    """How far an input was read: whole lines (blank ones too), their bytes, and the bytes' hash."""

    lines: int = 0
    bytes: int = 0
    digest: str = ""
    """XXH3-128 in hex."""
    finished: bool = False
    """The end of the input was reached."""


@dataclass(frozen=True)
class InputLines:
    """Lines of one input, in order: n pieces of `data`, none of them blank, without their line breaks."""

    data: Bytes
    starts: Int64s
    ends: Int64s
    positions: Int64s
    """Line numbers in the input (int64[n], rising)."""
    buckets: npt.NDArray[np.uint8]
    """The buckets of the lines' keys (uint8[n])."""
    truncated: Mapping[int, int] = field(default_factory=dict)
    """The true size of each line that was cut, by position."""

    def __len__(self) -> int:
        return len(self.positions)

    def slice(self, start: int, stop: int) -> InputLines:
        """Return the lines `start` to `stop` (exclusive), sharing the data."""
        part = slice(start, stop)
        return replace(
            self,
            starts=self.starts[part],
            ends=self.ends[part],
            positions=self.positions[part],
            buckets=self.buckets[part],
        )

    def texts(self) -> list[bytes]:
        """Return the text of each line: for looking at a few."""
        return [self.data[start:end].tobytes() for start, end in zip(self.starts, self.ends, strict=True)]


@dataclass(frozen=True)
class Chunk:
    """Some lines (possibly none), and `progress_at(n)`: the progress of the input once n of them are sent."""

    lines: InputLines
    progress_at: Callable[[int], Progress]


class LineSplitter:
    r"""Cuts blocks of bytes into chunks of whole lines, and keeps the beginning of a line for the next block.

    Of a line longer than `max_line` only the first `CUT` bytes are kept, so that memory stays bounded.

    >>> splitter = LineSplitter("id")
    >>> chunk = splitter.feed(b'{"id": "u1"}\n\n{"i')
    >>> chunk.lines.texts(), chunk.progress_at(1).lines, chunk.progress_at(1).bytes
    ([b'{"id": "u1"}'], 2, 14)
    >>> chunk = splitter.feed(b'd": 2}', last=True)
    >>> chunk.lines.positions.tolist(), chunk.lines.texts()
    ([2], [b'{"id": 2}'])

    With `waits`, a last line without a line break is left for later, unless it is whole (see `is_whole`): whoever
    writes the input may be in the middle of it.
    """

    def __init__(self, key_field: str, *, max_line: int = MAX_LINE, waits: bool = False) -> None:
        self.unfinished = 0
        """The number, from 1, of a last line that was left for later; 0 for none."""
        self._finder = KeyFinder(key_field, max_line=max_line, cut=CUT)
        self._max_line = max_line
        self._waits = waits
        self._hasher = xxhash.xxh3_128()
        self._read = Progress(digest=self._hasher.hexdigest())
        self._rest = b""
        """The beginning of the line whose end has not come yet…"""
        self._dropped = 0
        """…and how many bytes of it have come, if it is too long to be kept."""
        self._ahead = 0
        """Bytes after `_read` that are already hashed: those of the byte order mark, and of a line that is too long."""

    def resume(self, lines: int, bytes_: int, hasher: xxhash.xxh3_128) -> None:
        """Continue after this many lines and bytes, which have this hash."""
        self._hasher = hasher
        self._read = Progress(lines, bytes_, hasher.hexdigest())

    def feed(self, block: bytes, *, last: bool = False) -> Chunk:
        """Return the lines that end in a block of the input; with `last`, what is left is a line too, or waits."""
        if self._dropped:
            block = self._skip_long(block)
            if not block and not last:
                return self._chunk(b"")
        data = self._without_mark(self._rest + block)
        whole = len(data) if last else data.rfind(b"\n") + 1
        unfinished = False
        if last and self._waits:
            ended = data.rfind(b"\n") + 1
            left = data[ended:]
            if self._dropped or not is_whole(left):
                whole = ended
                unfinished = bool(self._dropped or left.strip())
        chunk = self._chunk(data[:whole], last=last and not unfinished)
        self.unfinished = self._read.lines + 1 if unfinished else 0
        if whole:
            self._dropped = self._ahead = 0
        self._rest = data[whole:]
        if len(self._rest) > self._max_line:
            self._dropped = len(self._rest)
            self._hash_ahead(self._rest)
            self._rest = self._rest[:CUT]
        return chunk

    def _without_mark(self, data: bytes) -> bytes:
        if self._read.bytes or self._ahead or not data.startswith(BYTE_ORDER_MARK):
            return data
        self._hash_ahead(BYTE_ORDER_MARK)
        return data[len(BYTE_ORDER_MARK) :]

    def _skip_long(self, block: bytes) -> bytes:
        """Count what a block holds of a line that is too long; return the block from the line's end on."""
        end = block.find(b"\n")
        skipped = block if end < 0 else block[:end]
        self._dropped += len(skipped)
        self._hash_ahead(skipped)
        return block[len(skipped) :]

    def _hash_ahead(self, read: bytes) -> None:
        self._hasher.update(read)
        self._ahead += len(read)

    def _chunk(self, data: bytes, *, last: bool = False) -> Chunk:
        """Return the chunk of whole lines. Of a first line that was cut, `_rest` is in the hash already."""
        before, start, ahead = self._hasher.copy(), self._read, self._ahead
        cut = self._dropped if data else 0
        hashed = len(self._rest) if cut else 0
        found = self._finder.find(data if data.endswith(b"\n") or not data else data + b"\n", cut_first=cut > 0)
        sizes = found.nexts - 1 - found.starts
        numbers = found.numbers + start.lines
        truncated = {int(numbers[i]): int(sizes[i]) for i in np.flatnonzero(sizes > self._max_line)}
        if cut:
            truncated[start.lines] = cut

        def read_to(stop: int, lines: int, hasher: xxhash.xxh3_128, *, finished: bool = False) -> Progress:
            stop = min(stop, len(data))
            hasher.update(memoryview(data)[hashed:stop])
            return Progress(lines, start.bytes + ahead + stop - hashed, hasher.hexdigest(), finished)

        def progress_at(count: int) -> Progress:
            if count == len(numbers):
                return end
            if count == 0:
                return start
            return read_to(int(found.nexts[count - 1]), int(numbers[count - 1]) + 1, before.copy())

        end = start
        if data or last:
            end = read_to(len(data), start.lines + found.lines, self._hasher, finished=last)
        self._read = end
        return Chunk(InputLines(found.data, found.starts, found.ends, numbers, found.buckets, truncated), progress_at)


def is_whole(line: bytes) -> bool:
    r"""Tell whether a line without its line break has certainly come to its end: a JSON object, array or text.

    Of a number the next digits may be on their way, and of blanks an object.

    >>> [is_whole(line) for line in (b'{"a": 1}\r', b'{"a": 1', b"12", b"tru", b"  ")]
    [True, False, False, False, False]
    """
    if not line.lstrip().startswith((b"{", b"[", b'"')):
        return False
    try:
        _JSON.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
