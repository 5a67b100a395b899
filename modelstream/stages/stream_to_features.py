"""stream-to-features: turns each user's events into features, and sends a vector after every event that calls for a
prediction.

A user's row is kept in the features table with the position of the last event that changed it; The rows and the
watermarks are committed together, after the vectors have been sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from modelstream.errors import OvertakenError
from modelstream.features.engine import (
    Applied,
    FeatureEngine,
    LookupFunction,
    NoEventsError,
    Prepared,
    no_lookup,
    prepare,
)
from modelstream.features.users import texts
from modelstream.features.vectors import Derive, Vectors
from modelstream.messages.codec import UnreadableError, check_columns
from modelstream.messages.identity import (
    LOOKUP_MISSES,
    LOOKUPS,
    Checkpoint,
    Int64s,
    buckets_of,
    positions_of,
    stream_positions,
)
from modelstream.settings import Settings, from_environment
from modelstream.stages.base import Stage
from modelstream.stages.joined import Joined, join
from modelstream.stages.shard import Incoming, Shard
from modelstream.stores import Stores
from modelstream.streams import Streams
from modelstream.tables import FeatureTable
from modelstream.use_case.declared import UseCase

CACHED_BYTES = 256 << 20
"""Rows of users stay in memory until they take so much, of all shards of the worker together; those of others are read
again when the users return. One with 18 columns takes 550 bytes, so it is half a million of them, and a row read again
costs 5 us. What is not committed yet stays beside them."""
SPARED = 0.75
"""When rows take more than that, they are cut down to this part of it: cutting moves all that stay."""

FEW_ROWS = 4_000
"""So many rows are committed at once while a shard is waiting for its commit: they take 40 ms, and as long, events have
to wait."""
MANY_EVENTS = 60_000
"""When so many events were applied since the last commits, all shards are committed at once, whatever it takes: nobody
waits for one of them. Shards share the pages of the table, each of which is then written once, not eight times."""


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
        look_up: LookupFunction | None,
        epoch: int,
        derive: Derive | None = None,
    ) -> None:
        super().__init__(context, settings, streams, epoch)
        self._use_case = use_case
        self._features = features
        self._look_up = look_up or no_lookup
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
            stores.look_up,
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
        in_stream = np.arange(first, first + count, dtype=np.int64)
        keys = events.column(self._use_case.key)
        marks = shard.checkpoint.watermarks
        before = marks.of(rows.origin)
        new = marks.advance(rows.origin, positions_of(events), buckets_of(keys))
        if not new.all():
            events, in_stream = events.filter(pa.array(new)), in_stream[new]
            self.counters.repeated += count - events.num_rows
        try:
            prepared = prepare(self._use_case, events)
        except NoEventsError as error:
            marks.put_back(rows.origin, before)
            raise UnreadableError(f"a message of events that were not checked: {error}") from error
        self._load([(shard, prepared)])
        applied = self._update(shard, prepared, in_stream)
        if len(applied.indices):
            shard.send(shard.number, "vectors", rows.origin, self._vectors.batch(events, applied))
        return count

    def take_all(self, groups: Sequence[tuple[Shard, list[Incoming]]]) -> list[int]:
        """Apply the events of many messages together where they are small; raise what `take` raises."""
        use_case = self._use_case
        joined = join(groups, lambda message: self.decoded(message, "events"))
        if joined is None:
            return super().take_all(groups)
        try:
            check_columns(joined.batch, use_case.event_schema, use_case.needed_of_event)
            prepared = prepare(use_case, joined.batch)
        except (UnreadableError, NoEventsError):
            return super().take_all(groups)  # which finds the message that must be refused
        for shard, message, reason in joined.unreadable:
            self.refuse(shard, message, reason)
        self._take_joined(joined, prepared)
        return joined.counts

    def _take_joined(self, joined: Joined, prepared: Prepared) -> None:
        """Apply events in the order of their messages, and make one batch of all vectors."""
        positions, buckets = positions_of(joined.batch), buckets_of(joined.batch.column(self._use_case.key))
        in_stream = stream_positions(self.epoch, joined.offsets, joined.indices)
        parts = []
        for part in joined.parts:
            rows = slice(part.first, part.last)
            new = part.shard.checkpoint.watermarks.advance(part.origin, positions[rows], buckets[rows])
            which = np.flatnonzero(new) + part.first
            self.counters.repeated += len(new) - len(which)
            parts.append((part, which, prepared.part(which)))
        self._load([(part.shard, events) for part, _, events in parts])
        found = []
        for part, which, events in parts:
            applied = self._update(part.shard, events, in_stream[which])
            found.append(replace(applied, indices=which[applied.indices]))
        self._send_all(joined, [(part.shard, part.origin) for part, *_ in parts], found)

    def _send_all(self, joined: Joined, places: Sequence[tuple[Shard, str]], found: Sequence[Applied]) -> None:
        """Send the vectors of each shard and origin."""
        if not any(len(applied.indices) for applied in found):
            return
        together = replace(
            found[0],
            indices=np.concatenate([applied.indices for applied in found]),
            codes=np.concatenate([applied.codes for applied in found]),
            vectors=np.concatenate([applied.vectors.T for applied in found], axis=1).T,
        )
        vectors, first = self._vectors.batch(joined.batch, together), 0
        for (shard, origin), applied in zip(places, found, strict=True):
            shard.send(shard.number, "vectors", origin, vectors.slice(first, len(applied.indices)))
            first += len(applied.indices)

    def save(self, shard: Shard) -> None:
        """Write the rows that changed, the watermarks and the offset, each only if it rises.

        Raises UnavailableError while the table is away.
        """
        self._commit([(shard, self._engines[shard.number].changed())])

    @property
    def saves_together(self) -> bool:
        """Whether the table commits many shards in one transaction."""
        return self._features.together

    def save_all(self, shards: Sequence[Shard]) -> Sequence[Shard]:
        """Save several shards at once: all after many events, else the oldest, with few rows together."""
        many = sum(shard.rows for shard in shards) >= MANY_EVENTS
        changed: list[tuple[Shard, pa.RecordBatch]] = []
        count = 0
        for shard in shards if self.saves_together else shards[:1]:
            rows = self._engines[shard.number].changed()
            count += rows.num_rows
            if changed and count > FEW_ROWS and not many:
                break
            changed.append((shard, rows))
        self._commit(changed)
        return [shard for shard, _ in changed]

    def drop(self, shards: Iterable[int]) -> None:
        """Forget the users of shards."""
        for shard in shards:
            self._engines.pop(shard, None)

    def _commit(self, changed: Sequence[tuple[Shard, pa.RecordBatch]]) -> None:
        rose = self._features.commit_all([(shard.number, rows, shard.checkpoint) for shard, rows in changed])
        for (shard, _), alone in zip(changed, rose, strict=True):
            if alone:
                self._engines[shard.number].clean()
            else:
                self.forget(shard.number)  # another owner was here, and is further
        self._make_room()
        self._tell_misses()

    def _make_room(self) -> None:
        """Forget stored users, of each shard the same part of them, if rows take too much memory."""
        taken = sum(engine.nbytes for engine in self._engines.values())
        if taken > CACHED_BYTES:
            for engine in self._engines.values():
                engine.evict(int(len(engine) * SPARED * CACHED_BYTES / taken))

    def _load(self, events: Sequence[tuple[Shard, Prepared]]) -> None:
        """Read the rows of users that are not in memory, of all shards at once."""
        missing = [
            (self._engines[shard.number], wanted)
            for shard, prepared in events
            if (wanted := self._engines[shard.number].missing(prepared.users))
        ]
        if not missing:
            return
        rows = self._features.get_many([key for _, wanted in missing for key in wanted])
        if len(missing) == 1:
            missing[0][0].load(missing[0][1], rows)
            return
        place = {key: row for row, key in enumerate(texts(rows.column(0)))}
        for engine, wanted in missing:
            engine.load(wanted, rows.take(pa.array([place[key] for key in wanted if key in place], pa.int64())))

    def _update(self, shard: Shard, events: Prepared, in_stream: Int64s) -> Applied:
        applied = self._engines[shard.number].apply_prepared(events, in_stream, self._look_up)
        if applied.skipped and self._features.checkpoint(shard.number).offset > shard.checkpoint.offset:
            # Its vectors are sent, but we would not count them.
            raise OvertakenError(f"another owner of shard {shard.number} is ahead: its state is read again")
        counters = shard.checkpoint.counters
        counters["vectors"] = counters.get("vectors", 0) + len(applied.indices)
        for reason, number in applied.not_counted.items():
            counters[reason] = counters.get(reason, 0) + number
            self.counters.not_counted[reason] = self.counters.not_counted.get(reason, 0) + number
        if applied.lookups:
            counters[LOOKUPS] = counters.get(LOOKUPS, 0) + applied.lookups
            counters[LOOKUP_MISSES] = counters.get(LOOKUP_MISSES, 0) + applied.lookup_misses
            self.counters.lookups += applied.lookups
            self.counters.lookup_misses += applied.lookup_misses
        return applied

    def _tell_misses(self) -> None:
        """Write into the function's log, once, that most lookups find nothing."""
        counters, lookups = self.counters, self._use_case.profile_lookups.values()
        if self._told_misses or not counters.mostly_missed:
            return
        self._told_misses = True
        self._context.logger.warn_with(
            "Most lookups find nothing: the default is used",
            table=", ".join(dict.fromkeys(lookup.look_up for lookup in lookups)),
            lookups=counters.lookups,
            misses=counters.lookup_misses,
        )
