"""The sender: appends the lines of a source to a stream, each at least once and in order, and saves its progress.

At most one append is unconfirmed at any time. If its outcome is not known the same records are sent again, and
nothing after them. How far the input was sent is saved once the records are durable: a crash in between sends
lines twice, with the same identity, and every consumer drops the second.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelstream.base.arrays import gather
from modelstream.errors import UnavailableError
from modelstream.messages.codec import MAX_MESSAGE_BYTES, MAX_MESSAGE_EVENTS, encode_lines
from modelstream.messages.raw_lines import LINE_BYTES
from modelstream.source.lines import Chunk, InputLines, Progress
from modelstream.source.readers import Source
from modelstream.streams import Streams

T = TypeVar("T")

FIRST_BACKOFF = 0.1
LAST_BACKOFF = 5.0
"""Seconds between tries during an outage."""
SAVE_SECONDS = 0.1
"""Seconds between two saves of the progress; a crash sends at most that much again. A save is a synced commit, about 1
ms."""
TICK = 0.01
"""At a high rate, lines that are due are collected for this many seconds, since each append is a synced commit too."""
MOST_BEHIND = 1.0
"""After an outage, lines of at most this many seconds are sent at once; the rest of the lost time is not made up for.
"""
SINGLE_RATE = 5_000
"""Up to this rate, in lines per second, each line is a message of its own, as clients send them."""


class Clock:
    """Time, and whether to stop, as the sender sees them. Tests have their own."""

    def __init__(self, stopped: Callable[[], bool] = lambda: False) -> None:
        self.stopped = stopped

    def now_us(self) -> int:
        """Return microseconds since 1970 UTC."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    def wait(self, seconds: float) -> bool:
        """Wait, or until the sender shall stop; return whether it shall."""
        until = time.monotonic() + seconds
        while not self.stopped() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
        return self.stopped()


