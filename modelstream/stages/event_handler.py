"""The event-handler: keeps every readable row of a stream in a Parquet log, once, and passes events on.

It is used twice. As the event-handler it reads lines and JSON bodies, checks them against the use case, and looks up
what the use case looks up at events. It sends rows that can't be read to `dead-letters` and events to the next stream,
and keeps the events in their log. As the
inference logger (`rows=predictions`, no output stream) it keeps predictions.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelstream.base.timestamps import LAST
from modelstream.errors import HookError, ModelstreamError, NumberTakenError
from modelstream.events.checking import EventChecker, MessageLines, Transform
from modelstream.events.lookups import EventLookups, LookUpFunction
from modelstream.logs import Log
from modelstream.logs.publisher import Publisher
from modelstream.messages.codec import LINE, UnreadableError, check_columns, column_or_nulls, is_framed, one_line
from modelstream.messages.dead_letters import DeadLetter, letter
from modelstream.messages.identity import (
    LOOKUP_MISSES,
    LOOKUPS,
    MAX_EVENTS_A_MESSAGE,
    UNANSWERED,
    Checkpoint,
    Int64s,
    buckets_of,
    positions_of,
    stream_origin,
)
from modelstream.messages.json_text import split_body
from modelstream.settings import Settings, from_environment
from modelstream.stages.base import Stage
from modelstream.stages.joined import join
from modelstream.stages.sent import Sent, ends_of
from modelstream.stages.shard import Incoming, Shard
from modelstream.stages.stretches import Stretch
from modelstream.stores import Stores
from modelstream.streams import Streams
from modelstream.use_case.columns import EXTRA, MODEL_VERSION, OFFSET, ORIGIN, POSITION, SHARD
from modelstream.use_case.declared import UseCase

_TRUNCATED = msgspec.json.Decoder(dict[int, int])
LAST_PUBLICATION_SECONDS = 2.0
"""How long the end waits for another worker that publishes the same shard."""

_INGESTED_AT = msgspec.json.Decoder(Annotated[int, msgspec.Meta(ge=0, le=LAST)])


@dataclass
class Kept:
    """Rows of one origin that wait to be written to the log; `offsets` (int64) are the offsets of their messages.

    >>> Kept(pa.record_batch({"position": [7, 8]}), "a.ndjson", np.array([3, 3])).batch.num_rows
    2
    """

    batch: pa.RecordBatch
    origin: str
    offsets: Int64s


class EventHandler(Stage):
    """The stage of the event-handler and of the inference logger.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from modelstream.settings import StoreNames, StoreUrls
    >>> from modelstream.use_case.file import parse_use_case
    >>> use_case = parse_use_case('''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean, count],
    ...  fields: {house: key, at: time, kind: text, celsius: number},
    ...  events: {reading: {value: celsius}}, predict_on: [reading],
    ...  model: {name: frost, prediction: will_freeze}}''')
    >>> body = b'''{"house": "h1", "at": "2026-03-28 20:00", "kind": "reading", "celsius": 20}
    ... {"house": "h1", "at": "2026-03-28 20:01", "kind": "reading", "celsius": "warm"}'''
    >>> settings = Settings(function="f", use_case="", reads="generated", writes="incoming-events")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     stores = Stores(StoreUrls().within(Path(folder)), StoreNames(), use_case)
    ...     stage = EventHandler(None, settings, None, use_case, stores.events_log, epoch=0)
    ...     shard = Shard(0, stage.open(0), saved=-1)
    ...     stage.take_all([(shard, [Incoming(0, 0, body, 0)])])
    ...     stage.save(shard)
    ...     stores.events_log.count()
    ...     stores.close()
    [2]
    1
    >>> [(kind, batch.column("celsius").to_pylist()) for _, kind, _, batch in shard.outbox]
    [('events', [20.0])]
    >>> [(letter.position, letter.reason) for letter in shard.letters]
    [(1, 'celsius: expected a finite number, got "warm"')]
    """

    def __init__(
        self,
        context: Any,
        settings: Settings,
        streams: Streams,
        use_case: UseCase,
        log: Log,
        epoch: int,
        transform: Transform | None = None,
        look_up: LookUpFunction | None = None,
    ) -> None:
        super().__init__(context, settings, streams, epoch)
        self._use_case = use_case
        self._log = log
        self._lookups: EventLookups | None = None
        if settings.rows == "events":
            self._checker = EventChecker(use_case, transform)
            if use_case.event_lookups and look_up:
                self._lookups = EventLookups(use_case, look_up)
        self._kept: dict[int, list[Kept]] = {}
        self._sent: dict[int, Sent] = {}
        self._told_misses = False
        self._publisher: Publisher | None = None

    @classmethod
    async def begin(cls, context: Any, transform: Transform | None = None) -> EventHandler:
        """Return the stage that this process's settings describe, started.

        `transform` is the notebook's hook for events, if there is one; the inference logger does not use it. Raises
        ConfigurationError, and UnavailableError while a store is away.
        """
        settings = from_environment()
        stores = Stores.of(settings)
        log = stores.events_log if settings.rows == "events" else stores.inference_log
        stage = cls(context, settings, stores.streams, stores.use_case, log, stores.epoch, transform, stores.look_up)
        stage._load_kernels()
        stage.start()
        again = stores.again()
        stage._publisher = Publisher(again.events_log if settings.rows == "events" else again.inference_log)
        again.close()
        stage._publisher.start()
        return stage

    async def terminate(self) -> None:
        """Flush what can be flushed without waiting, and put it into the files that any program reads."""
        await super().terminate()
        if self._publisher is not None:
            self._publisher.stop()
        deadline = time.monotonic() + LAST_PUBLICATION_SECONDS
        with suppress(ModelstreamError):  # an outage; the next start does it
            while not self._log.publish() and time.monotonic() < deadline:
                time.sleep(0.01)  # another worker, which ends too, looks at the same shard

    def _load_kernels(self) -> None:
        """Warm up, so that the first message doesn't wait half a second."""
        if self.settings.rows == "events":
            EventChecker(self._use_case).check([MessageLines("", pa.array([b"{}"]), np.zeros(1, np.int64), 0)])

    def open(self, shard: int) -> Checkpoint:
        """Read the last footer of the shard's log, and what was looked up for events that were sent and not logged."""
        self._kept[shard] = []
        checkpoint = self._log.checkpoint(shard)
        if self._lookups:
            schema = self._use_case.event_schema
            self._sent[shard] = Sent(pa.schema([schema.field(name) for name in (POSITION, *self._lookups.names)]))
            own = stream_origin(self.settings.reads, shard)
            self._sent[shard].read(self.streams, self.settings.writes, shard, checkpoint.counters, own=own)
        return checkpoint

    def take(self, shard: Shard, message: Incoming) -> int:
        """Keep new predictions for the log; earlier functions have checked them.

        Raises UnreadableError for any other message.
        """
        rows = self.decoded(message, "predictions")
        check_columns(rows.batch, self._use_case.prediction_schema, self._use_case.needed_of_vector)
        new = shard.checkpoint.watermarks.advance(rows.origin, positions_of(rows.batch), self._buckets(rows.batch))
        kept = rows.batch if new.all() else rows.batch.filter(pa.array(new))
        self.counters.repeated += rows.batch.num_rows - kept.num_rows
        self._kept[shard.number].append(Kept(kept, rows.origin, np.full(kept.num_rows, message.offset, np.int64)))
        return int(rows.batch.num_rows)

    def take_all(self, groups: Sequence[tuple[Shard, list[Incoming]]]) -> list[int]:
        """Check the rows of messages together; keep the new ones for the log and send them on.

        Raises HookError if a transform fails, or does something that it must not.
        """
        if self.settings.rows == "predictions":
            return self._take_predictions(groups)
        stretches: list[Stretch] = []
        counts = []
        for shard, messages in groups:
            counts.append(sum(self._gather(stretches, shard, message) for message in messages))
        if stretches:
            self._take_stretches(stretches)
        return counts

    def _take_predictions(self, groups: Sequence[tuple[Shard, list[Incoming]]]) -> list[int]:
        """Keep the new predictions of many messages together where they are small."""
        joined = join(groups, lambda message: self.decoded(message, "predictions"))
        if joined is None:
            return super().take_all(groups)
        try:
            check_columns(joined.batch, self._use_case.prediction_schema, self._use_case.needed_of_vector)
        except UnreadableError:
            return super().take_all(groups)  # which finds the message that must be refused
        for shard, message, reason in joined.unreadable:
            self.refuse(shard, message, reason)
        positions, buckets = positions_of(joined.batch), self._buckets(joined.batch)
        for part, batch in joined.slices(joined.batch):
            rows = slice(part.first, part.last)
            new = part.shard.checkpoint.watermarks.advance(part.origin, positions[rows], buckets[rows])
            kept = batch if new.all() else batch.filter(pa.array(new))
            self.counters.repeated += batch.num_rows - kept.num_rows
            self._kept[part.shard.number].append(Kept(kept, part.origin, joined.offsets[rows][new]))
        return joined.counts

    def _gather(self, stretches: list[Stretch], shard: Shard, message: Incoming) -> int:
        """Add a message's lines to the last stretch, or to a new one; return how many, 1 for none."""
        try:
            self.check_poison(message)
            if (one := self._only_line(message)) is not None:
                origin, position, text, ingested_at = one
                _stretch(stretches, shard, origin, position).add_line(message.offset, position, text, ingested_at)
                return 1
            lines = self._read(message)
        except UnreadableError as error:
            stretches.append(Stretch(shard, "", unreadable=(message, str(error))))
            return 1
        first = int(lines.positions[0]) if len(lines) else -1
        _stretch(stretches, shard, lines.origin, first).add(message.offset, lines)
        return len(lines) or 1

    def save(self, shard: Shard) -> None:
        """Commit what is kept as the next file of the shard's log.

        Raises UnavailableError if the log is unavailable, and ModelstreamError if other writers are always faster.
        """
        for _ in range(8):
            rows = self._table(shard.number, self._kept[shard.number])
            checkpoint = self._counted(shard.checkpoint, rows)
            try:
                self._log.append(shard.number, rows, checkpoint)
                shard.checkpoint.counters = checkpoint.counters
                break
            except NumberTakenError:
                # Kept even if the next try fails for another reason: then the number is free, the rows not new.
                self._kept[shard.number] = self._still_new(shard, self._kept[shard.number])
        else:
            raise ModelstreamError(
                f"other writers keep writing to shard {shard.number} of {self._log.place()}",
                remedy="run only one pipeline on this folder",
            )
        self._kept[shard.number] = []
        self._tell_misses()

    def _tell_misses(self) -> None:
        """Write into the function's log, once, that most lookups find nothing."""
        counters = self.counters
        if not self._lookups or self._told_misses or not counters.mostly_missed:
            return
        self._told_misses = True
        self._context.logger.warn_with(
            "Most lookups find nothing: the default is used",
            table=", ".join(self._lookups.tables),
            lookups=counters.lookups,
            misses=counters.lookup_misses,
        )

    def _counted(self, checkpoint: Checkpoint, rows: pa.Table) -> Checkpoint:
        """Return the checkpoint after rows that are to be written: with the vectors that no model has answered, or the
        values that were looked up, and where the stream ended to which the rows were sent.
        """
        if self._lookups:
            found = dict(zip((LOOKUPS, LOOKUP_MISSES), self._lookups.counted(rows), strict=True))
        elif self.settings.rows == "predictions":
            found = {UNANSWERED: rows.column(MODEL_VERSION).null_count}
        else:
            return checkpoint
        counters = checkpoint.counters | {
            name: checkpoint.counters.get(name, 0) + number for name, number in found.items() if number
        }
        if self._lookups:
            counters |= ends_of(self.streams, self.settings.writes)
        return replace(checkpoint, counters=counters)

    def _still_new(self, shard: Shard, kept: list[Kept]) -> list[Kept]:
        """Return the rows that another owner of the shard, which committed in between, has not stored."""
        committed = self._log.checkpoint(shard.number)
        remaining = []
        for rows in kept:
            fresh = committed.watermarks.advance(rows.origin, positions_of(rows.batch), self._buckets(rows.batch))
            remaining.append(Kept(rows.batch.filter(pa.array(fresh)), rows.origin, rows.offsets[fresh]))
        for origin, bucket, position in shard.checkpoint.watermarks.items():
            if position > committed.watermarks.get(origin, bucket):
                committed.watermarks.set(origin, bucket, position)
        shard.checkpoint.watermarks, shard.checkpoint.counters = committed.watermarks, committed.counters
        shard.checkpoint.offset = max(shard.checkpoint.offset, committed.offset)
        return remaining

    def _only_line(self, message: Incoming) -> tuple[str, int, bytes, int] | None:
        """Return the origin, position, text and time of a message's only line, quickly; None if it needs `_read`."""
        body = message.body
        if body.startswith(b"{") and b"\n" not in body:
            return *self.identity(message), body.rstrip(), message.appended_at
        found = one_line(body)
        if found is None or "truncated" in found[0]:
            return None
        description, position, text = found
        return description["origin"], position, text, _ingested_at(description, message)

    def _read(self, message: Incoming) -> MessageLines:
        """Return the lines of a message from a reader or a client, with their identity."""
        if is_framed(message.body):
            rows = self.decoded(message, "lines")
            ingested_at = _ingested_at(rows.metadata, message)
            try:
                truncated = _TRUNCATED.decode(rows.metadata.get("truncated", "{}"))
            except msgspec.DecodeError as error:
                raise _undescribed(error) from error
            return MessageLines(rows.origin, rows.batch.column(LINE), positions_of(rows.batch), ingested_at, truncated)
        lines = split_body(message.body)
        if len(lines) > MAX_EVENTS_A_MESSAGE:
            raise UnreadableError(f"{len(lines)} events in a message; {MAX_EVENTS_A_MESSAGE} are allowed")
        origin, first = self.identity(message)
        positions = np.arange(first, first + len(lines), dtype=np.int64)
        return MessageLines(origin, pa.array(lines, pa.binary()), positions, message.appended_at)

    def _take_stretches(self, stretches: list[Stretch]) -> None:
        """Check the lines of all messages together, then count each line once, in the messages' order.

        This includes an unreadable message, which has its place among the events of a client.
        """
        found = [stretch.lines() for stretch in stretches]  # of an unreadable one, none
        checked = self._checker.check(found)
        if self._lookups:
            checked = replace(checked, events=self._lookups.fill(checked.events))
        ends = np.cumsum([len(lines) for lines in found])
        rows = np.searchsorted(checked.indices, ends)
        first_line = first_row = 0
        rejects = iter([*checked.rejects, None])
        reject = next(rejects)
        for stretch, lines, end, row in zip(stretches, found, ends.tolist(), rows.tolist(), strict=True):
            if stretch.unreadable is not None:
                self.refuse(stretch.shard, *stretch.unreadable)
                continue
            shard, offsets = stretch.shard, stretch.offsets()
            new = shard.checkpoint.watermarks.advance(lines.origin, lines.positions, checked.buckets[first_line:end])
            while reject is not None and reject.index < end:
                index = reject.index - first_line
                if new[index]:
                    shard.letters.append(self._letter(shard, int(offsets[index]), lines, index, reject.reason))
                reject = next(rejects)
            events = checked.events.slice(first_row, row - first_row)
            indices = checked.indices[first_row:row] - first_line
            if not new.all():
                self.counters.repeated += len(new) - int(np.count_nonzero(new))
                fresh = new[indices]
                events, indices = events.filter(pa.array(fresh)), indices[fresh]
            if self._lookups:
                events = self._sent[shard.number].put_into(lines.origin, events)
                lookups, misses = self._lookups.counted(events)
                self.counters.lookups += lookups
                self.counters.lookup_misses += misses
            self._pass_on(shard, lines.origin, events, checked.buckets[first_line:end][indices])
            self._kept[shard.number].append(Kept(events, lines.origin, offsets[indices]))
            first_line, first_row = end, row

    def _letter(self, shard: Shard, offset: int, lines: MessageLines, index: int, reason: str) -> DeadLetter:
        at = (self.settings.reads, shard.number, offset)
        position = int(lines.positions[index])
        return letter(reason, lines.origin, position, at, lines.texts[index].as_py(), lines.sizes.get(position, 0))

    def _buckets(self, batch: pa.RecordBatch) -> npt.NDArray[np.uint8]:
        return buckets_of(batch.column(self._use_case.key))

    def _pass_on(self, shard: Shard, origin: str, events: pa.RecordBatch, buckets: npt.NDArray[np.uint8]) -> None:
        if not self.settings.writes or not events.num_rows:
            return
        shards = buckets % self.settings.shards
        if origin != stream_origin(self.settings.reads, shard.number) and (shards != shard.number).any():
            # Rows of one origin that reach a bucket from two shards would be taken for repeated ones.
            moved = events.slice(int(np.flatnonzero(shards != shard.number)[0]), 1)
            key, at = self._use_case.key, f"position {positions_of(moved)[0]} of {origin}"
            but = "but a reader had found another key there, or none, and chosen the shard by it"
            raise HookError(
                f"transform(batch) made {moved.column(key)[0].as_py()!r} the {key} at {at}, {but}",
                logged=f"transform(batch) made another {key} at {at}, {but}",
                remedy="say in the use-case file where the key stands, such as "
                f"`{key}: {{type: key, path: after.id}}`; or make keys before the events are sent; or send them by "
                "HTTP, where a transform may make the key",
            )
        events = events.drop_columns([EXTRA])
        if (shards == shards[0]).all():
            shard.send(int(shards[0]), "events", origin, events)
            return
        for number in np.unique(shards):
            shard.send(int(number), "events", origin, events.filter(pa.array(shards == number)))

    def _table(self, number: int, kept: list[Kept]) -> pa.Table:
        """Return the rows that are kept, in the columns of the log."""
        kept = [rows for rows in kept if rows.batch.num_rows]
        schema = self._log.schema
        if not kept:
            return schema.empty_table()
        names = [name for name in schema.names if name not in (ORIGIN, SHARD, OFFSET)]
        own = pa.schema([schema.field(name) for name in names])
        rows = pa.Table.from_batches([_aligned(one.batch, own) for one in kept], own)
        sizes = [one.batch.num_rows for one in kept]
        added = {
            ORIGIN: pa.array([one.origin for one in kept]).take(pa.array(np.repeat(np.arange(len(kept)), sizes))),
            SHARD: pa.array(np.full(rows.num_rows, number, np.int16)),
            OFFSET: pa.array(np.concatenate([one.offsets for one in kept])),
        }
        columns = [added[name] if name in added else rows.column(name) for name in schema.names]
        return pa.Table.from_arrays(columns, schema=schema).combine_chunks()


def _ingested_at(description: Mapping[str, str], message: Incoming) -> int:
    """Return when a message's lines were ingested, in microseconds. Raises UnreadableError."""
    if (told := description.get("ingested_at")) is None:
        return message.appended_at
    try:
        ingested_at: int = _INGESTED_AT.decode(told)
    except msgspec.DecodeError as error:
        raise _undescribed(error) from error
    return ingested_at


def _undescribed(error: msgspec.DecodeError) -> UnreadableError:
    return UnreadableError(f"a message of lines whose description can't be read: {error}")


def _stretch(stretches: list[Stretch], shard: Shard, origin: str, first: int) -> Stretch:
    """Return the stretch for lines of an origin from a position on: the last one, or a new one."""
    if not stretches or not stretches[-1].goes_on(shard, origin, first):
        stretches.append(Stretch(shard, origin))
    return stretches[-1]


def _aligned(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch with exactly this schema; a column that was left out because every row was null is restored.

    A foreign message's columns may be said to have no nulls, which is another schema.
    """
    return pa.RecordBatch.from_arrays([column_or_nulls(batch, field) for field in schema], schema=schema)
