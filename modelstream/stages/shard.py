"""The messages that a stage gets, and its state of a shard: messages that were taken, and rows that wait to be sent."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow as pa

from modelstream.base.timestamps import microseconds_of
from modelstream.messages import dead_letters
from modelstream.messages.codec import Kind, encode, split_rows
from modelstream.messages.dead_letters import DeadLetter
from modelstream.messages.identity import Checkpoint

Records = list[tuple[int, bytes]]
"""Messages to append to a stream: each with its shard there."""


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """A message as a trigger delivered it.

    >>> import nuclio_sdk
    >>> at = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    >>> Incoming.of(nuclio_sdk.Event(body=b"{}", shard_id=3, offset=7, timestamp=at))
    Incoming(shard=3, offset=7, body=b'{}', appended_at=1000000, poison=False)
    """

    shard: int
    offset: int
    body: bytes
    appended_at: int
    """When it was appended to its stream, in microseconds."""
    poison: bool = False
    """Whether it ends every process that takes it."""

    @classmethod
    def of(cls, event: Any) -> Incoming:
        """Return the message of a Nuclio event. A body that the platform has decoded is encoded as JSON again."""
        body = event.body if isinstance(event.body, bytes) else msgspec.json.encode(event.body)
        stamp = event.timestamp if isinstance(event.timestamp, datetime) else datetime.now(UTC)
        return cls(int(event.shard_id), int(event.offset), body, microseconds_of(stamp))


@dataclass
class Shard:
    """A stage's state of one shard.

    >>> from modelstream.messages.codec import decode
    >>> shard = Shard(0, Checkpoint(), saved=-1)
    >>> for position in (7, 8):
    ...     shard.send(2, "vectors", "a.ndjson", pa.record_batch({"position": [position]}))
    >>> rows, letters = shard.encoded()
    >>> [(to, decode(body).batch.column("position").to_pylist()) for to, body in rows], letters
    ([(2, [7, 8])], [])
    """

    number: int
    checkpoint: Checkpoint
    """The state after the last message taken; up to offset `saved` it is durable."""
    saved: int
    keeps: bool = True
    """Whether its stage keeps state. If not, a message that is taken again has its effects again."""
    outbox: list[tuple[int, Kind, str, pa.RecordBatch]] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    rows: int = 0
    """Rows taken since the last save."""
    since: float = 0.0
    """When the oldest unsaved message was taken (seconds of the event loop)."""
    reads_to: int = -1
    """Up to this offset, the stage reads by itself what it isn't given."""

    @property
    def next(self) -> int:
        """The offset of the message to take next."""
        return self.checkpoint.offset + 1

    @property
    def unsaved(self) -> bool:
        """Whether messages were taken that are not durable."""
        return self.checkpoint.offset > self.saved

    def send(self, shard: int, kind: Kind, origin: str, batch: pa.RecordBatch) -> None:
        """Put rows into the outbox for a shard of the output stream."""
        if batch.num_rows:
            self.outbox.append((shard, kind, origin, batch))

    def encoded(self, definition: str = "") -> tuple[Records, Records]:
        """Return what waits to be sent as records: rows, and dead letters.

        Consecutive rows of one origin share a record. Vectors and predictions carry the hash of the definition that
        made them.
        """
        rows: Records = []
        waiting = sorted(self.outbox, key=lambda entry: entry[0])
        for (to, kind, origin), group in itertools.groupby(waiting, key=lambda entry: entry[:3]):
            batches = [batch for *_, batch in group]
            whole = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
            described = {"definition": definition} if definition and kind in ("vectors", "predictions") else {}
            rows.extend((to, encode(kind, origin, piece, **described)) for piece in split_rows(whole))
        return rows, [(self.number, body) for body in dead_letters.encode_letters(self.letters)]
