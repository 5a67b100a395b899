"""Accepts events that clients send: they go to their shards, and one append serves all clients that wait.

A body is taken whole or not at all, so a client that got no 202 sends the same body again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from modelstream.errors import UnavailableError
from modelstream.http.bodies import Event, messages, read_events
from modelstream.streams import Streams

SMALL_BODY = 64 << 10
"""A body of up to this many bytes is split in the event loop: that takes less than 1 ms, which delays others less than
a thread would."""
UNKNOWN_SECONDS = 60.0
"""Seconds for which an append with an unknown outcome is repeated (`Streams.all_or_none`): a client that is told of it
can only send the same again, and some events may then count twice."""
FIRST_BACKOFF = 0.1


class Intake:
    """Takes bodies and appends their events to a stream. Bodies that arrive during an append share the next one.

    Use it in one event loop. The streams are used in a thread of their own, since an append waits for the disk.
    """

    def __init__(self, open_streams: Callable[[], Streams], stream: str, key_field: str) -> None:
        self.events = 0
        """Events that are durable."""
        self.appends = 0
        self._open_streams = open_streams
        self._stream = stream
        self._key_field = key_field
        self._shards = 0
        self._streams: Streams
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="intake")
        self._waiting: list[tuple[list[Event], asyncio.Future[None]]] = []
        self._arrived = asyncio.Event()
        self._closing = False
        self._collector: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the stream and wait for bodies."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._open)
        self._collector = loop.create_task(self._collect())

    async def take(self, body: bytes) -> int:
        """Return the number of a body's events, once they are durable. Raises RefusedError and UnavailableError."""
        if len(body) <= SMALL_BODY:
            events = read_events(body, self._key_field)
        else:
            events = await asyncio.to_thread(read_events, body, self._key_field)
        if events:
            durable = asyncio.get_running_loop().create_future()
            self._waiting.append((events, durable))
            self._arrived.set()
            await durable
        return len(events)

    async def close(self) -> None:
        """Append what waits, and close the stream."""
        self._closing = True
        self._arrived.set()
        if self._collector is not None:
            await self._collector
            await asyncio.get_running_loop().run_in_executor(self._thread, self._streams.close)
        self._thread.shutdown()

    def _open(self) -> None:
        self._streams = self._open_streams()
        self._streams.expect_appends()
        self._shards = self._streams.describe(self._stream).shards

    async def _collect(self) -> None:
        """Append, again and again, whatever arrived during the previous append."""
        loop = asyncio.get_running_loop()
        while self._waiting or not self._closing:
            await self._arrived.wait()
            self._arrived.clear()
            group, self._waiting = self._waiting, []
            if not group:
                continue
            failure: Exception | None = None
            try:
                await loop.run_in_executor(self._thread, self._append, [events for events, _ in group])
            except Exception as error:  # whatever it is, those who wait must hear of it
                failure = error
            else:
                self.appends += 1
                self.events += sum(len(events) for events, _ in group)
            for _, durable in group:
                if durable.done():  # the client has gone
                    continue
                if failure is None:
                    durable.set_result(None)
                else:
                    durable.set_exception(failure)

    def _append(self, group: list[list[Event]]) -> None:
        records = messages((event for events in group for event in events), self._shards)
        deadline = time.monotonic() + UNKNOWN_SECONDS
        while True:
            try:
                self._streams.append(self._stream, records)
                return
            except UnavailableError as error:
                if self._streams.all_or_none:
                    raise
                if self._closing or time.monotonic() > deadline:
                    raise UnavailableError(
                        f"{error}; it is unknown whether these events were taken: if you send them again, "
                        "they may count twice",
                        remedy=error.remedy,
                    ) from None
                time.sleep(FIRST_BACKOFF)
