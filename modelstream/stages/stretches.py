"""The lines of the messages that the event-handler takes at once, in as few pieces as there are origins and shards.

Many small messages then cost as much as one that holds all of their lines, but for what each needs by itself: its hash,
its place and its text.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from modelstream.events.checking import MessageLines
from modelstream.messages.identity import Int64s
from modelstream.stages.shard import Incoming, Shard


@dataclass
class Stretch:
    """Consecutive messages of a shard whose lines continue one origin, treated as one; or one unreadable message.

    >>> from modelstream.messages.identity import Checkpoint
    >>> stretch = Stretch(Shard(0, Checkpoint(), saved=-1), "a.ndjson")
    >>> stretch.add(5, MessageLines("a.ndjson", pa.array([b"{}", b"[]"]), np.array([0, 1]), 10))
    >>> stretch.add_line(6, 2, b"{}", 11)
    >>> stretch.lines().texts.to_pylist(), stretch.offsets().tolist(), stretch.last
    ([b'{}', b'[]', b'{}'], [5, 5, 6], 2)
    """

    shard: Shard
    origin: str
    last: int = -1
    """The position of its last line."""
    unreadable: tuple[Incoming, str] | None = None
    """The message that can't be read, and why."""
    _parts: list[MessageLines] = field(default_factory=list)
    _offsets: list[Int64s] = field(default_factory=list)
    _texts: list[bytes] = field(default_factory=list)
    """Lines that came one a message, after the parts."""
    _places: list[tuple[int, int, int]] = field(default_factory=list)
    """Of each: the position, when it was ingested, the message's offset."""

    def goes_on(self, shard: Shard, origin: str, first: int) -> bool:
        """Return whether lines from this position on continue these, in the same origin."""
        return self.shard is shard and self.origin == origin and 0 <= self.last < first

    def add_line(self, offset: int, position: int, text: bytes, ingested_at: int) -> None:
        """Append the only line of a message at `offset`."""
        self._texts.append(text)
        self._places.append((position, ingested_at, offset))
        self.last = position

    def add(self, offset: int, lines: MessageLines) -> None:
        """Append the lines of a message at `offset`."""
        self._close()
        self._parts.append(lines)
        self._offsets.append(np.full(len(lines), offset, np.int64))
        self.last = int(lines.positions[-1]) if len(lines) else -1

    def lines(self) -> MessageLines:
        """Return the lines of all of its messages."""
        self._close()
        parts = self._parts
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return MessageLines(self.origin, pa.array([], pa.binary()), np.empty(0, np.int64), 0)
        return MessageLines(
            self.origin,
            pa.concat_arrays([part.texts for part in parts]),
            np.concatenate([part.positions for part in parts]),
            np.concatenate([np.full(len(part), part.ingested_at, np.int64) for part in parts]),
            {position: size for part in parts for position, size in part.sizes.items()},
        )

    def offsets(self) -> Int64s:
        """Return the offset of each line's message (int64)."""
        self._close()
        if len(self._offsets) == 1:
            return self._offsets[0]
        return np.concatenate([np.empty(0, np.int64), *self._offsets])

    def _close(self) -> None:
        """Make a part of the lines that came one a message."""
        if not self._texts:
            return
        positions, ingested_at, offsets = np.array(self._places, np.int64).T.copy()
        self._parts.append(MessageLines(self.origin, pa.array(self._texts, pa.binary()), positions, ingested_at))
        self._offsets.append(offsets)
        self._texts, self._places = [], []
