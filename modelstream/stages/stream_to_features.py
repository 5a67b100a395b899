"""stream-to-features: turns each user's events into features, and sends a vector after every event that calls for a
prediction.

A user's row is kept in the features table with the position of the last event that changed it; The rows and the
watermarks are committed together, after the vectors have been sent.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from modelstream.errors import OvertakenError
from modelstream.features.engine import Applied, FeatureEngine, NoEventsError, no_lookup
from modelstream.features.users import texts
from modelstream.features.vectors import Derive, Vectors
from modelstream.messages.codec import UnreadableError, check_columns
from modelstream.messages.identity import Checkpoint, Int64s, buckets_of, positions_of
from modelstream.settings import Settings, from_environment
from modelstream.stages.base import Stage
from modelstream.stages.shard import Incoming, Shard
from modelstream.stores import Stores
from modelstream.streams import Streams
from modelstream.tables import FeatureTable, LookupTable
from modelstream.use_case.declared import UseCase

CACHED_USERS = 200_000
"""For this many users per shard, rows stay in memory (about 500 bytes each); the rows of others are read again when the
users return."""


class StreamToFeatures(Stage):
    """See the module.

    >>> import tempfile
    >>> from modelstream.messages.codec import encode
    >>> from pathlib import Path
    >>> from modelstream.settings import StoreNames, StoreUrls
    >>> from modelstream.use_case.file import parse_use_case
    >>> use_case = parse_use_case('''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean, count],
    ...  fields: {house: key, at: time, kind: text, celsius: number},
    ...  events: {reading: {value: celsius}}, predict_on: [reading],
    ...  model: {name: frost, prediction: will_freeze}}''')
    >>> event = {"house": "h1", "at": 0, "kind": "reading", "ingested_at": 0}
    >>> rows = [{**event, "position": i, "celsius": celsius} for i, celsius in enumerate([20.0, 21.0])]
    >>> message = Incoming(0, 0, encode("events", "file", pa.RecordBatch.from_pylist(rows, use_case.event_schema)), 0)
    >>> settings = Settings(function="f", use_case="", reads="incoming-events", writes="serving")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     stores = Stores(StoreUrls().within(Path(folder)), StoreNames(), use_case)
    ...     stage = StreamToFeatures(None, settings, None, use_case, stores.features, None, epoch=0)
    ...     shard = Shard(0, stage.open(0), saved=-1)
    ...     stage.take(shard, message), stage.take(shard, message), stage.counters.repeated
    ...     stage.save(shard)
    ...     stores.features.count()
    ...     stores.close()
    (2, 2, 2)
    1
    >>> [(to, vectors.column("reading_mean").to_pylist()) for to, _, _, vectors in shard.outbox]
    [(0, [20.0, 20.5])]
    """

    def __init__(
        self,
        context: Any,
        settings: Settings,
        streams: Streams,
        use_case: UseCase,
        features: FeatureTable,
        enrichment: LookupTable | None,
        epoch: int,
        derive: Derive | None = None,
    ) -> None:
        super().__init__(context, settings, streams, epoch)
        self._use_case = use_case
        self._features = features
        self._look_up = enrichment.get_many if enrichment else no_lookup
        """A key that was not found."""
        self._told_misses = False
        self._vectors = Vectors(use_case, derive)
        self._engines: dict[int, FeatureEngine] = {}

    @classmethod
    async def begin(cls, context: Any, derive: Derive | None = None) -> StreamToFeatures:
        """Return the stage that this process's settings describe, started, with the notebook's hook if there is one.

        Raises ConfigurationError, and UnavailableError while a store is away.
        """
        settings = from_environment()
        stores = Stores.of(settings)
        stage = cls(
            context,
            settings,
            stores.streams,
            stores.use_case,
            stores.features,
            stores.enrichment,
            stores.epoch,
            derive,
        )
        stage._load_kernels()
        stage.start()
        return stage

    def _load_kernels(self) -> None:
        """Warm up, so that the first message doesn't wait a second."""
        none = pa.RecordBatch.from_pylist([], self._use_case.event_schema)
        FeatureEngine(self._use_case).apply(none, np.empty(0, np.int64), no_lookup)

    def open(self, shard: int) -> Checkpoint:
        """Read the shard's watermarks and offset; a user's row is read at the user's first event."""
        self._engines[shard] = FeatureEngine(self._use_case)
        return self._features.checkpoint(shard)

    def take(self, shard: Shard, message: Incoming) -> int:
        """Apply the new events of a message, and send the vectors that follow.

        Raises UnreadableError for any other message, OvertakenError if another owner of the shard has already applied
        its events, ConfigurationError if a hook does something that it must not, and UnavailableError if a table is
        unavailable.
        """
        rows = self.decoded(message, "events")
        events = rows.batch
        check_columns(events, self._use_case.event_schema, self._use_case.needed_of_event)
        count: int = events.num_rows
        _, first = self.identity(message)
        stream_positions = np.arange(first, first + count, dtype=np.int64)
        keys = events.column(self._use_case.key)
        marks = shard.checkpoint.watermarks
        before = marks.of(rows.origin)
        new = marks.advance(rows.origin, positions_of(events), buckets_of(keys))
        if not new.all():
            events, stream_positions = events.filter(pa.array(new)), stream_positions[new]
            self.counters.repeated += count - events.num_rows
        try:
            applied = self._update(shard, events, stream_positions)
        except NoEventsError as error:
            marks.put_back(rows.origin, before)
            raise UnreadableError(f"a message of events that were not checked: {error}") from error
        self._send(shard, rows.origin, events, applied)
        return count

    def save(self, shard: Shard) -> None:
        """Write the rows that changed, the watermarks and the offset, each only if it rises.

        Raises UnavailableError while the table is away.
        """
        engine = self._engines[shard.number]
        if not self._features.commit(shard.number, engine.changed(), shard.checkpoint):
            self.forget(shard.number)  # another owner was here, and is further
        engine.clean()
        engine.evict(CACHED_USERS)
        self._tell_misses()

    def _update(self, shard: Shard, events: pa.RecordBatch, stream_positions: Int64s) -> Applied:
        engine = self._engines[shard.number]
        missing = engine.missing(texts(events.column(self._use_case.key).unique()))
        if missing:
            engine.load(missing, self._features.get_many(missing))
        applied = engine.apply(events, stream_positions, self._look_up)
        if applied.skipped and self._features.checkpoint(shard.number).offset > shard.checkpoint.offset:
            # Its vectors are sent, but we would not count them.
            raise OvertakenError(f"another owner of shard {shard.number} is ahead: its state is read again")
        counters = shard.checkpoint.counters
        counters["vectors"] = counters.get("vectors", 0) + len(applied.indices)
        for reason, number in applied.not_counted.items():
            counters[reason] = counters.get(reason, 0) + number
        if applied.lookups:
            counters["lookups"] = counters.get("lookups", 0) + applied.lookups
            counters["lookup_misses"] = counters.get("lookup_misses", 0) + applied.lookup_misses
            self.counters.lookups += applied.lookups
            self.counters.lookup_misses += applied.lookup_misses
        return applied

    def _tell_misses(self) -> None:
        """Write into the function's log, once, that most lookups find nothing."""
        counters, lookup = self.counters, self._use_case.lookup
        if lookup is None or self._told_misses or not counters.mostly_missed:
            return
        self._told_misses = True
        self._context.logger.warn_with(
            "Most lookups find nothing: the default is used",
            table=lookup.table,
            lookups=counters.lookups,
            misses=counters.lookup_misses,
        )

    def _send(self, shard: Shard, origin: str, events: pa.RecordBatch, applied: Applied) -> None:
        if len(applied.indices):
            shard.send(shard.number, "vectors", origin, self._vectors.batch(events, applied))
