"""Streams: named, split in shards, read by offset, and kept until every group of readers has acknowledged.

One contract for every backend, tested by `tests/contract/streams_contract.py`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar

import msgspec

from modelstream.errors import ConfigurationError
from modelstream.messages.codec import row_count

SAMPLE_SECONDS = 2.0
"""How long the number of rows of a message that was looked at holds for its stream: each look transfers a message."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message of a shard. Offsets rise by 1; `appended_at` is in us since 1970 UTC.

    `Streams` has an example.
    """

    shard: int
    offset: int
    body: bytes
    appended_at: int


@dataclass(frozen=True)
class StreamInfo:
    """What a stream is: its number of shards, and the epoch that it was made in (see `messages.identity`).

    `Streams` has an example.
    """

    name: str
    shards: int
    epoch: int

    def check(self, shard: int) -> None:
        """Raise ConfigurationError for a shard that the stream doesn't have."""
        if not 0 <= shard < self.shards:
            raise ConfigurationError(
                f"stream {self.name!r} has no shard {shard}", remedy=f"its shards are 0 to {self.shards - 1}"
            )


class Streams(ABC):
    """The streams at one URL. Use an instance in one thread; any number of processes may have instances of their own.

    Every method raises ConfigurationError for a stream that doesn't exist or is broken, and UnavailableError
    for an outage (locked too long, disk full, no connection), after which the same call may be repeated.

    >>> import tempfile
    >>> from modelstream.streams import open_streams
    >>> with tempfile.TemporaryDirectory() as folder, open_streams(f"sqlite://{folder}") as streams:
    ...     info = streams.create("incoming", shards=2)
    ...     offsets = streams.append("incoming", [(1, b"first"), (1, b"second")])
    ...     found = streams.read("incoming", shard=1, offset=0, limit_messages=10, limit_bytes=1 << 20)
    ...     streams.ack("my-function", "incoming", {1: found[0].offset})
    ...     acked = streams.acked("my-function", "incoming")
    >>> info, [message.body for message in found], acked
    (StreamInfo(name='incoming', shards=2, epoch=0), [b'first', b'second'], {0: -1, 1: 0})
    """

    first_offset: ClassVar[int] = 0
    """The offset of a shard's first message: V3IO counts from 1."""

    all_or_none: ClassVar[bool] = True
    """Whether an append that fails has appended nothing."""

    counts_rows: bool = False
    """Whether `rows` is exact. Where it is not, it is an estimate."""

    _samples: dict[str, tuple[float, int]] | None = None

    @abstractmethod
    def create(self, name: str, shards: int, epoch: int = 0) -> StreamInfo:
        """Make a stream, or return the existing one.

        Raises ConfigurationError if that has another number of shards or another epoch.
        """

    @abstractmethod
    def describe(self, name: str) -> StreamInfo:
        """Return what a stream is."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of all streams, sorted."""

    def expect_appends(self) -> None:  # noqa: B027 where there is nothing to get ready, it does nothing
        """Get ready in the background, so that the first append needn't wait. It raises nothing, and may do nothing."""

    @abstractmethod
    def append(self, name: str, records: Sequence[tuple[int, bytes]]) -> list[int]:
        """Append (shard, body) records, durable when this returns; return their offsets.

        After an UnavailableError, nothing was appended if `all_or_none`. Otherwise some records may have been, but none
        of a shard without all before it. Repeat the same call until it succeeds, and send nothing else to these shards
        before: records that are stored twice are dropped as already seen, but one that overtakes another would cause a
        loss.
        """

    @abstractmethod
    def read(self, name: str, shard: int, offset: int, limit_messages: int, limit_bytes: int) -> list[Message]:
        """Return messages of a shard from an offset on, in order.

        At most `limit_messages` messages and `limit_bytes` of bodies; but the first message may have any size. Nothing
        at the end of the shard. Where messages were trimmed, it begins at the first that is left. What others have
        appended since `range` was asked may come a moment later: `version` changes when it is there.
        """

    @abstractmethod
    def range(self, name: str, shard: int) -> tuple[int, int]:
        """Return the first offset and the next one to be given; both are the same in an empty shard."""

    def ranges(self, name: str) -> dict[int, tuple[int, int]]:
        """Return the same of every shard."""
        return {shard: self.range(name, shard) for shard in range(self.describe(name).shards)}

    def rows(self, name: str, parts: Mapping[int, tuple[int, int]]) -> int:
        """Return how many rows are in parts of shards, from an offset up to another: at least 1 for each message.

        Here it is an estimate: all messages are taken to be like the first one of the longest part.
        """
        longest = max(parts, key=lambda shard: parts[shard][1] - parts[shard][0], default=0)
        count = sum(max(0, end - first) for first, end in parts.values())
        if not count:
            return 0
        self._samples = {} if self._samples is None else self._samples
        now = time.monotonic()
        looked_at, rows = self._samples.get(name, (-SAMPLE_SECONDS, 1))
        if now - looked_at >= SAMPLE_SECONDS:
            found = self.sample(name, longest, parts[longest][0])
            rows = row_count(found.body) if found else rows
            self._samples[name] = now, rows
        return count * rows

    def sample(self, name: str, shard: int, offset: int) -> Message | None:
        """Return one message of a shard, for a look at it; None if there is none at this offset or after it."""
        return next(iter(self.read_once(name, shard, offset, 1, 1)), None)

    def read_once(self, name: str, shard: int, offset: int, limit_messages: int, limit_bytes: int) -> list[Message]:
        """Return the same as `read`, where nobody goes on to read what follows: it isn't fetched ahead."""
        return self.read(name, shard, offset, limit_messages, limit_bytes)

    @abstractmethod
    def ack(self, group: str, name: str, offsets: Mapping[int, int]) -> None:
        """Record that a group has processed shards, each up to and including an offset. A lower one changes nothing.

        A power failure may lose it; the messages are then delivered again.
        """

    @abstractmethod
    def acked(self, group: str, name: str) -> dict[int, int]:
        """Return the last offset that a group has acknowledged for every shard, `first_offset - 1` for none."""

    @abstractmethod
    def version(self, name: str) -> int:
        """Return a number that changes when something is appended. This is cheap enough to call all the time.

        Ask for it before reading: if the read finds nothing, read again when it has changed. Only compare it with what
        the same instance returned. An instance that has read shards may report only changes of those.
        """

    def listen(self, name: str) -> int | None:  # noqa: ARG002
        """Return a file descriptor that can be read after an append on this machine; None where there is none.

        Always the same one; it need not tell of every append, so look at `version` now and then. Read it empty before
        `version` is asked for.
        """
        return None

    @abstractmethod
    def trim(self, name: str, groups: Sequence[str], older_than_us: int) -> int:
        """Delete messages that all of the groups have acknowledged and that were appended before a time (us since
        1970).

        Return how many messages went. Without groups nothing is deleted. Offsets go on as before.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Delete a stream, if it exists, with its messages and acknowledgements. It must not be in use."""

    @abstractmethod
    def close(self) -> None:
        """Give back files and connections. The next call opens them again."""

    def __enter__(self) -> Streams:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
