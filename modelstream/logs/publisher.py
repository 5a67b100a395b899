"""Publishes a log in the background of the function that writes it."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress

from modelstream.errors import ModelstreamError
from modelstream.logs.contract import Log
from modelstream.logs.storage import Key

LOOK_SECONDS = 1.0
"""Seconds between two looks at what waits."""

WAIT_SECONDS = 90.0
"""Rows wait at most about this long, or MANY_PARTS parts, for more to come into a file with them. At steady traffic a
file takes half an hour."""

FIRST_WAIT_SECONDS = 2.0
"""For a shard's first file, this for each time that it got rows: who has just begun wants to look at something."""

MANY_PARTS = 512

NICE = 10


class Publisher(threading.Thread):
    """Publishes what waits in a log's parts, in a thread of low priority, until it is stopped.

    It needs an instance of the log for itself. An outage is left to those who append: it is tried again.

    >>> import tempfile
    >>> import pyarrow as pa
    >>> from modelstream.logs import open_log
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log, again = (open_log(folder, "events", pa.schema([("user", pa.string())]), epoch=0) for _ in range(2))
    ...     publisher = Publisher(again)
    ...     publisher.start()
    ...     log.append(0, pa.table({"user": ["a", "b"]}), log.checkpoint(0))
    ...     publisher.stop()
    ...     log.publish(), log.files()
    (True, 1)
    """

    def __init__(self, log: Log) -> None:
        super().__init__(name="publisher", daemon=True)
        self._log = log
        self._stopping = threading.Event()
        self._since: dict[Key, float] = {}

    def run(self) -> None:
        """Publish in time. The thread may end at any point, with the process."""
        if sys.platform == "linux":  # elsewhere this is the priority of the process
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        with suppress(ModelstreamError):
            self._log.publish()  # what a killed process has left
        while not self._stopping.wait(LOOK_SECONDS):
            with suppress(ModelstreamError):
                self.publish_due(time.monotonic())

    def publish_due(self, now: float) -> None:
        """Publish the shards whose parts have waited long enough, or are many. Raises as the log does.

        `now` is in seconds, on a clock that doesn't jump.
        """
        waiting = self._log.waiting()
        self._since = {key: self._since.get(key, now) for key in waiting}
        for key, found in waiting.items():
            wait = WAIT_SECONDS if found.number > 0 else min(WAIT_SECONDS, FIRST_WAIT_SECONDS * max(1, found.groups))
            if now - self._since[key] >= wait or found.parts >= MANY_PARTS:
                del self._since[key]  # first: on a full disk too, it is tried again after the same time
                self._log.publish([key[1]])

    def stop(self) -> None:
        """Come to the end of what it does."""
        self._stopping.set()
        self.join()
