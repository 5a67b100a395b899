"""The event-handler: keeps every row of a stream in a Parquet log, once, and passes readable events on.

It is used twice. As the event-handler proper it reads lines and JSON bodies, checks them against the use case,
sends what can't be read to `dead-letters`, the events to the next stream, and keeps them in the log of events.
As the inference logger (`rows=predictions`, no output stream) it keeps predictions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelstream.columns import EXTRA, OFFSET, ORIGIN, POSITION, SHARD
from modelstream.dead_letters import letter
from modelstream.errors import ConfigurationError, ModelstreamError, NumberTakenError
from modelstream.events import LINE, MAX_LINE, Kind, Rows, UnreadableError, decode, is_arrow, split_body
from modelstream.identity import (
    MAX_EVENTS_A_MESSAGE,
    Checkpoint,
    buckets_of,
    stream_origin,
    stream_position,
)
from modelstream.log import ParquetLog
from modelstream.parsing import Checker, LineParser, Reject
from modelstream.settings import Settings, folder_of, from_environment
from modelstream.stages.base import Incoming, Shard, Stage
from modelstream.streams import Streams, open_streams
from modelstream.tables import open_tables
from modelstream.use_case import UseCase, load

Transform = Callable[[pa.RecordBatch], pa.RecordBatch]
"""A hook that maps foreign events to the use case's: takes and returns a batch of `UseCase.event_schema`.

It may change values and leave rows out, by what stands in the row alone: a batch is cut anywhere.
"""

_TRUNCATED = msgspec.json.Decoder(dict[int, int])
_INGESTED_AT = msgspec.json.Decoder(Annotated[int, msgspec.Meta(ge=0, lt=2**62)])


def unchanged(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch as it is: the transform of events that are the use case's own."""
    return batch


@dataclass
class Lines:
    """The raw lines of a message: n texts with their positions (int64, rising) in one origin."""

    origin: str
    lines: list[bytes]
    positions: npt.NDArray[np.int64]
    ingested_at: int
    sizes: dict[int, int] = field(default_factory=dict)
    """Bytes of the whole line, by position, where the reader cut it."""

    def uncut(self) -> list[bytes]:
        """Return the lines, nothing for one that was cut: what is left of it may look like an event."""
        if not self.sizes:
            return self.lines
        positions = self.positions.tolist()
        return [b"" if place in self.sizes else line for place, line in zip(positions, self.lines, strict=True)]


@dataclass
class Kept:
    """Rows that wait for the log: a batch of one message."""

    batch: pa.RecordBatch
    origin: str
    offset: int


