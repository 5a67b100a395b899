"""Retention: deletes old messages that every reader has acknowledged."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

from modelstream.errors import ModelstreamError
from modelstream.stores import Stores
from modelstream.streams import Streams

RETENTION_SECONDS = 24 * 3600.0
TRIM_EVERY = 600.0
TRIM_FIRST = 30.0
"""Seconds from the start to the first trim, so that a service that is restarted every day trims too."""


class Trimmer(threading.Thread):
    """Deletes, every ten minutes, old messages that all readers of a stream have acknowledged."""

    def __init__(self, stores: Stores, groups: Mapping[str, Sequence[str]]) -> None:
        super().__init__(name="trimmer", daemon=True)
        self._stores = stores
        self._groups = groups

    def run(self) -> None:
        """Trim every ten minutes. The thread may end at any point, with the process."""
        wait = TRIM_FIRST
        while True:
            time.sleep(wait)
            wait = TRIM_EVERY
            with self._stores as stores:
                trim(stores.streams, self._groups, time.time() - RETENTION_SECONDS)


def trim(streams: Streams, groups: Mapping[str, Sequence[str]], before: float) -> int:
    """Delete messages older than `before` (seconds since 1970) that all `groups` of a stream have acknowledged.

    Returns how many. A stream that can't be used just now is left for the next time.
    """
    trimmed = 0
    for name, readers in groups.items():
        try:
            trimmed += streams.trim(name, readers, int(before * 1e6))
        except ModelstreamError:  # those who read it say so
            continue
    return trimmed
