"""A lookup table with a cache, for backends where each lookup is a trip over the network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa

from modelstream.tables.contract import LookupTable

CACHED_KEYS = 100_000
"""Most keys in the cache, whether found or not: about 15 MB. If there are more, the cache is emptied."""
CACHED_SECONDS = 10.0
"""Longest time, in seconds, that a value is used after another process has replaced it.

A row keeps the value that was looked up, and replay uses that, so an old value is no different from an event that came
earlier.
"""


class CachedLookup(LookupTable):
    """A lookup table whose `get_many` asks for each key at most once in `CACHED_SECONDS`, all missing ones at once.

    >>> import tempfile
    >>> from modelstream.tables import open_tables
    >>> with tempfile.TemporaryDirectory() as folder, open_tables(f"sqlite://{folder}") as tables:
    ...     table, now = tables.lookup("enrichment"), [0.0]
    ...     cached = CachedLookup(table, clock=lambda: now[0])
    ...     before = cached.get_many(["10115"])
    ...     rows = table.load([pa.record_batch({"key": ["10115"], "value": [2.5]})])  # as another process does
    ...     soon = cached.get_many(["10115"])
    ...     now[0] = CACHED_SECONDS
    ...     before, soon, cached.get_many(["10115"])
    ([None], [None], [2.5])
    """

    delay = CACHED_SECONDS

    def __init__(self, table: LookupTable, clock: Callable[[], float] = time.monotonic) -> None:
        self.table = table
        self._clock = clock
        self._values: dict[str, float | None] = {}
        self._since = -CACHED_SECONDS

    def load(self, batches: Iterable[pa.RecordBatch]) -> int:
        self._values.clear()
        return self.table.load(batches)

    def get_many(self, keys: Sequence[str]) -> list[float | None]:
        now = self._clock()
        if now - self._since >= CACHED_SECONDS:
            self._values.clear()
            self._since = now
        missing = [key for key in dict.fromkeys(keys) if key not in self._values]
        if missing and len(self._values) + len(missing) > CACHED_KEYS:
            self._values.clear()
            missing = list(dict.fromkeys(keys))
        if missing:
            self._values.update(zip(missing, self.table.get_many(missing), strict=True))
        return [self._values[key] for key in keys]

    def scan(self, batch_size: int = 10_000, after: str = "") -> Iterator[pa.RecordBatch]:
        return self.table.scan(batch_size, after)

    def count(self) -> int:
        return self.table.count()