class EventHandler(Stage):
    """See the module."""

    def __init__(
        self,
        context: Any,
        settings: Settings,
        streams: Streams,
        use_case: UseCase,
        log: ParquetLog,
        epoch: int,
        transform: Transform = unchanged,
    ) -> None:
        super().__init__(context, settings, streams)
        self._use_case = use_case
        self._log = log
        self._epoch = epoch
        self._transform = transform
        self._parser = LineParser(use_case)
        self._checker = Checker(use_case)
        self._kept: dict[int, list[Kept]] = {}

    @classmethod
    async def begin(cls, context: Any, transform: Transform = unchanged) -> EventHandler:
        """Return the stage that this process's settings describe, started."""
        settings = from_environment()
        use_case = load(settings.use_case)
        schema = use_case.events_log_schema if settings.rows == "events" else use_case.inference_log_schema
        epoch = open_tables(settings.tables).epoch()
        log = ParquetLog(folder_of(settings.logs) / settings.log, schema, epoch)
        stage = cls(context, settings, open_streams(settings.streams), use_case, log, epoch, transform)
        stage.start()
        return stage

    def open(self, shard: int) -> Checkpoint:
        """Read the last footer of the shard's log."""
        self._kept[shard] = []
        return self._log.last(shard)

    def take(self, shard: Shard, message: Incoming) -> int:
        """Check the rows of a message; keep the new ones for the log and send them on."""
        try:
            if self.settings.rows == "predictions":
                return self._take_rows(shard, message, self._decoded(message, "predictions"))
            return self._take_lines(shard, message, self._read(message))
        except UnreadableError as error:
            self._refuse_message(shard, message, str(error))
            return 1

    def save(self, shard: Shard) -> None:
        """Commit what is kept as the next file of the shard's log."""
        for _ in range(8):
            try:
                self._log.append(shard.number, self._table(shard.number, self._kept[shard.number]), shard.checkpoint)
                break
            except NumberTakenError:
                # Kept even if the next try fails for another reason: then the number is free, the rows not new.
                self._kept[shard.number] = self._still_new(shard, self._kept[shard.number])
        else:
            raise ModelstreamError(
                f"other writers take the files of shard {shard.number} of the log {self.settings.log} all the time",
                remedy="run one pipeline on this folder",
            )
        self._kept[shard.number] = []

    def _still_new(self, shard: Shard, kept: list[Kept]) -> list[Kept]:
        """Return what another owner of the shard, who committed in between, has not kept."""
        committed = self._log.last(shard.number)
        remaining = []
        for rows in kept:
            fresh = committed.watermarks.advance(rows.origin, _positions(rows.batch), self._buckets(rows.batch))
            remaining.append(Kept(rows.batch.filter(pa.array(fresh)), rows.origin, rows.offset))
        for origin, bucket, position in shard.checkpoint.watermarks.items():
            if position > committed.watermarks.get(origin, bucket):
                committed.watermarks.set(origin, bucket, position)
        shard.checkpoint.watermarks = committed.watermarks
        shard.checkpoint.offset = max(shard.checkpoint.offset, committed.offset)
        return remaining

    def _read(self, message: Incoming) -> Lines:
        """Return the lines of a message of lines or of a client's body, with the identity that they have or get."""
        if is_arrow(message.body):
            rows = self._decoded(message, "lines")
            try:
                ingested_at = _INGESTED_AT.decode(rows.metadata.get("ingested_at", str(message.appended_at)))
                truncated = _TRUNCATED.decode(rows.metadata.get("truncated", "{}"))
            except msgspec.DecodeError as error:
                raise UnreadableError(f"a message of lines whose description can't be read: {error}") from error
            lines = rows.batch.column(LINE).to_numpy(zero_copy_only=False).tolist()  # 20 times faster than to_pylist
            return Lines(rows.origin, lines, _positions(rows.batch), ingested_at, truncated)
        lines = split_body(message.body)
        if len(lines) > MAX_EVENTS_A_MESSAGE:
            raise UnreadableError(f"{len(lines)} events in a message; {MAX_EVENTS_A_MESSAGE} are allowed")
        first = stream_position(self._epoch, message.offset)
        positions = np.arange(first, first + len(lines), dtype=np.int64)
        origin = stream_origin(self.settings.reads, message.shard)
        return Lines(origin, lines, positions, message.appended_at)

    def _decoded(self, message: Incoming, kind: Kind) -> Rows:
        rows = decode(message.body)
        if rows.kind != kind:
            raise UnreadableError(f"a message of {rows.kind} in {self.settings.reads}, which takes {kind}")
        return rows

    def _take_lines(self, shard: Shard, message: Incoming, found: Lines) -> int:
        parsed = self._parser.parse(found.uncut(), found.positions, found.ingested_at)
        events = parsed.events
        if self._transform is not unchanged:
            events = self._transformed(events)
        rejects = [
            Reject(
                reject.index,
                f"longer than {MAX_LINE:,} bytes: {found.sizes[int(found.positions[reject.index])]:,}",
            )
            if found.sizes and int(found.positions[reject.index]) in found.sizes
            else reject
            for reject in parsed.rejects
        ]
        places = np.searchsorted(found.positions, _positions(events))
        lacking = self._checker.check(events)
        if lacking:
            rejects += [Reject(int(places[reject.index]), reject.reason) for reject in lacking]
            rejects.sort(key=lambda reject: reject.index)
            complete = np.ones(len(places), np.bool_)
            complete[[reject.index for reject in lacking]] = False
            events, places = events.filter(pa.array(complete)), places[complete]
        buckets = np.zeros(len(found.lines), np.uint8)
        buckets[places] = self._buckets(events)
        if self._transform is not unchanged and found.origin != stream_origin(self.settings.reads, message.shard):
            self._check_shards(buckets[places], message.shard)
        new = shard.checkpoint.watermarks.advance(found.origin, found.positions, buckets)
        self.metrics.repeated += len(new) - int(np.count_nonzero(new))
        if not new.all():
            fresh = new[places]
            events, places = events.filter(pa.array(fresh)), places[fresh]
        at = (self.settings.reads, message.shard, message.offset)
        for reject in rejects:
            if new[reject.index]:
                position = int(found.positions[reject.index])
                row, size = found.lines[reject.index], found.sizes.get(position, 0)
                shard.letters.append(letter(reject.reason, found.origin, position, at, row, size))
        self._pass_on(shard, found.origin, events, buckets[places])
        self._kept[shard.number].append(Kept(events, found.origin, message.offset))
        return len(found.lines)

    def _take_rows(self, shard: Shard, message: Incoming, rows: Rows) -> int:
        """Keep the new ones of rows that an earlier function has checked."""
        new = shard.checkpoint.watermarks.advance(rows.origin, _positions(rows.batch), self._buckets(rows.batch))
        kept = rows.batch if new.all() else rows.batch.filter(pa.array(new))
        self.metrics.repeated += rows.batch.num_rows - kept.num_rows
        self._kept[shard.number].append(Kept(kept, rows.origin, message.offset))
        return int(rows.batch.num_rows)

    def _refuse_message(self, shard: Shard, message: Incoming, reason: str) -> None:
        origin = stream_origin(self.settings.reads, message.shard)
        position = stream_position(self._epoch, message.offset)
        at = (self.settings.reads, message.shard, message.offset)
        if shard.checkpoint.watermarks.advance(origin, np.array([position]), np.zeros(1, np.uint8))[0]:
            shard.letters.append(letter(reason, origin, position, at, message.body))

    def _transformed(self, events: pa.RecordBatch) -> pa.RecordBatch:
        changed = self._transform(events)
        wanted = self._use_case.event_schema
        if not isinstance(changed, pa.RecordBatch) or not changed.schema.equals(wanted):
            raise ConfigurationError(
                "transform(batch) did not return a batch with the columns that it was given",
                remedy=f"return a pyarrow.RecordBatch with the schema {', '.join(wanted.names)}",
            )
        positions = _positions(changed)
        if not np.isin(positions, _positions(events)).all() or not (positions[1:] > positions[:-1]).all():
            raise ConfigurationError(
                "transform(batch) returned rows that it was not given, or in another order",
                remedy=f"it may change values and leave rows out, and keeps the column {POSITION} as it is",
            )
        return changed

    def _check_shards(self, buckets: npt.NDArray[np.uint8], shard: int) -> None:
        """Refuse keys that belong elsewhere: rows of one origin that reach a bucket from two shards would be lost."""
        if (buckets % self.settings.shards != shard).any():
            raise ConfigurationError(
                f"transform(batch) changed {self._use_case.key}, and with it the shard of events",
                remedy="map keys before the events are sent: a reader shards by the key that it finds",
            )

    def _buckets(self, batch: pa.RecordBatch) -> npt.NDArray[np.uint8]:
        return buckets_of(batch.column(self._use_case.key))

    def _pass_on(self, shard: Shard, origin: str, events: pa.RecordBatch, buckets: npt.NDArray[np.uint8]) -> None:
        if not self.settings.writes or not events.num_rows:
            return
        events = events.drop_columns([EXTRA])
        shards = buckets % self.settings.shards
        if (shards == shards[0]).all():
            shard.send(int(shards[0]), "events", origin, events)
            return
        for number in np.unique(shards):
            shard.send(int(number), "events", origin, events.filter(pa.array(shards == number)))

    def _table(self, number: int, kept: list[Kept]) -> pa.Table:
        """Return the rows that are kept, in the columns of the log."""
        schema = self._log.schema
        batches = [self._logged(number, rows) for rows in kept if rows.batch.num_rows]
        return pa.Table.from_batches(batches, schema)

    def _logged(self, number: int, rows: Kept) -> pa.RecordBatch:
        added = {
            ORIGIN: pa.scalar(rows.origin, pa.string()),
            SHARD: pa.scalar(number, pa.int16()),
            OFFSET: pa.scalar(rows.offset, pa.int64()),
        }
        columns = [
            pa.repeat(added[field.name], rows.batch.num_rows)
            if field.name in added
            else _column(rows.batch, field.name, field.type)
            for field in self._log.schema
        ]
        return pa.record_batch(columns, self._log.schema)


def _positions(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    positions: npt.NDArray[np.int64] = batch.column(POSITION).to_numpy()
    return positions


def _column(batch: pa.RecordBatch, name: str, kind: pa.DataType) -> pa.Array:
    """Return a column, of nulls if the message left it out because every row was null."""
    index = batch.schema.get_field_index(name)
    return batch.column(index) if index >= 0 else pa.nulls(batch.num_rows, kind)
