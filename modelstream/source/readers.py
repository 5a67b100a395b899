"""Sources of raw JSON lines: a file, continued from where it was read to, and standard input.

A source yields chunks: lines with their positions and buckets, and how far the input was read after any of
them. The third source, the generator, is in `modelstream.source.generator`.
"""

from __future__ import annotations

import io
import os
import select
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

import xxhash

from modelstream.base.words import counted
from modelstream.errors import ConfigurationError, UnavailableError
from modelstream.messages.json_text import MAX_LINE
from modelstream.source.formats import FIRST_BYTES, refuse_wrong_format
from modelstream.source.input_file import check_input, open_input
from modelstream.source.lines import Chunk, LineSplitter, Progress
from modelstream.tables import Input, InputTable

CHUNK_BYTES = 8_000_000
CHUNK_BYTES_A_SHARD = 750_000
"""A chunk is divided among the shards, with parts that differ by some 10 %. A part should fit into a message of 1 MB.
"""
LINGER = 0.01
"""Seconds that a line from standard input waits for others."""
LOOK_UP = 0.1
"""How often, in seconds, a source that waits for input checks whether it should stop."""

START_ANEW = "start over with --fresh, which deletes the data, or give another --data folder"


class Source(ABC):
    """An input. Its `origin` is its name in every event's identity."""

    origin: str
    expected: int = 0
    """How many lines it yields in all, as far as is known by now; 0 if nothing is."""
    unfinished: int = 0
    """The number, from 1, of a last line that is being written: it waits for a later run; 0 for none."""

    @abstractmethod
    def chunks(self, stopped: Callable[[], bool]) -> Iterator[Chunk]:
        """Yield the lines that were not sent yet; the last chunk says that the input is finished.

        A source that waits for input ends early if `stopped()` returns true.
        """


def chunk_bytes(shards: int) -> int:
    """Return how many bytes to read at a time for a stream of so many shards.

    >>> chunk_bytes(1), chunk_bytes(8), chunk_bytes(64)
    (750000, 6000000, 8000000)
    """
    return min(CHUNK_BYTES, CHUNK_BYTES_A_SHARD * shards)


class FileSource(Source):
    """The lines of a file, from where it was read to before. Its origin is the file's absolute path.

    `read` is how much was read and sent before; a file whose beginning has changed since is refused. A last line that
    is unfinished waits for a later run.
    """

    def __init__(
        self,
        path: Path,
        key_field: str,
        *,
        read: Progress | None = None,
        block: int = CHUNK_BYTES,
        max_line: int = MAX_LINE,
    ) -> None:
        self.origin = str(path)
        self._path = path
        self._read = read or Progress()
        self._block = block
        self._splitter = LineSplitter(key_field, max_line=max_line, waits=True)

    def chunks(self, stopped: Callable[[], bool]) -> Iterator[Chunk]:
        """Yield the file's lines; see `Source`. Raises ConfigurationError if the part read before changed."""
        with open_input(self._path) as file:
            try:
                more = self._find_place(file)
                lines = taken = 0
                while not stopped():
                    block = file.read(self._block) if more else b""
                    chunk = self._splitter.feed(block, last=not block)
                    lines, taken = lines + len(chunk.lines), taken + len(block)
                    self.unfinished = self._splitter.unfinished
                    self.expected = lines + (_size_left(file) * lines // taken if block else 0)
                    yield chunk
                    if not block:
                        return
            except OSError as error:
                raise UnavailableError(
                    f"{self._path}: reading failed: {error.strerror or error}",
                    remedy="check the disk and run the same command again: it continues where it stopped",
                ) from error

    def _find_place(self, file: io.FileIO) -> bool:
        """Go to the first byte that was not read. Return False if the last line has no line break yet."""
        read = self._read
        hasher = xxhash.xxh3_128()
        left, final = read.bytes, b"\n"
        while left:
            block = file.read(min(left, self._block))
            if not block:
                raise self._changed("is shorter than it was")
            hasher.update(block)
            left -= len(block)
            final = block[-1:]
        if read.bytes and hasher.hexdigest() != read.digest:
            raise self._changed("has changed in the part that was read")
        left_open = read.lines > 0 and final != b"\n"
        line_break = self._line_break(file.read(2)) if left_open else b""
        hasher.update(line_break)
        place = read.bytes + len(line_break)
        file.seek(place)
        self._splitter.resume(read.lines, place, hasher)
        return not left_open or bool(line_break)

    def _line_break(self, following: bytes) -> bytes:
        """Return the break that now ends the last line read, or nothing as long as none has come."""
        if following in (b"", b"\r"):
            return b""
        for line_break in (b"\n", b"\r\n"):
            if following.startswith(line_break):
                return line_break
        raise self._changed(f"has more in line {self._read.lines}, which had no line break")

    def _changed(self, what: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self._path} {what} before ({counted(self._read.lines, 'line')}, {self._read.bytes} bytes): "
            "new lines can't be told from those that were already sent",
            remedy=f"restore the file, or only add lines to it; or {START_ANEW}",
        )


