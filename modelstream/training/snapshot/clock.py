"""The end of the log: until when outcomes can be known. No single event moves it.

It decides which waits for a label are over, so one event of the year 2099 must not end them all. Two rules:

- An event that is dated later than it arrived says nothing about the time. (Clocks may be `TOLERANCE` fast.) In a log
  of simulated times most events are dated so; there, arrival says nothing.
- The log has come as far as a second user has (of many users: more than one in a hundred).

Both rest on what the log holds, so training again gives the same end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelstream.training.snapshot.examples import Bools
from modelstream.use_case.columns import INGESTED_AT
from modelstream.use_case.declared import UseCase

TOLERANCE = 5 * 60 * 1_000_000
"""Microseconds by which an event may be dated later than it arrived: clocks of devices and servers are seldom further
apart."""
AHEAD = 100
"""One in so many users may be ahead of the end, and at least one."""


@dataclass(frozen=True)
class LogEnd:
    """Until when a log goes. Times are microseconds since 1970 UTC.

    >>> past = {"ann": 50, "bob": 70, "eve": 900}
    >>> LogEnd.of(past, {"dan": 4_000_000}, events=10, future=1)
    LogEnd(time=70, latest=900, events=10, future=1, simulated=False)
    >>> LogEnd.of({}, {"ann": 50, "bob": 70}, events=2, future=2)
    LogEnd(time=50, latest=70, events=2, future=2, simulated=True)
    """

    time: int = 0
    """The end of the log, 0 for an empty one."""
    latest: int = 0
    """The latest event time that counts, of any user."""
    events: int = 0
    future: int = 0
    """Events that are dated later than they arrived."""
    simulated: bool = False
    """Most events are: the times are simulated, and all of them count."""

    @classmethod
    def of(cls, past: dict[str, int], future_of: dict[str, int], *, events: int, future: int) -> LogEnd:
        """Return the end that follows from each user's latest time, of events dated before they arrived and after."""
        simulated = 2 * future > events
        clocks = _joined(past, future_of.items()) if simulated else past
        ordered = sorted(clocks.values(), reverse=True)
        if not ordered:
            return cls(events=events, future=future)
        place = min(max(1, len(ordered) // AHEAD), len(ordered) - 1)
        return cls(ordered[place], ordered[0], events, future, simulated)


class LogClock:
    """Follows the clocks of a log's users, batch by batch. Memory: a number a user.

    An example would need a log: `tests/training/snapshot/test_clock.py` makes some.
    """

    def __init__(self, use_case: UseCase, arrived: str = INGESTED_AT) -> None:
        """Take the name of the column that says when an event arrived."""
        self._use_case = use_case
        self._arrived = arrived
        self._past: dict[str, int] = {}
        self._future: dict[str, int] = {}
        self._events = self._future_events = 0

    @property
    def columns(self) -> list[str]:
        """The columns of the log that `add` needs."""
        return [self._use_case.key, self._use_case.time, self._arrived]

    def add(self, batch: pa.RecordBatch) -> Bools:
        """Take in the next rows; return which of them are dated later than they arrived."""
        times = batch.column(self._use_case.time).cast(pa.int64())
        arrived = batch.column(self._arrived).cast(pa.int64())
        future = pc.fill_null(pc.greater(pc.subtract(times, TOLERANCE), arrived), False)
        mask: Bools = future.to_numpy(zero_copy_only=False)
        self._events += batch.num_rows
        self._future_events += int(np.count_nonzero(mask))
        table = pa.table({"key": batch.column(self._use_case.key), "time": times})
        if mask.any():
            _joined(self._future, _latest(table.filter(future)))
            table = table.filter(pc.invert(future))
        _joined(self._past, _latest(table))
        return mask

    def end(self) -> LogEnd:
        """Return the end of the log so far."""
        return LogEnd.of(self._past, self._future, events=self._events, future=self._future_events)


def _latest(table: pa.Table) -> Iterable[tuple[str, int]]:
    found = table.group_by("key").aggregate([("time", "max")])
    return zip(found["key"].to_pylist(), found["time_max"].to_pylist(), strict=True)


def _joined(clocks: dict[str, int], more: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Add users' times to clocks, which only move forward."""
    for key, time in more:
        if time > clocks.get(key, time - 1):
            clocks[key] = time
    return clocks