class Pace:
    """Decides how many lines may be sent now, at a rate in lines per second; 0 means without limit."""

    def __init__(self, rate: float, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._next = clock.monotonic()
        """When the next line is due."""

    def take(self, waiting: int) -> int:
        """Wait until lines are due; return how many of those waiting. 0 means stop."""
        if not self._rate:
            return waiting
        while not (stop := self._clock.stopped()) and (early := self._next - self._clock.monotonic()) > 0:
            self._clock.wait(max(early, TICK if self._rate > 1 / TICK else 0))
        if stop:
            return 0
        now = self._clock.monotonic()
        self._next = max(self._next, now - MOST_BEHIND)
        count = min(int((now - self._next) * self._rate) + 1, waiting)
        self._next += count / self._rate
        return count


def messages(
    lines: InputLines, shards: int, origin: str, ingested_at: int, *, most: int = MAX_MESSAGE_EVENTS
) -> list[tuple[int, bytes]]:
    """Return lines as records (shard, message of kind `lines`), those of a shard in order.

    A message has at most `most` lines and `MAX_MESSAGE_BYTES` of them, but a single line of any size.
    `ingested_at` is in microseconds since 1970 UTC.
    """
    of_row = lines.buckets % np.uint8(shards)
    order = np.argsort(of_row, kind="stable")
    starts, ends, positions = lines.starts[order], lines.ends[order], lines.positions[order]
    texts = gather(lines.data, starts, ends, pa.binary())
    _, limits, content = texts.buffers()
    text, limits = memoryview(content), np.frombuffer(limits, np.int32)
    sizes = np.concatenate([[0], np.cumsum(ends - starts + LINE_BYTES)])
    bounds = np.searchsorted(of_row[order], np.arange(shards + 1))
    records = []
    for shard, (first, last) in enumerate(itertools.pairwise(bounds.tolist())):
        for start, stop in _pieces(sizes, first, last, most):
            metadata = {"ingested_at": str(ingested_at)}
            if lines.truncated:
                cut = {str(p): lines.truncated[p] for p in positions[start:stop].tolist() if p in lines.truncated}
                metadata |= {"truncated": json.dumps(cut)} if cut else {}
            body = encode_lines(origin, positions[start:stop], limits[start : stop + 1], text, **metadata)
            records.append((shard, body))
    return records


def _pieces(sizes: npt.NDArray[np.int64], first: int, last: int, most: int) -> Iterator[tuple[int, int]]:
    """Cut rows into pieces that fit into a message, of about equal size; `sizes[i]` is the number of bytes before row
    i."""
    while first < last:
        begin, left = int(sizes[first]), int(sizes[last] - sizes[first])
        pieces = max(-(-left // MAX_MESSAGE_BYTES), -(-(last - first) // most))
        even = int(np.searchsorted(sizes, begin + left / pieces))
        fitting = int(np.searchsorted(sizes, begin + MAX_MESSAGE_BYTES, side="right")) - 1
        stop = max(min(even, fitting, first + most), first + 1)
        yield first, stop
        first = stop


@dataclass(frozen=True)
class Sent:
    """What a sender has done."""

    lines: int
    """Lines sent by this sender; blank ones don't count."""
    messages: int
    finished: bool
    """The input was sent to its end (false: the sender was stopped early, or the last line is unfinished)."""
    unfinished: int = 0
    """The number, from 1, of a last line that is being written: it waits for a later run; 0 for none."""
    read: int = 0
    """Lines of the input that are read by now, in this run and before; blank ones count."""


class Watcher:
    """Gets reports of what a sender does; this base class ignores them."""

    def sent(self, lines: int, expected: int) -> None:
        """Called with the number of lines that this sender has sent so far, and of those it expects (0: unknown)."""

    def waits(self, why: str) -> None:
        """Called with the reason why the sender waits, or with "" when it continues."""


class StopError(Exception):
    """The sender was asked to stop during an outage."""


class Sender:
    """Sends a source to a stream.

    `save` makes the progress of the input durable. A rate above 0 sends so many lines a second.
    """

    def __init__(
        self,
        streams: Streams,
        stream: str,
        save: Callable[[Progress], None],
        *,
        rate: float = 0.0,
        clock: Clock | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self._streams = streams
        self._stream = stream
        self._save_progress = save
        self._rate = rate
        self._clock = clock or Clock()
        self._watcher = watcher or Watcher()
        self._lines = 0
        self._messages = 0
        self._reached = Progress()
        self._due: Callable[[], Progress] | None = None
        """The progress that is durable in the stream but not yet saved."""
        self._saved_at = self._clock.monotonic()

    def run(self, source: Source) -> Sent:
        """Send the source to its end; or, if the clock says stop, finish the chunk in progress and end.

        During an outage it waits, and reports that to the watcher.
        """
        pace = Pace(self._rate, self._clock)
        most = 1 if 0 < self._rate <= SINGLE_RATE else MAX_MESSAGE_EVENTS
        try:
            described = surely("begin", partial(self._streams.describe, self._stream), self._clock, self._watcher)
            shards = described.shards
            for chunk in source.chunks(self._clock.stopped):
                self._send(source, chunk, shards, pace, most)
                if self._clock.stopped():
                    break
            self._save()
        except StopError:
            pass
        return Sent(self._lines, self._messages, self._reached.finished, source.unfinished, self._reached.lines)

    def _send(self, source: Source, chunk: Chunk, shards: int, pace: Pace, most: int) -> None:
        count = len(chunk.lines)
        at = 0
        while at < count and (due := pace.take(count - at)):
            lines = chunk.lines.slice(at, at + due)
            records = messages(lines, shards, source.origin, self._clock.now_us(), most=most)
            self._surely("append", partial(self._streams.append, self._stream, records))
            at += due
            self._lines += due
            self._messages += len(records)
            self._watcher.sent(self._lines, source.expected)
            self._due = partial(chunk.progress_at, at)
            if self._clock.monotonic() - self._saved_at >= SAVE_SECONDS:
                self._save()
        if at == count:
            self._due = partial(chunk.progress_at, count)

    def _save(self) -> None:
        if self._due is None:
            return
        reached = self._due()
        self._due = None
        self._surely("save how far the input was sent", partial(self._save_progress, reached))
        self._reached = reached
        self._saved_at = self._clock.monotonic()

    def _surely(self, what: str, action: Callable[[], object]) -> None:
        surely(what, action, self._clock, self._watcher)


def surely(what: str, action: Callable[[], T], clock: Clock, watcher: Watcher) -> T:
    """Return what an action returns; during an outage repeat it at growing intervals.

    Raises StopError if the clock says stop meanwhile.

    >>> surely("count", lambda: 3, Clock(), Watcher())
    3
    """
    for attempt in itertools.count():
        try:
            found = action()
        except UnavailableError as error:
            wait = min(FIRST_BACKOFF * 2 ** min(attempt, 10), LAST_BACKOFF)
            watcher.waits(f"can't {what}: {error}; trying again in {wait:g} s")
            if clock.wait(wait):
                raise StopError from error
        else:
            if attempt:
                watcher.waits("")
            return found
    raise AssertionError("there is always another try")
