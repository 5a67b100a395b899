"""A worker's acknowledgements: those of a cycle are made at once, for all shards, by one call of the streams.

A stage acknowledges shard by shard, as Nuclio has it. On Kafka each acknowledgement by itself takes two requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from modelstream.errors import ModelstreamError

RETRY = 0.1
"""Seconds until acknowledgements that failed are tried again: they may be late, messages are then repeated."""


class Acknowledgements:
    """Gathers what is noted before the event loop goes on, and makes it then.

    >>> made = []
    >>> async def work():
    ...     acks = Acknowledgements(lambda stream, offsets: made.append((stream, dict(offsets))), print)
    ...     for shard, offset in ((0, 7), (1, 3), (0, 9)):
    ...         acks.note("serving", shard, offset)
    ...     await asyncio.sleep(0)
    >>> asyncio.run(work())
    >>> made
    [('serving', {0: 9, 1: 3})]
    """

    def __init__(
        self, acknowledge: Callable[[str, Mapping[int, int]], None], tell: Callable[[ModelstreamError], object]
    ) -> None:
        """Take what acknowledges the offsets of a stream by shard, and what hears of the first of several failures."""
        self._acknowledge, self._tell = acknowledge, tell
        self._noted: dict[str, dict[int, int]] = {}
        self._next: asyncio.Handle | None = None
        self._told = False

    def note(self, stream: str, shard: int, offset: int) -> None:
        """Note that a shard was processed up to an offset."""
        offsets = self._noted.setdefault(stream, {})
        offsets[shard] = max(offset, offsets.get(shard, offset))
        if self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._try)

    def make(self) -> None:
        """Make what was noted now. Raises what acknowledging raises; what is not made stays noted."""
        while self._noted:
            stream, offsets = next(iter(self._noted.items()))
            self._acknowledge(stream, offsets)
            del self._noted[stream]
        self._told = False

    def _try(self) -> None:
        self._next = None
        try:
            self.make()
        except ModelstreamError as error:
            if not self._told:
                self._told = True
                self._tell(error)
            self._next = asyncio.get_running_loop().call_later(RETRY, self._try)