def _size_left(file: io.FileIO) -> int:
    """Return how many bytes of a file follow."""
    return max(0, os.fstat(file.fileno()).st_size - file.tell())


def open_file(path: Path | str, key_field: str, inputs: InputTable, *, block: int = CHUNK_BYTES) -> FileSource:
    """Return the source of a file, registered as an input, that continues where the file was read to.

    Raises ConfigurationError if it can't be read.
    """
    resolved = Path(path).expanduser().resolve()
    check_input(resolved)
    origin = str(resolved)
    known = inputs.register(origin, Input(origin=origin, kind="file", path=origin))
    read = Progress(known.lines, known.bytes, known.digest, known.finished)
    return FileSource(resolved, key_field, read=read, block=block)


class PipeSource(Source):
    """The lines that arrive at a descriptor, such as standard input, until its end."""

    def __init__(
        self,
        origin: str,
        descriptor: int,
        key_field: str,
        *,
        block: int = CHUNK_BYTES,
        max_line: int = MAX_LINE,
    ) -> None:
        self.origin = origin
        self._descriptor = descriptor
        self._block = block
        self._splitter = LineSplitter(key_field, max_line=max_line)

    def chunks(self, stopped: Callable[[], bool]) -> Iterator[Chunk]:
        """Yield lines as they arrive, once nothing more has come for `LINGER` seconds; see `Source`."""
        ended = looked = False
        while not ended and not stopped():
            parts: list[bytes] = []
            size = 0
            while size < self._block and not ended and self._ready(LINGER if parts else LOOK_UP):
                parts.append(self._take())
                size += len(parts[-1])
                ended = not parts[-1]
            if parts:
                block = b"".join(parts)
                if not looked:
                    refuse_wrong_format(block[:FIRST_BYTES], "standard input")
                    looked = True
                yield self._splitter.feed(block, last=ended)

    def _ready(self, seconds: float) -> bool:
        return bool(select.select([self._descriptor], [], [], seconds)[0])

    def _take(self) -> bytes:
        try:
            return os.read(self._descriptor, 1 << 20)
        except OSError as error:
            raise UnavailableError(
                f"{self.origin}: can't be read on: {error.strerror or error}",
                remedy="lines that came before are kept; send the rest again",
            ) from error


def open_stdin(key_field: str, inputs: InputTable, *, descriptor: int = 0, block: int = CHUNK_BYTES) -> PipeSource:
    """Return the source of standard input, entered among the inputs: `stdin:1`, `stdin:2`…"""
    earlier = sum(known.kind == "stdin" for known in inputs.all())
    origin = f"stdin:{earlier + 1}"
    inputs.register(origin, Input(origin=origin, kind="stdin"))
    return PipeSource(origin, descriptor, key_field, block=block)
