"""The messages that a stage was given and has not taken yet.

What the platform delivers tells a stage how far each shard goes; the bodies come with it, as far as there is room. What
is missing in between (another process was given it and killed, or it was let go while the stage was held) the stage
reads from the stream itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from modelstream.stages.shard import Incoming

ROOM_BYTES = 1_000_000
"""With this many bytes waiting, they are taken before more are given: thousands of events, which then cost 1 µs each.
Over Kafka a cycle waits some 10 ms for its appends: with an eighth of the room it took half as many records."""


class Inbox:
    """See the module.

    >>> inbox = Inbox()
    >>> for offset in (4, 5, 9):
    ...     inbox.put(Incoming(0, offset, b"x", 0))
    >>> set(inbox.waiting()), inbox.last(0), inbox.first(0)
    ({0}, 9, 4)
    >>> [message.offset for message in inbox.take(0, 5)[0]]
    [5]
    >>> inbox.first(0)
    9
    """

    def __init__(self) -> None:
        self.count = 0
        """Messages that were ever put."""
        self.bytes = 0
        self._messages: dict[int, deque[Incoming]] = {}
        self._last: dict[int, int] = {}

    @property
    def full(self) -> bool:
        """Whether what is here is to be taken before more is given."""
        return self.bytes >= ROOM_BYTES

    def put(self, message: Incoming, *, keep: bool = True) -> None:
        """Note a message that was given, and keep its body, unless it is to be read again later."""
        self._last[message.shard] = max(message.offset, self._last.get(message.shard, -1))
        self.count += 1
        if keep:
            self._messages.setdefault(message.shard, deque()).append(message)
            self.bytes += len(message.body)

    def waiting(self) -> Collection[int]:
        """Return the shards of which something may wait."""
        return self._last.keys()

    def last(self, shard: int) -> int:
        """Return the highest offset that was given of a shard."""
        return self._last[shard]

    def first(self, shard: int) -> int:
        """Return the offset of the first message that is here, beyond the last that was given if there is none."""
        messages = self._messages.get(shard)
        return messages[0].offset if messages else self._last[shard] + 1

    def take(self, shard: int, start: int) -> tuple[list[Incoming], bool]:
        """Take out the messages that follow each other from an offset on, and drop those before it.

        Return them, and whether any was dropped.
        """
        messages = self._messages.get(shard)
        found: list[Incoming] = []
        repeated = False
        while messages and messages[0].offset <= start:
            message = messages.popleft()
            self.bytes -= len(message.body)
            if message.offset == start:
                found.append(message)
                start += 1
            else:
                repeated = True
        if not messages and start > self._last[shard]:
            del self._last[shard]
            self._messages.pop(shard, None)
        return found, repeated

    def clear(self) -> None:
        """Drop everything: the platform delivers it again."""
        self._messages.clear()
        self._last.clear()
        self.bytes = 0
